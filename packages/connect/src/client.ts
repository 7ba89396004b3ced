/** The broker's browser channel, typed by its OpenAPI document. Tokens and accounts pass through; nothing is kept. */

import type { components } from "./broker-api.js";
import { ConnectProblem, problemFrom, type ProblemKind } from "./problems.js";

export type LinkedAccount = components["schemas"]["LinkedAccountOut"];
export type ConnectSession = components["schemas"]["SessionToken"];
export type SessionStatus = components["schemas"]["SessionStatus"];
export type PolledSession = SessionStatus;
export type OpenedInvitation = components["schemas"]["OpenedInvitation"];
/** What to connect. Whose it will be is not among it: the broker takes that from the user's token. */
export type ConnectRequest = Partial<components["schemas"]["SessionRequest"]>;

export type Connector = components["schemas"]["ConnectorOut"];

/** What `bearer` is asked: with `renew`, for a new token, because the broker refused the last. */
export interface BearerAsk {
  renew: boolean;
  signal: AbortSignal;
}

export interface CookieAuth {
  /** The header that the broker wants beside the cookie, as in its settings. */
  csrfHeader: string;
  /** Has your backend set a new cookie, because the broker refused the last. */
  renew?: (ask: { signal: AbortSignal }) => unknown;
}

/**
 * Who the user is: an access token that your sign-in gives, or a cookie that scripts cannot read.
 *
 * Where nobody is signed in any more, have `bearer` or `renew` throw `new ConnectProblem("signed_out")`.
 */
export type Auth = { bearer: (ask: BearerAsk) => string | Promise<string>; cookie?: never } | { cookie: CookieAuth; bearer?: never };

export interface BrokerClientOptions {
  /** The broker's origin, or a path of your own that is passed on to it. */
  brokerUrl: string;
  auth: Auth;
  /** How long one call may take. */
  timeoutMs?: number;
}

export class BrokerClient {
  readonly #options: BrokerClientOptions;
  readonly #url: string;
  #reader: string | null;

  constructor(options: BrokerClientOptions) {
    this.#options = options;
    this.#url = withoutSlash(options.brokerUrl);
    this.#reader = options.auth.cookie ? "cookie" : null;
  }

  /**
   * Names whom this page reads for, the same in every tab of one user and different for two; null where that cannot
   * be told. Nothing that one user reads may be shown to another who is signed in beside him.
   */
  get reader(): string | null {
    return this.#reader && `${this.#url} ${this.#reader}`;
  }

  /** Lists what the user may connect. */
  connectors(signal: AbortSignal): Promise<Connector[]> {
    return this.#all<Connector>("/v1/connectors", signal);
  }

  /** Mints a session. Its token opens the Hub once, now: it is never kept for later. */
  openSession(request: ConnectRequest, signal: AbortSignal): Promise<ConnectSession> {
    return this.#json("POST", "/v1/connect-sessions", signal, request);
  }

  /** Mints the session that the user was invited to. */
  async openInvitation(code: string, signal: AbortSignal): Promise<OpenedInvitation> {
    try {
      return await this.#json("POST", "/v1/invitations/open", signal, { code });
    } catch (error) {
      // Whose invitation it is, or whether there is one, is told to nobody else.
      throw error instanceof ConnectProblem && error.kind === "not_found" ? new ConnectProblem("not_invited", error) : error;
    }
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
  linkedAccounts(signal: AbortSignal): Promise<LinkedAccount[]> {
    return this.#all<LinkedAccount>("/v1/linked-accounts", signal);
  }

  /** Unlinks an account. False: it is on its way and takes a little longer. */
  async disconnect(accountId: string, signal: AbortSignal): Promise<boolean> {
    const response = await this.#send("DELETE", `/v1/linked-accounts/${encodeURIComponent(accountId)}`, signal);
    return response.status !== 202;
  }

  async #all<Item>(path: string, signal: AbortSignal): Promise<Item[]> {
    const items: Item[] = [];
    let query = "?limit=200";
    for (;;) {
      const page = await this.#json<{ data: Item[]; next_cursor: string | null }>("GET", path + query, signal);
      items.push(...page.data);
      if (page.next_cursor === null) return items;
      query = `?limit=200&cursor=${encodeURIComponent(page.next_cursor)}`;
    }
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
    const failed = (kind: ProblemKind, cause: unknown) => {
      signal.throwIfAborted();
      if (cause instanceof ConnectProblem) return cause;
      return new ConnectProblem(timeout.aborted ? "too_slow" : kind, { cause });
    };
    const headers: Record<string, string> = { accept: "application/json" };
    if (body !== undefined) headers["content-type"] = "application/json";
    const { bearer, cookie } = this.#options.auth;
    try {
      // The app's own sign-in may hang as well as any network, and need not look at the signal.
      const ask = async <Answer>(work: () => Answer) => orAborted(Promise.resolve(work()), either);
      if (cookie) {
        if (renew) await ask(() => cookie.renew?.({ signal: either }));
        headers[cookie.csrfHeader] = "1";
      } else {
        const token = await ask(() => bearer({ renew, signal: either }));
        headers["authorization"] = `Bearer ${token}`;
        this.#reader = readerOf(token);
      }
      either.throwIfAborted();
    } catch (error) {
      throw failed("sign_in_failed", error);
    }
    try {
      return await fetch(this.#url + path, {
        method,
        headers,
        signal: either,
        cache: "no-store",
        credentials: cookie ? "include" : "omit",
        referrerPolicy: "no-referrer",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      throw failed(either.aborted ? "offline" : await this.#whyUnread(either), error);
    }
  }

  /** A browser hides why an answer could not be read; what it lets one find out is whether there was one. */
  async #whyUnread(signal: AbortSignal): Promise<ProblemKind> {
    try {
      await fetch(`${this.#url}/livez`, { mode: "no-cors", credentials: "omit", cache: "no-store", signal });
      return "blocked";
    } catch {
      return "offline";
    }
  }
}

/** An address as paths are put behind it. */
export function withoutSlash(url: string): string {
  return url.replace(/\/+$/, "");
}

/** Everything that a JWT says of its user, without what changes from token to token; null for another kind of token. */
function readerOf(token: string): string | null {
  try {
    const text = atob((token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/"));
    const { iat: _1, exp: _2, nbf: _3, jti: _4, auth_time: _5, ...claims } = JSON.parse(text) as Record<string, unknown>;
    return claims["sub"] === undefined ? null : JSON.stringify(claims);
  } catch {
    return null;
  }
}

function orAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    work
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
  });
}
