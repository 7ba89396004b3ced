/** What can go wrong between a page and the broker, named by what the page should do next. */

import type { components } from "./broker-api.js";

type ProblemDocument = components["schemas"]["Problem"];

export type ProblemKind =
  | "signed_out" // 401, also with a renewed token: sign in again
  | "forbidden" // 403: policy says no
  | "not_found" // 404: gone, or never this user's
  | "conflict" // 409: it changed meanwhile
  | "invalid" // 4xx: this page asked for something impossible
  | "too_many" // 429: wait
  | "unavailable" // 503: something that the broker needs is unreachable, wait
  | "misconfigured" // 502: the operator has to act
  | "broken" // any other answer
  | "offline" // no answer at all
  | "blocked" // the broker answers, but does not let this page read it (CORS), or something in between refuses
  | "sign_in_failed" // the app's own `bearer` threw something else than signed_out
  | "too_slow" // no answer in time
  | "not_invited" // there is no such invitation for who has signed in: sign in as somebody else
  | "already_linked" // the invitation has done its work
  | "invitation_over" // it was ended, or has expired
  | "not_saved" // the Hub reported success, StackOne shows no change
  | "not_confirmed" // the Hub reported success, StackOne knows no such account of this user
  | "refused" // StackOne keeps refusing fresh sessions
  | "hub_crashed"; // the Hub could not be loaded or threw

const LONGEST_WAIT_SECONDS = 300;
const KINDS: Partial<Record<number, ProblemKind>> = {
  401: "signed_out",
  403: "forbidden",
  404: "not_found",
  409: "conflict",
  429: "too_many",
  502: "misconfigured",
  503: "unavailable",
  504: "unavailable",
};
const PASSING: ReadonlySet<ProblemKind> = new Set(["too_many", "unavailable", "offline", "blocked", "sign_in_failed", "too_slow"]);

export class ConnectProblem extends Error {
  readonly kind: ProblemKind;
  /** What the broker wants a person to know; never input, never a secret. */
  readonly detail: string | null;
  /** What support needs to find the request in the broker's log. */
  readonly requestId: string | null;
  /** Seconds that the broker asked to wait. */
  readonly retryAfter: number | null;

  constructor(
    kind: ProblemKind,
    more: { detail?: string | null; requestId?: string | null; retryAfter?: number | null; cause?: unknown } = {},
  ) {
    super(more.detail ?? kind, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "ConnectProblem";
    this.kind = kind;
    this.detail = more.detail ?? null;
    this.requestId = more.requestId ?? null;
    this.retryAfter = more.retryAfter ?? null;
  }

  /** Whether the same call may well work a little later. */
  get passes(): boolean {
    return PASSING.has(this.kind);
  }
}

/** Reads a refusal; whatever stands in the way may have answered instead of the broker, so nothing is assumed. */
export async function problemFrom(response: Response): Promise<ConnectProblem> {
  let document: Partial<ProblemDocument> = {};
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null) document = body;
  } catch {
    // A proxy's HTML page; the status says enough.
  }
  const fields = Array.isArray(document.errors) ? document.errors.map((error) => error.message).join("; ") : "";
  return new ConnectProblem(kindOf(response.status, document.code), {
    detail: document.detail || fields || null,
    requestId: document.request_id ?? response.headers.get("x-request-id"),
    retryAfter: seconds(response.headers.get("retry-after")),
  });
}

function kindOf(status: number, code: unknown): ProblemKind {
  if (code === "already_linked" || code === "invitation_over") return code;
  return KINDS[status] ?? (status >= 400 && status < 500 ? "invalid" : "broken");
}

function seconds(header: string | null): number | null {
  if (header === null) return null;
  const value = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  // A date is read against this machine's clock, which may be wrong by hours; a person would wait that long.
  return Number.isFinite(value) ? Math.min(Math.max(0, value), LONGEST_WAIT_SECONDS) : null;
}
