/** For the tests of a product's own pages: a `Connect` without a broker. */

import type { Connector, ConnectRequest, LinkedAccount } from "./client.js";
import type { Connect, ConnectEvent, Flow } from "./connect.js";
import type { ConnectionsState } from "./connections.js";

export interface FakeConnect extends Connect {
  /** What was opened, and is still open. */
  readonly opened: ConnectRequest[];
  /** Has the user complete what was opened last. */
  complete(account?: Partial<LinkedAccount>): LinkedAccount;
  /** Has the user give up what was opened last. */
  cancel(): void;
}

/** Makes an account as the broker shows it. */
export function fakeAccount(fields: Partial<LinkedAccount> = {}): LinkedAccount {
  return {
    account_id: "acc_1",
    owner_id: "org_1",
    owner_name: "One Ltd",
    username: "user@one.example",
    provider: "bamboohr",
    status: "active",
    usable: true,
    leaving: false,
    needs_reauth: false,
    needs_reauth_since: null,
    recovered_at: null,
    status_reasons: [],
    label: null,
    type: "production",
    created_at: "2026-01-01T00:00:00Z",
    updated_at: "2026-01-01T00:00:00Z",
    verified_at: "2026-01-01T00:00:00Z",
    ...fields,
  };
}

/** Makes a `Connect` that a test drives. */
export function fakeConnect(
  given: { accounts?: LinkedAccount[]; connectors?: Connector[]; isInvited?: boolean; onEvent?: (event: ConnectEvent) => void } = {},
): FakeConnect {
  const listeners = new Set<() => void>();
  const pending: { request: ConnectRequest; end: (account: LinkedAccount | null) => void }[] = [];
  let state: ConnectionsState = { accounts: given.accounts ?? [], problem: null, recent: null };
  const become = (accounts: LinkedAccount[]) => {
    state = { ...state, accounts };
    for (const listener of [...listeners]) listener();
  };
  const last = () => {
    const found = pending.at(-1);
    if (!found) throw new Error("nothing is open");
    return found;
  };
  const connections = {
    get state() {
      return state;
    },
    subscribe(listener: () => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    reload() {},
    changed() {},
  };
  let { isInvited = false } = given;
  const open = (request: ConnectRequest = {}, options: { signal?: AbortSignal } = {}): Flow => {
    let settle: (account: LinkedAccount | null) => void = () => {};
    const done = new Promise<LinkedAccount | null>((resolve) => (settle = resolve));
    const entry = {
      request,
      end(account: LinkedAccount | null) {
        const at = pending.indexOf(entry);
        if (at < 0) return;
        pending.splice(at, 1);
        given.onEvent?.(account ? { type: "linked", account, mode: "create" } : { type: "cancelled", request });
        settle(account);
      },
    };
    pending.push(entry);
    given.onEvent?.({ type: "opened", request });
    options.signal?.addEventListener("abort", () => entry.end(null));
    return {
      done,
      state: { phase: "opening", slow: false },
      subscribe: () => () => {},
      retry() {},
      finish() {},
      close: () => entry.end(null),
      setTheme() {},
    };
  };
  return {
    get opened() {
      return pending.map(({ request }) => request);
    },
    complete(fields = {}) {
      const { request, end } = last();
      const account = fakeAccount({ ...(request.provider ? { provider: request.provider } : {}), ...fields });
      become([...(state.accounts ?? []).filter((known) => known.account_id !== account.account_id), account]);
      end(account);
      return account;
    },
    cancel: () => last().end(null),
    open,
    isInvited: () => isInvited,
    openInvitation(options) {
      if (!isInvited) return null;
      isInvited = false;
      return open({}, options);
    },
    connections: connections as unknown as Connect["connections"],
    async disconnect(accountId) {
      become((state.accounts ?? []).filter((known) => known.account_id !== accountId));
      given.onEvent?.({ type: "disconnected", accountId, isDone: true });
      return true;
    },
    connectors: async () => given.connectors ?? [],
    sessionStatus: async (id) => ({
      id,
      status: "pending",
      mode: "create",
      provider: null,
      account_id: null,
      created_at: "2026-01-01T00:00:00Z",
      expires_at: "2026-01-01T00:30:00Z",
      oauth_error_code: null,
      oauth_error_description: null,
      was_new: null,
    }),
    interrupted: () => null,
  };
}
