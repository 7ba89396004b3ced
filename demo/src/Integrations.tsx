import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { AccountRow } from "./AccountRow";
import { describe, type ConnectProblem, type ConnectRequest, type LinkedAccount } from "@connect-broker/connect";
import en from "@connect-broker/connect/locales/en";
import { ConnectHub, useConnect, useConnections, useSessionStatus } from "@connect-broker/connect/react";
import { Banners } from "./Banners";
import { DisconnectDialog } from "./DisconnectDialog";
import { InviteDialog } from "./InviteDialog";
import { ProviderIcon } from "./ProviderIcon";
import { providerFor, useCatalogue } from "./providers";
import type { DemoUser } from "./users";

interface IntegrationsProps {
  user: DemoUser;
  /** What was linked through an invitation a moment ago. */
  arrived: LinkedAccount | null;
  onSignOut: () => void;
}

interface News {
  mood: "good" | "attention";
  text: string;
  accountId: string | null;
}

export function Integrations({ user, arrived, onSignOut }: IntegrationsProps) {
  const connect = useConnect();
  const { accounts, problem, recent, reload } = useConnections();
  const catalogue = useCatalogue(connect);
  const show = useCallback((key: string) => providerFor(key, catalogue), [catalogue]);
  const [request, setRequest] = useState<ConnectRequest | null>(null);
  const [leaving, setLeaving] = useState<LinkedAccount | null>(null);
  const [isInviting, setInviting] = useState(false);
  const [news, setNews] = useState<News | null>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const isFirst = useRef(true);

  // Another view is another page to those who do not see it: start at its heading.
  useEffect(() => {
    if (!isFirst.current) heading.current?.focus();
    isFirst.current = false;
    window.scrollTo(0, 0);
  }, [request]);

  // A reload in the middle comes back to what was open, with a new token.
  useEffect(() => {
    const interrupted = connect.interrupted();
    if (interrupted !== null) setRequest(interrupted);
  }, [connect]);

  // A row that is gone, and its buttons with it, is no place to be.
  const wasLeaving = useRef(false);
  useEffect(() => {
    if (leaving === null && wasLeaving.current && document.activeElement === document.body) heading.current?.focus();
    wasLeaving.current = leaving !== null;
  }, [leaving]);

  const open = useCallback((wanted: ConnectRequest) => {
    setNews(null);
    setRequest(wanted);
  }, []);

  const linked = useCallback(
    (account: LinkedAccount) => {
      const { name } = show(account.provider);
      setNews(
        account.usable
          ? { mood: "good", text: `${name} is connected.`, accountId: account.account_id }
          : {
              mood: "attention",
              text: `${name} was saved, but it does not accept these credentials. Reconnect to correct them.`,
              accountId: account.account_id,
            },
      );
      setRequest(null);
    },
    [show],
  );

  useEffect(() => {
    if (arrived === null) return;
    linked(arrived);
    heading.current?.focus();
    // Not again when the catalogue, and with it a name, arrives.
  }, [arrived]);

  if (request !== null) {
    return (
      <section className="connect-view" aria-labelledby="connect-title">
        <button type="button" className="back" onClick={() => setRequest(null)}>
          <span aria-hidden="true">←</span> All integrations
        </button>
        <h1 id="connect-title" ref={heading} tabIndex={-1}>
          {titleFor(request, accounts, show)}
        </h1>
        <p className="lead">
          {request.account_id
            ? "Sign in again, and the same connection goes on where it stopped."
            : "Your credentials go to the provider through StackOne; this page and its broker never see them."}
        </p>
        <div className="hub">
          <ConnectHub
            request={request}
            onLinked={linked}
            onCancelled={() => setRequest(null)}
          />
        </div>
      </section>
    );
  }

  const sorted = accounts === null ? null : [...accounts].sort((one, other) => byNeedAndName(one, other, show));
  const free =
    accounts === null || catalogue === null
      ? []
      : catalogue.filter(({ key, picker_only }) => !picker_only && !accounts.some((account) => account.provider === key));
  return (
    <section aria-labelledby="integrations-title" aria-busy={(accounts === null || catalogue === null) && problem === null}>
      <div className="title-row">
        <div>
          <h1 id="integrations-title" ref={heading} tabIndex={-1}>
            Integrations
          </h1>
          <p className="lead">The tools that {user.organisation} shares with Fieldnote.</p>
        </div>
        <div className="actions">
          <button type="button" onClick={() => setInviting(true)}>
            Invite a colleague
          </button>
          <button type="button" className="primary" onClick={() => open({})}>
            Browse all tools
          </button>
        </div>
      </div>

      <div role="status" className="news">
        {news?.mood === "good" && <p className="banner good">{news.text}</p>}
      </div>
      {news?.mood === "attention" && (
        <p className="banner problem" role="alert">
          {news.text}
        </p>
      )}
      <Awaited onLinked={reload} show={show} />
      <Banners user={user} accounts={accounts} show={show} />
      {problem !== null && <ListProblem problem={problem} onReload={reload} onSignOut={onSignOut} />}

      <h2>Your connections</h2>
      {sorted === null ? (
        problem === null && <Skeleton />
      ) : sorted.length === 0 ? (
        <p className="empty">Nothing is connected yet. Choose a tool below to start.</p>
      ) : (
        <ul className="accounts">
          {sorted.map((account) => (
            <AccountRow
              key={account.account_id}
              account={account}
              provider={show(account.provider)}
              news={recent?.accountId !== account.account_id ? null : recent.mode === "edit" ? "reconnected" : "connected"}
              isLeaving={account.leaving}
              onReconnect={() => open({ account_id: account.account_id, provider: account.provider })}
              onDisconnect={() => setLeaving(account)}
            />
          ))}
        </ul>
      )}

      {free.length > 0 && (
        <>
          <h2>Available</h2>
          <ul className="providers">
            {free.map(({ key }) => show(key)).map((provider) => (
              <li key={provider.key} className="provider">
                <ProviderIcon provider={provider} />
                <div>
                  <h3>{provider.name}</h3>
                  <p>{provider.what}</p>
                </div>
                <button
                  type="button"
                  aria-label={`Connect ${provider.name}`}
                  onClick={() => open({ provider: provider.key })}
                >
                  Connect
                </button>
              </li>
            ))}
          </ul>
        </>
      )}

      {isInviting && <InviteDialog user={user} catalogue={catalogue ?? []} onClose={() => setInviting(false)} />}
      {leaving !== null && (
        <DisconnectDialog
          connect={connect}
          account={leaving}
          name={show(leaving.provider).name}
          onKeep={() => setLeaving(null)}
          onGone={(isDone) => {
            const { name } = show(leaving.provider);
            const text = isDone ? `${name} is disconnected.` : `${name} is being disconnected.`;
            setNews({ mood: "good", text, accountId: null });
            setLeaving(null);
          }}
        />
      )}
    </section>
  );
}

type Show = (key: string) => ReturnType<typeof providerFor>;

/** What needs somebody comes first; the rest keeps its place from one reading to the next. */
function byNeedAndName(one: LinkedAccount, other: LinkedAccount, show: Show): number {
  return (
    Number(other.needs_reauth) - Number(one.needs_reauth) ||
    show(one.provider).name.localeCompare(show(other.provider).name) ||
    one.account_id.localeCompare(other.account_id)
  );
}

function titleFor(request: ConnectRequest, accounts: LinkedAccount[] | null, show: Show): string {
  if (request.account_id) {
    const account = accounts?.find((known) => known.account_id === request.account_id);
    return `Reconnect ${show(account?.provider ?? request.provider ?? "").name}`.trim();
  }
  return request.provider ? `Connect ${show(request.provider).name}` : "Connect a tool";
}

interface ListProblemProps {
  problem: ConnectProblem;
  onReload: () => void;
  onSignOut: () => void;
}

function ListProblem({ problem, onReload, onSignOut }: ListProblemProps) {
  const words = describe(problem, en);
  const isSignedOut = problem.kind === "signed_out";
  return (
    <div className="banner problem" role="alert">
      <div>
        <h2>{words.title}</h2>
        <p>{words.text}</p>
      </div>
      <button type="button" onClick={isSignedOut ? onSignOut : onReload}>
        {words.again}
      </button>
    </div>
  );
}

/** Follows an auth link that was sent to somebody: the page's address names its session (`?session=cs_...`). */
function Awaited({ onLinked, show }: { onLinked: () => void; show: Show }) {
  const sessionId = useMemo(() => new URLSearchParams(location.search).get("session"), []);
  const { status, problem } = useSessionStatus(sessionId);
  const isLinked = status?.status === "linked";
  useEffect(() => {
    if (isLinked) onLinked();
  }, [isLinked, onLinked]);

  if (sessionId === null) return null;
  if (problem !== null && !problem.passes) {
    return (
      <p className="banner problem" role="status">
        {problem.kind === "not_found" || problem.kind === "invalid"
          ? "We know no such invitation. Ask for a new one."
          : `${describe(problem, en).title}. ${describe(problem, en).text}`}
      </p>
    );
  }
  if (status === null) return null;
  const name = status.provider === null ? "the tool" : show(status.provider).name;
  const words = {
    pending: `Waiting for somebody to connect ${name} through the link that was sent.`,
    linked: `The link was used: ${name} is connected.`,
    expired: "The link that was sent has expired. Send a new one.",
    failed: "The link that was sent could not be made. Send a new one.",
    ended: "The link that was sent is no longer valid. Send a new one.",
    unknown: "We do not know whether the link that was sent works. Send a new one if it does not.",
  }[status.status];
  return (
    <p className={`banner ${isLinked ? "good" : "plain"}`} role="status" data-session={status.status}>
      {words}
    </p>
  );
}

function Skeleton() {
  return (
    <div className="skeleton" role="status">
      <span className="visually-hidden">Loading your connections</span>
      <i />
      <i />
    </div>
  );
}
