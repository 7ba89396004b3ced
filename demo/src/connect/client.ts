/** The broker's browser channel, typed by its OpenAPI document. Tokens and accounts pass through; nothing is kept. */

import type { components } from "./broker-api";
import { ConnectProblem, problemFrom } from "./problems";

export type LinkedAccount = components["schemas"]["LinkedAccountOut"];
export type ConnectSession = components["schemas"]["SessionToken"];
export type SessionStatus = components["schemas"]["SessionStatus"];
export type PolledSession = components["schemas"]["PolledSession"];
/** What to connect. Whose it will be is not among it: the broker takes that from the user's token. */
export type ConnectRequest = Partial<components["schemas"]["SessionRequest"]>;

export interface BrokerClientOptions {
  /** The broker's origin, without a slash at the end. */
  baseUrl: string;
  /**
   * The signed-in user's access token; with `renew` a new one, because the broker refused the last. Where nobody is
   * signed in any more, throw `new ConnectProblem("signed_out")`: whatever else it throws counts as a dead network.
   */
  getToken: (ask: { renew: boolean; signal: AbortSignal }) => string | Promise<string>;
  /** How long one call may take. */
  timeoutMs?: number;
}

export class BrokerClient {
  readonly #options: BrokerClientOptions;

  constructor(options: BrokerClientOptions) {
    this.#options = options;
  }

  /** Mints a session. Its token opens the Hub once, now: it is never kept for later. */
  openSession(request: ConnectRequest, signal: AbortSignal): Promise<ConnectSession> {
    return this.#json("POST", "/v1/connect-sessions", signal, request);
  }

  /** Says how a session stands: also one that somebody else completes through an auth link. */
  sessionStatus(id: string, signal: AbortSignal): Promise<SessionStatus> {
    return this.#json("GET", `/v1/connect-sessions/${encodeURIComponent(id)}`, signal);
  }

  /** Has the broker ask StackOne how the session's popup went. It costs a call to StackOne: ask when it matters. */
  pollSession(id: string, token: string, signal: AbortSignal): Promise<PolledSession> {
    return this.#json("POST", `/v1/connect-sessions/${encodeURIComponent(id)}/poll`, signal, { token });
  }

  /** Asks StackOne, through the broker, what an account really is now. */
  confirm(accountId: string, signal: AbortSignal): Promise<LinkedAccount> {
    return this.#json("POST", `/v1/linked-accounts/${encodeURIComponent(accountId)}/confirm`, signal);
  }

  /** Lists every account of the user's organisation. */
  async linkedAccounts(signal: AbortSignal): Promise<LinkedAccount[]> {
    const accounts: LinkedAccount[] = [];
    let cursor: string | null = null;
    do {
      const query: string = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
      const page: components["schemas"]["LinkedAccountPage"] = await this.#json(
        "GET",
        `/v1/linked-accounts?limit=200${query}`,
        signal,
      );
      accounts.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor !== null);
    return accounts;
  }

  /** Unlinks an account. False: it is on its way and takes a little longer. */
  async disconnect(accountId: string, signal: AbortSignal): Promise<boolean> {
    const response = await this.#send("DELETE", `/v1/linked-accounts/${encodeURIComponent(accountId)}`, signal);
    return response.status !== 202;
  }

  async #json<Answer>(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<Answer> {
    const response = await this.#send(method, path, signal, body);
    try {
      return (await response.json()) as Answer;
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof ConnectProblem ? error : new ConnectProblem("offline");
    }
  }

  async #send(method: string, path: string, signal: AbortSignal, body?: unknown): Promise<Response> {
    let response = await this.#attempt(method, path, signal, body, false);
    // The token may have run out since it was issued; a refusal has no effect, so repeating is safe.
    if (response.status === 401) response = await this.#attempt(method, path, signal, body, true);
    if (!response.ok) {
      const problem = await problemFrom(response);
      signal.throwIfAborted();
      throw problem;
    }
    return response;
  }

  async #attempt(
    method: string,
    path: string,
    signal: AbortSignal,
    body: unknown,
    renew: boolean,
  ): Promise<Response> {
    const timeout = AbortSignal.timeout(this.#options.timeoutMs ?? 30_000);
    const either = AbortSignal.any([signal, timeout]);
    try {
      // The app's own sign-in may hang as well as any network, and need not look at the signal.
      const token = await orAborted(this.#options.getToken({ renew, signal: either }), either);
      either.throwIfAborted();
      const headers: Record<string, string> = { authorization: `Bearer ${token}`, accept: "application/json" };
      if (body !== undefined) headers["content-type"] = "application/json";
      return await fetch(this.#options.baseUrl + path, {
        method,
        headers,
        signal: either,
        cache: "no-store",
        credentials: "omit",
        referrerPolicy: "no-referrer",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ConnectProblem) throw error;
      throw new ConnectProblem(timeout.aborted ? "too_slow" : "offline");
    }
  }
}

function orAborted<Value>(work: Value | Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    Promise.resolve(work)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
  });
}
