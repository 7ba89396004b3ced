import {
  Component,
  lazy,
  Suspense,
  useEffect,
  useMemo,
  useState,
  type ErrorInfo,
  type KeyboardEvent,
  type ReactNode,
} from "react";
import type { BrokerClient, ConnectRequest, LinkedAccount } from "./client";
import type { ConnectProblem } from "./problems";
import { watchHubRefusals } from "./refusals";
import type { Timing } from "./flow";
import { useConnect } from "./useConnect";
import { describe, LABELS, NOTICES } from "./words";
import "./connect.css";

const loadHub = () => import("./hub");
const StackOneHub = lazy(loadHub);

export interface ConnectHubProps {
  client: BrokerClient;
  /** Where the Hub calls (StackOne's API) and where its OAuth popup ends (StackOne's dashboard). */
  stackone: { baseUrl: string; appUrl: string };
  request: ConnectRequest;
  theme: "light" | "dark";
  /** Called once, with an account that the broker has confirmed. Look at `usable`: credentials may be wrong. */
  onLinked: (account: LinkedAccount) => void;
  /** Where to go when the user's access token is no longer accepted; the user has read so and wants to sign in. */
  onSignedOut?: () => void;
  timing?: Partial<Timing>;
}

/**
 * The Hub with a life around it. Mount it to connect, unmount it to give up.
 *
 * Not for a modal `<dialog>`: the Hub opens its lists at the end of `<body>`, which a modal makes inert.
 */
export function ConnectHub(props: ConnectHubProps) {
  const { client, stackone, request, theme, onLinked, onSignedOut, timing } = props;
  const connect = useConnect({ client, request, onLinked, ...(timing ? { timing } : {}) });
  const { state, touch, hubWasRefused } = connect;
  const token = state.phase === "open" ? state.session.token : null;

  useEffect(() => {
    loadHub().catch(() => {}); // While the token is minted; a failure shows when the Hub is rendered.
  }, []);

  // Read while rendering: the Hub's own effects, and with them its first calls, run before ours.
  const shownAt = useMemo(() => (token === null ? 0 : performance.now()), [token]);
  useEffect(() => {
    if (token !== null) return watchHubRefusals(stackone.baseUrl, shownAt, hubWasRefused);
    return undefined;
  }, [token, shownAt, stackone.baseUrl, hubWasRefused]);

  switch (state.phase) {
    case "opening":
      return <Waiting text={state.slow ? LABELS.openingSlowly : LABELS.opening} />;
    case "confirming":
      return <Waiting text={state.slow ? LABELS.confirmingSlowly : LABELS.confirming} />;
    case "linked":
      return null;
    case "failed":
      return (
        <Failure
          problem={state.problem}
          retryAt={state.retryAt}
          onAgain={state.problem.kind === "signed_out" ? (onSignedOut ?? connect.retry) : connect.retry}
        />
      );
    case "open":
      return (
        <div className="connect" onPointerDown={touch} onInput={touch} onKeyDown={touchUnlessMoving(touch)}>
          <div className="connect-notice" role="status">
            {state.notice !== null && <p>{NOTICES[state.notice]}</p>}
            {state.notice === "linked_elsewhere" && (
              <button type="button" onClick={connect.finish}>
                {LABELS.finish}
              </button>
            )}
          </div>
          <HubBoundary key={state.session.token} onCrash={connect.hubCrashed}>
            <Suspense fallback={<Waiting text={LABELS.opening} />}>
              {/* Keyed by the token: the Hub ignores a token that changes under it. The account goes in as a prop,
                  because a Hub that learns it late shows an empty form that would link a second account. */}
              <StackOneHub
                key={state.session.token}
                token={state.session.token}
                baseUrl={stackone.baseUrl}
                appUrl={stackone.appUrl}
                theme={theme}
                height="34rem"
                showFooterLinks={false}
                onSuccess={connect.hubSucceeded}
                {...(state.session.account_id === null ? {} : { accountId: state.session.account_id })}
              />
            </Suspense>
          </HubBoundary>
        </div>
      );
  }
}

function touchUnlessMoving(touch: () => void) {
  return (event: KeyboardEvent) => {
    if (!["Tab", "Shift", "Escape", "ArrowUp", "ArrowDown"].includes(event.key)) touch();
  };
}

function Waiting({ text }: { text: string }) {
  return (
    <div className="connect connect-waiting" role="status">
      <span className="connect-spinner" aria-hidden="true" />
      <p>{text}</p>
    </div>
  );
}

interface FailureProps {
  problem: ConnectProblem;
  retryAt: number | null;
  onAgain: () => void;
}

function Failure({ problem, retryAt, onAgain }: FailureProps) {
  const words = describe(problem);
  return (
    <div className="connect connect-failure" data-problem={problem.kind}>
      <div role="alert">
        <h3>{words.title}</h3>
        <p>{words.text}</p>
      </div>
      {retryAt !== null && <Countdown until={retryAt} />}
      <button type="button" onClick={onAgain}>
        {words.again}
      </button>
      {problem.requestId !== null && (
        <p className="connect-reference">
          {LABELS.reference}: <code>{problem.requestId}</code>
        </p>
      )}
    </div>
  );
}

function Countdown({ until }: { until: number }) {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return <p aria-hidden="true">{LABELS.retryIn(Math.max(0, Math.ceil((until - now) / 1000)))}</p>;
}

/** The Hub reads localStorage outside its own boundary: where storage is denied, the whole page would go blank. */
class HubBoundary extends Component<{ children: ReactNode; onCrash: () => void }, { crashed: boolean }> {
  override state = { crashed: false };

  static getDerivedStateFromError() {
    return { crashed: true };
  }

  override componentDidCatch(_error: Error, _info: ErrorInfo) {
    this.props.onCrash();
  }

  override render() {
    return this.state.crashed ? null : this.props.children;
  }
}
