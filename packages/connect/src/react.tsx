"use client";
/** React 18 and 19, over the same core and the same views as everything else. */

import {
  Component,
  createContext,
  Fragment,
  useCallback,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
  type ButtonHTMLAttributes,
  type ComponentType,
  type ReactNode,
  type RefObject,
} from "react";
import { createRoot } from "react-dom/client";
import type { ConnectRequest, LinkedAccount, SessionStatus } from "./client.js";
import type { Connect, Flow, InvitationOptions, OpenOptions } from "./connect.js";
import type { ConnectionsState } from "./connections.js";
import { ThemeWatch } from "./dom.js";
import type { ConnectState } from "./flow.js";
import { showList } from "./list.js";
import { ConnectProblem, type ProblemKind } from "./problems.js";
import type { HubProps, HubRenderer, Theme, WordsOverride } from "./view-types.js";

type Shared = Pick<OpenOptions, "theme" | "hubTheme" | "locale" | "words" | "onSignedOut" | "closeOnBack">;

export interface ConnectProviderProps {
  connect: Connect;
  /** What "Sign in" does: once the user's access is no longer accepted, or (`not_invited`) as somebody else. */
  onSignedOut: (why: ProblemKind) => void;
  locale?: string;
  theme?: Theme;
  hubTheme?: object;
  words?: WordsOverride;
  closeOnBack?: boolean;
  children?: ReactNode;
}

const Context = createContext<{ connect: Connect; shared: Shared } | null>(null);

/** Gives everything below it the broker, and one look. */
export function ConnectProvider({ connect, onSignedOut, locale, theme, hubTheme, words, closeOnBack, children }: ConnectProviderProps) {
  const signedOut = useLatest(onSignedOut);
  const value = useMemo(
    () => ({
      connect,
      shared: { locale, theme, hubTheme, words, closeOnBack, onSignedOut: (why: ProblemKind) => signedOut.current(why) } as Shared,
    }),
    [connect, locale, theme, hubTheme, words, closeOnBack, signedOut],
  );
  return <Context.Provider value={value}>{children}</Context.Provider>;
}

function useShared() {
  const found = useContext(Context);
  if (found === null) throw new Error("this needs a <ConnectProvider> around it");
  return found;
}

/** The broker, and `open` with the provider's look. */
export function useConnect(): Connect {
  const { connect, shared } = useShared();
  return useMemo(
    () => ({
      ...connect,
      connections: connect.connections,
      open: (request, options) => connect.open(request, { ...shared, ...options }),
      openInvitation: (options) => connect.openInvitation({ ...shared, ...options }),
    }),
    [connect, shared],
  );
}

export interface UsedConnections extends ConnectionsState {
  reload: () => void;
}

const NOTHING_YET: ConnectionsState = { accounts: null, problem: null, recent: null };

/** The user's connections, kept fresh; however many components ask, the list is read once. */
export function useConnections(): UsedConnections {
  const { connections } = useShared().connect;
  const state = useSyncExternalStore(
    useCallback((changed: () => void) => connections.subscribe(changed), [connections]),
    () => connections.state,
    () => NOTHING_YET,
  );
  return useMemo(() => ({ ...state, reload: () => connections.reload() }), [state, connections]);
}

export interface ConnectHubProps {
  request: ConnectRequest;
  /** Called once, with an account that the broker has confirmed. Look at `usable`: credentials may be wrong. */
  onLinked?: (account: LinkedAccount) => void;
  /** Called if it ends in another way: by Back, or by a close of your own. */
  onCancelled?: () => void;
  className?: string;
}

/** The Hub in the page. Mount it to connect, unmount it to give up; not for a modal `<dialog>`. */
export function ConnectHub({ request, onLinked, onCancelled, className }: ConnectHubProps) {
  const { connect, shared } = useShared();
  const place = useRef<HTMLDivElement>(null);
  const flow = useRef<Flow | null>(null);
  const called = useLatest({ onLinked, onCancelled, shared });
  const text = JSON.stringify(request);
  const theme = shared.theme ?? "auto";

  useEffect(() => {
    const life = new AbortController();
    // Strict mode mounts twice in a row: the first time is over before anything is called.
    queueMicrotask(() => {
      if (life.signal.aborted) return;
      flow.current = connect.open(JSON.parse(text) as ConnectRequest, {
        ...called.current.shared,
        mount: place.current,
        signal: life.signal,
      });
      void flow.current.done.then((account) => {
        if (life.signal.aborted) return;
        if (account) called.current.onLinked?.(account);
        else called.current.onCancelled?.();
      });
    });
    return () => life.abort();
  }, [connect, text, shared.locale, called]);

  useEffect(() => flow.current?.setTheme(theme), [theme]);

  return <div ref={place} className={className} />;
}

export interface UseInvitationOptions {
  /** Where the Hub appears; without it, over the page. */
  mount?: RefObject<HTMLElement | null>;
  /** Called before the page goes to where the invitation says, if it says. */
  onLinked?: (account: LinkedAccount) => void;
  onCancelled?: () => void;
  navigate?: InvitationOptions["navigate"];
}

export interface UsedInvitation {
  /** Null where nobody was invited, and once it is over. */
  state: ConnectState | null;
  /** Gives it up. */
  close: () => void;
}

/** Opens what the page's visitor was invited to, if the address says so; after signing in, if that is needed first. */
export function useInvitation(options: UseInvitationOptions = {}): UsedInvitation {
  const { connect, shared } = useShared();
  const [state, setState] = useState<ConnectState | null>(null);
  const flow = useRef<Flow | null>(null);
  const called = useLatest({ ...options, shared });
  const theme = shared.theme ?? "auto";

  useEffect(() => {
    let life = new AbortController();
    const open = () => {
      life.abort();
      const { signal } = (life = new AbortController());
      // Strict mode mounts twice in a row: the first time is over before anything is called.
      queueMicrotask(() => {
        if (signal.aborted) return;
        const { mount, navigate, shared: look } = called.current;
        const opened = connect.openInvitation({
          ...look,
          ...(mount ? { mount: mount.current } : {}),
          ...(navigate ? { navigate } : {}),
          signal,
        });
        flow.current = opened;
        if (opened === null) return;
        const show = () => signal.aborted || setState(opened.state);
        opened.subscribe(show);
        show();
        void opened.done.then((account) => {
          if (signal.aborted) return;
          setState(null);
          if (account) called.current.onLinked?.(account);
          else called.current.onCancelled?.();
        });
      });
    };
    // A link that is opened where the page is shown already changes its fragment, and nothing else.
    const look = ({ newURL }: HashChangeEvent) => newURL.includes("#inv_") && open();
    addEventListener("hashchange", look);
    open();
    return () => {
      removeEventListener("hashchange", look);
      life.abort();
    };
  }, [connect, shared.locale, called]);

  useEffect(() => flow.current?.setTheme(theme), [theme]);

  return useMemo(() => ({ state, close: () => flow.current?.close() }), [state]);
}

export interface ConnectButtonProps extends Omit<ButtonHTMLAttributes<HTMLButtonElement>, "onClick"> {
  provider?: string;
  account_id?: string;
  onLinked?: (account: LinkedAccount) => void;
}

/** A button that opens the Hub over the page. */
export function ConnectButton({ provider, account_id, onLinked, className, ...rest }: ConnectButtonProps) {
  const { connect, shared } = useShared();
  const linked = useLatest(onLinked);
  const life = useRef<AbortController | null>(null);
  const button = useRef<HTMLButtonElement>(null);
  const theme = shared.theme ?? "auto";
  useEffect(() => {
    const shown = button.current;
    if (!shown?.parentElement) return undefined;
    const watch = new ThemeWatch(shown.parentElement, (now) => (shown.dataset["scbTheme"] = now));
    watch.set(theme);
    return () => watch.stop();
  }, [theme]);
  const open = () => {
    life.current?.abort();
    const { signal } = (life.current = new AbortController());
    const request: ConnectRequest = { ...(provider ? { provider } : {}), ...(account_id ? { account_id } : {}) };
    const flow = connect.open(request, { ...shared, signal });
    void flow.done.then((account) => account && !signal.aborted && linked.current?.(account));
  };
  const reopen = useLatest(open);
  useEffect(() => {
    let isShown = true;
    const isMine = (request: ConnectRequest) => request.provider === provider && request.account_id === account_id;
    // A reload in the middle comes back. Strict mode mounts twice in a row: the first time is over before that.
    queueMicrotask(() => isShown && connect.interrupted(isMine) && reopen.current());
    return () => {
      isShown = false;
      life.current?.abort();
    };
  }, [connect, provider, account_id, reopen]);
  return <button ref={button} type="button" className={className ?? "scb scb-button"} {...rest} onClick={open} />;
}

export interface ConnectionsListProps {
  /** Shown where nothing is connected. */
  empty?: ReactNode;
  onLinked?: (account: LinkedAccount) => void;
}

/** The user's connections, with Reconnect and Disconnect. */
export function ConnectionsList({ empty, onLinked }: ConnectionsListProps) {
  const { connect, shared } = useShared();
  const place = useRef<HTMLDivElement>(null);
  const linked = useLatest(onLinked);
  const hasOwnEmpty = empty !== undefined;
  const { accounts } = useConnections();
  useEffect(() => {
    if (!place.current) return undefined;
    return showList(connect, place.current, { ...shared, hasOwnEmpty, onLinked: (account) => linked.current?.(account) });
  }, [connect, shared, hasOwnEmpty, linked]);
  return (
    <Fragment>
      <div ref={place} />
      {accounts?.length === 0 && empty}
    </Fragment>
  );
}

/** Follows a session that is completed elsewhere, such as behind an auth link that was sent by e-mail. */
export function useSessionStatus(
  sessionId: string | null,
  everyMs = 4_000,
): { status: SessionStatus | null; problem: ConnectProblem | null } {
  const { connect } = useShared();
  const [status, setStatus] = useState<SessionStatus | null>(null);
  const [problem, setProblem] = useState<ConnectProblem | null>(null);

  useEffect(() => {
    setStatus(null);
    setProblem(null);
    if (sessionId === null) return undefined;
    const life = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;

    async function look(id: string) {
      try {
        // An auth link lives for days; a hidden page asks nothing meanwhile.
        const isHidden = document.visibilityState === "hidden";
        const answer = isHidden ? null : await connect.sessionStatus(id, { signal: life.signal });
        if (life.signal.aborted) return;
        if (answer !== null) {
          setStatus(answer);
          setProblem(null);
          if (answer.status !== "pending") return;
        }
      } catch (error) {
        if (life.signal.aborted) return;
        const found = error instanceof ConnectProblem ? error : new ConnectProblem("broken", { cause: error });
        setProblem(found);
        if (!found.passes) return;
      }
      timer = setTimeout(() => void look(id), everyMs);
    }

    void look(sessionId);
    return () => {
      life.abort();
      clearTimeout(timer);
    };
  }, [connect, sessionId, everyMs]);

  return { status, problem };
}

/** Tells of what is thrown below it: React 18 has no other way, and a root that throws is empty from then on. */
class Boundary extends Component<{ onCrash: (cause: unknown) => void; children: ReactNode }, { hasCrashed: boolean }> {
  override state = { hasCrashed: false };

  static getDerivedStateFromError() {
    return { hasCrashed: true };
  }

  override componentDidCatch(cause: unknown) {
    this.props.onCrash(cause);
  }

  override render() {
    return this.state.hasCrashed ? null : this.props.children;
  }
}

/** Shows the vendor's React component in place of its web component: `createConnect({ hub: reactHub(StackOneHub) })`. */
export function reactHub(Hub: ComponentType<never>): HubRenderer {
  return (mount: HTMLElement, props: HubProps) => {
    const root = createRoot(mount);
    const Shown = Hub as ComponentType<Record<string, unknown>>;
    const draw = (theme: "light" | "dark") =>
      root.render(
        <Boundary onCrash={props.onCrash}>
          <Shown
            key={props.token}
            token={props.token}
            baseUrl={props.baseUrl}
            appUrl={props.appUrl}
            theme={props.hubTheme ?? theme}
            height="34rem"
            showFooterLinks={false}
            onSuccess={props.onSuccess}
            {...(props.accountId === null ? {} : { accountId: props.accountId })}
          />
        </Boundary>,
      );
    draw(props.theme);
    // React does not let one root be unmounted while another draws.
    return { setTheme: draw, remove: () => setTimeout(() => root.unmount()) };
  };
}

function useLatest<Value>(value: Value) {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}
