import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { AccountRow } from "./AccountRow";
import { ConnectHub, describe, useLinkedAccounts, useSessionStatus } from "./connect";
import type { BrokerClient, ConnectRequest, LinkedAccount } from "./connect";
import { DisconnectDialog } from "./DisconnectDialog";
import { ProviderIcon } from "./ProviderIcon";
import { PROVIDERS, providerFor } from "./providers";
import type { Theme } from "./theme";
import type { DemoUser } from "./users";

export interface StackOne {
  baseUrl: string;
  appUrl: string;
}

interface IntegrationsProps {
  client: BrokerClient;
  stackone: StackOne;
  theme: Theme;
  user: DemoUser;
  onSignOut: () => void;
}

interface News {
  mood: "good" | "attention";
  text: string;
  accountId: string | null;
}

export function Integrations({ client, stackone, theme, user, onSignOut }: IntegrationsProps) {
  const { accounts, problem, changed, reload } = useLinkedAccounts(client);
  const [request, setRequest] = useState<ConnectRequest | null>(null);
  const [leaving, setLeaving] = useState<LinkedAccount | null>(null);
  const [underWay, setUnderWay] = useState<ReadonlySet<string>>(new Set());
  const [news, setNews] = useState<News | null>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const isFirst = useRef(true);

  // Another view is another page to those who do not see it: start at its heading.
  useEffect(() => {
    if (!isFirst.current) heading.current?.focus();
    isFirst.current = false;
    window.scrollTo(0, 0);
  }, [request]);

  const open = useCallback((wanted: ConnectRequest) => {
    setNews(null);
    setRequest(wanted);
  }, []);

  const linked = useCallback(
    (account: LinkedAccount) => {
      const { name } = providerFor(account.provider);
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
      changed();
    },
    [changed],
  );

  if (request !== null) {
    return (
      <section className="connect-view" aria-labelledby="connect-title">
        <button type="button" className="back" onClick={() => setRequest(null)}>
          <span aria-hidden="true">←</span> All integrations
        </button>
        <h1 id="connect-title" ref={heading} tabIndex={-1}>
          {titleFor(request, accounts)}
        </h1>
        <p className="lead">
          {request.account_id
            ? "Sign in again, and the same connection goes on where it stopped."
            : "Your credentials go to the provider through StackOne; this page and its broker never see them."}
        </p>
        <div className="hub">
          <ConnectHub
            client={client}
            stackone={stackone}
            request={request}
            theme={theme}
            onLinked={linked}
            onSignedOut={onSignOut}
          />
        </div>
      </section>
    );
  }

  const sorted = accounts === null ? null : [...accounts].sort(byNeedAndName);
  const free = accounts === null ? [] : PROVIDERS.filter((p) => !accounts.some((a) => a.provider === p.key));
  return (
    <section aria-labelledby="integrations-title" aria-busy={accounts === null && problem === null}>
      <div className="title-row">
        <div>
          <h1 id="integrations-title" ref={heading} tabIndex={-1}>
            Integrations
          </h1>
          <p className="lead">The tools that {user.organisation} shares with Fieldnote.</p>
        </div>
        <button type="button" className="primary" onClick={() => open({})}>
          Browse all tools
        </button>
      </div>

      <div role="status" className="news">
        {news?.mood === "good" && <p className="banner good">{news.text}</p>}
      </div>
      {news?.mood === "attention" && (
        <p className="banner problem" role="alert">
          {news.text}
        </p>
      )}
      <Awaited client={client} onLinked={changed} />
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
              isNew={news?.accountId === account.account_id}
              isLeaving={account.leaving || underWay.has(account.account_id)}
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
            {free.map((provider) => (
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

      {leaving !== null && (
        <DisconnectDialog
          client={client}
          account={leaving}
          onKeep={() => setLeaving(null)}
          onGone={(isDone) => {
            const { name } = providerFor(leaving.provider);
            const text = isDone ? `${name} is disconnected.` : `${name} is being disconnected.`;
            if (!isDone) setUnderWay((before) => new Set(before).add(leaving.account_id));
            setNews({ mood: "good", text, accountId: null });
            setLeaving(null);
            changed();
            heading.current?.focus();
          }}
        />
      )}
    </section>
  );
}

/** What needs somebody comes first; the rest keeps its place from one reading to the next. */
function byNeedAndName(one: LinkedAccount, other: LinkedAccount): number {
  return (
    Number(other.needs_reauth) - Number(one.needs_reauth) ||
    providerFor(one.provider).name.localeCompare(providerFor(other.provider).name) ||
    one.account_id.localeCompare(other.account_id)
  );
}

function titleFor(request: ConnectRequest, accounts: LinkedAccount[] | null): string {
  if (request.account_id) {
    const account = accounts?.find((known) => known.account_id === request.account_id);
    return `Reconnect ${providerFor(account?.provider ?? request.provider ?? "").name}`.trim();
  }
  return request.provider ? `Connect ${providerFor(request.provider).name}` : "Connect a tool";
}

interface ListProblemProps {
  problem: Parameters<typeof describe>[0];
  onReload: () => void;
  onSignOut: () => void;
}

function ListProblem({ problem, onReload, onSignOut }: ListProblemProps) {
  const words = describe(problem);
  const isSignedOut = problem.kind === "signed_out";
  return (
    <div className="banner problem" role="alert">
      <div>
        <h3>{words.title}</h3>
        <p>{words.text}</p>
      </div>
      <button type="button" onClick={isSignedOut ? onSignOut : onReload}>
        {words.again}
      </button>
    </div>
  );
}

/** Follows an auth link that was sent to somebody: the page's address names its session (`?session=cs_...`). */
function Awaited({ client, onLinked }: { client: BrokerClient; onLinked: () => void }) {
  const sessionId = useMemo(() => new URLSearchParams(location.search).get("session"), []);
  const { status, problem } = useSessionStatus(client, sessionId);
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
          : `${describe(problem).title}. ${describe(problem).text}`}
      </p>
    );
  }
  if (status === null) return null;
  const name = status.provider === null ? "the tool" : providerFor(status.provider).name;
  const words = {
    pending: `Waiting for somebody to connect ${name} through the link that was sent.`,
    linked: `The link was used: ${name} is connected.`,
    expired: "The link that was sent has expired. Send a new one.",
    failed: "The link that was sent could not be made. Send a new one.",
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
