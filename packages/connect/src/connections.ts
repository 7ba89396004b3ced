/** The user's connections, kept fresh by one poll for all components, and for all tabs of one user. */

import type { BrokerClient, LinkedAccount } from "./client.js";
import type { LinkedMode } from "./flow.js";
import { ConnectProblem } from "./problems.js";

const CHANNEL = "connect-broker-accounts";
const RECENT_MS = 60_000;

export interface ConnectionsState {
  /** Null until the first answer; kept while later ones fail. */
  accounts: LinkedAccount[] | null;
  problem: ConnectProblem | null;
  /** What was linked here a moment ago. */
  recent: { accountId: string; mode: LinkedMode } | null;
}

type Message = "changed" | { reader: string; accounts: LinkedAccount[] };

export class Connections {
  readonly #client: BrokerClient;
  readonly #everyMs: number;
  readonly #listeners = new Set<() => void>();
  #state: ConnectionsState = { accounts: null, problem: null, recent: null };
  #life: AbortController | null = null;
  #reading = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #forget: ReturnType<typeof setTimeout> | undefined;
  #tabs: BroadcastChannel | null = null;

  constructor(client: BrokerClient, everyMs = 10_000) {
    this.#client = client;
    this.#everyMs = everyMs;
  }

  /** What is known now; the same object until something changes. */
  get state(): ConnectionsState {
    return this.#state;
  }

  /** Calls the listener after each change. The list is read while anybody listens. */
  subscribe(listener: () => void): () => void {
    const mine = () => listener();
    this.#listeners.add(mine);
    if (this.#life === null) this.#begin();
    return () => {
      this.#listeners.delete(mine);
      if (this.#listeners.size === 0) this.#end();
    };
  }

  /** Reads the list now. */
  reload(): void {
    if (this.#life !== null) void this.#read();
  }

  /** Something changed that this page knows of: reads the list now, and has the user's other tabs do the same. */
  changed(): void {
    this.reload();
    this.#tabs?.postMessage("changed" satisfies Message);
  }

  /** @internal */
  linked(account: LinkedAccount, mode: LinkedMode): void {
    const others = (this.#state.accounts ?? []).filter((known) => known.account_id !== account.account_id);
    const accounts = this.#state.accounts && [...others, account];
    this.#become({ accounts, recent: { accountId: account.account_id, mode } });
    clearTimeout(this.#forget);
    this.#forget = setTimeout(() => this.#become({ recent: null }), RECENT_MS);
    this.changed();
  }

  /** @internal */
  disconnected(accountId: string, isDone: boolean): void {
    const accounts =
      this.#state.accounts
        ?.filter((known) => !isDone || known.account_id !== accountId)
        .map((known) => (known.account_id === accountId ? { ...known, leaving: true } : known)) ?? null;
    this.#become({ accounts });
    this.changed();
  }

  #begin(): void {
    const life = (this.#life = new AbortController());
    this.#tabs = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(CHANNEL);
    this.#tabs?.addEventListener("message", ({ data }: MessageEvent<Message>) => this.#hear(data));
    const look = () => this.#readIfVisible();
    window.addEventListener("focus", look, { signal: life.signal });
    window.addEventListener("online", look, { signal: life.signal });
    document.addEventListener("visibilitychange", look, { signal: life.signal });
    void this.#read();
  }

  #end(): void {
    this.#life?.abort();
    this.#life = null;
    this.#reading.abort();
    clearTimeout(this.#timer);
    this.#tabs?.close();
    this.#tabs = null;
  }

  #hear(message: Message): void {
    if (message === "changed") void this.#read();
    else if (message.reader === this.#client.reader) {
      this.#reading.abort();
      this.#become({ accounts: message.accounts, problem: null });
      this.#again();
    }
  }

  #readIfVisible(): void {
    if (document.visibilityState !== "hidden") void this.#read();
  }

  #again(atLeastMs = 0): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#readIfVisible(), Math.max(this.#everyMs, atLeastMs));
  }

  async #read(): Promise<void> {
    if (this.#life === null) return;
    clearTimeout(this.#timer);
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    try {
      const accounts = await this.#client.linkedAccounts(signal);
      if (signal.aborted) return;
      this.#become({ accounts, problem: null });
      const { reader } = this.#client;
      if (reader !== null) this.#tabs?.postMessage({ reader, accounts } satisfies Message);
      this.#again();
    } catch (error) {
      if (signal.aborted) return;
      const problem = error instanceof ConnectProblem ? error : new ConnectProblem("broken", { cause: error });
      // A broker that is away comes back; who is signed out does not by waiting.
      if (problem.kind !== "signed_out") this.#again((problem.retryAfter ?? 0) * 1000);
      this.#become({ problem });
    }
  }

  #become(news: Partial<ConnectionsState>): void {
    this.#state = { ...this.#state, ...news };
    for (const listener of [...this.#listeners]) listener();
  }
}
