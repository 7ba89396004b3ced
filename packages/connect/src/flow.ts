/**
 * The life of one connect-session token, from minting it to knowing what came of it. No React in here.
 *
 * The Hub reports no errors, shows nothing when its token dies, and reports success even where nothing was saved. So
 * the flow watches the session itself, replaces a dead token, and believes only what the broker confirms.
 */

import type { BrokerClient, ConnectSession, LinkedAccount, PolledSession, SessionStatus } from "./client.js";
import { ConnectProblem } from "./problems.js";

/** Why the user sees a fresh Hub, or should hurry. */
export type Notice = "renewed" | "expiring" | "linked_elsewhere";

export type ConnectState =
  | { phase: "opening"; slow: boolean }
  | { phase: "open"; session: ConnectSession; notice: Notice | null }
  | { phase: "confirming"; slow: boolean }
  | { phase: "linked"; account: LinkedAccount }
  | { phase: "failed"; problem: ConnectProblem; retryAt: number | null };

/** How an account came to be linked: anew, or by signing in again. */
export type LinkedMode = ConnectSession["mode"];

/** What the Hub says when it believes that it linked something. */
export interface HubSuccess {
  id: string;
  provider: string;
}

/** Times in milliseconds; the defaults are meant to be kept. */
export interface Timing {
  /** Between two looks at the session. */
  poll: number;
  /** How long before its end a session that nobody has used yet is replaced. */
  renewBefore: number;
  /** How long the Hub gets to report by itself what the flow learned another way. */
  grace: number;
  /** After which waiting is called slow. */
  slow: number;
  /** Between two tries to confirm. */
  confirmAgain: readonly number[];
  /** Before repeating what failed for a passing reason, the last for ever; the broker's Retry-After goes first. */
  retry: readonly number[];
}

export const DEFAULT_TIMING: Timing = {
  poll: 4_000,
  renewBefore: 30_000,
  grace: 1_500,
  slow: 4_000,
  confirmAgain: [400, 800, 1_600],
  retry: [1_000, 2_000, 4_000, 8_000, 15_000, 30_000],
};

const MOST_REFUSALS_IN_A_ROW = 2;
const REFUSALS_FORGOTTEN_AFTER = 60_000;

export interface FlowOptions {
  client: BrokerClient;
  /** Opens a session: as often as its token dies. */
  mint: (signal: AbortSignal) => Promise<ConnectSession>;
  onState: (state: ConnectState) => void;
  /** Called once, and only with what the broker has confirmed. */
  onLinked: (account: LinkedAccount, mode: LinkedMode) => void;
  timing?: Partial<Timing>;
}

export class ConnectFlow {
  readonly #options: FlowOptions;
  readonly #timing: Timing;
  /** Everything under way hangs on this; a new step aborts the one before. */
  #step = new AbortController();
  #state: ConnectState = { phase: "opening", slow: false };
  /** The account as it was before an edit session opened it. */
  #before: LinkedAccount | null = null;
  #mode: LinkedMode = "create";
  #linkedElsewhere: string | null = null;
  #touched = false;
  #stopped = false;
  #refusals: number[] = [];
  #failures = 0;
  #again: () => void = () => this.#open(null);

  constructor(options: FlowOptions) {
    this.#options = options;
    this.#timing = { ...DEFAULT_TIMING, ...options.timing };
  }

  /** Mints the first session. */
  start(): void {
    this.#open(null);
  }

  /** Ends everything that is under way; nothing is reported any more. */
  stop(): void {
    this.#stopped = true;
    // Whatever the Hub or a button still calls finds no phase to act on.
    this.#state = { phase: "opening", slow: false };
    this.#step.abort();
  }

  /** Repeats what failed. */
  retry(): void {
    if (this.#state.phase !== "failed") return;
    this.#refusals = [];
    this.#again();
  }

  /** The user has begun to fill in something that a fresh Hub would lose. */
  touch(): void {
    this.#touched = true;
  }

  /** The Hub says that it linked an account. */
  hubSucceeded(success: HubSuccess): void {
    if (this.#state.phase === "open") this.#confirm(success.id);
  }

  /** A call of the Hub was refused with 401 or 403: its token is dead, and the Hub will not say so. */
  hubWasRefused(): void {
    if (this.#state.phase !== "open") return;
    const step = this.#step.signal;
    void this.#guarded(step, async () => {
      // A refused save is reported as success in a moment; that path knows more.
      await nap(this.#timing.grace, step);
      const now = Date.now();
      this.#refusals = [...this.#refusals.filter((at) => now - at < REFUSALS_FORGOTTEN_AFTER), now];
      if (this.#refusals.length > MOST_REFUSALS_IN_A_ROW) throw new ConnectProblem("refused");
      this.#open(this.#touched ? "renewed" : null);
    });
  }

  /** The Hub could not be loaded, or threw. */
  hubCrashed(): void {
    if (this.#state.phase !== "open") return;
    this.#newStep();
    this.#fail(new ConnectProblem("hub_crashed"), () => this.#open(null));
  }

  /** The user takes what was linked in another way while this Hub was open. */
  finish(): void {
    if (this.#state.phase === "open" && this.#linkedElsewhere !== null) this.#confirm(this.#linkedElsewhere);
  }

  #open(notice: Notice | null): void {
    const step = this.#newStep();
    this.#touched = false;
    this.#linkedElsewhere = null;
    this.#become({ phase: "opening", slow: false });
    this.#callSlow(step, () => this.#become({ phase: "opening", slow: true }));
    void this.#guarded(step, async () => {
      const session = await this.#options.mint(step);
      step.throwIfAborted();
      this.#mode = session.mode;
      // Counted from here: by this machine's clock, which may be wrong, the broker's `expires_at` could be any time.
      const endsAt = Date.now() + session.expires_in * 1000;
      // Only against a fresh look from before can a save that did not happen be told from one that did.
      this.#before =
        session.mode === "edit" && session.account_id !== null
          ? await this.#options.client.confirm(session.account_id, step)
          : null;
      step.throwIfAborted();
      const watching = this.#newStep();
      this.#failures = 0;
      this.#become({ phase: "open", session, notice });
      await this.#guarded(watching, () => this.#watch(session, endsAt, watching));
    });
  }

  async #watch(session: ConnectSession, endsAt: number, step: AbortSignal): Promise<void> {
    const renewAt = endsAt - Math.min(this.#timing.renewBefore, session.expires_in * 250);
    for (;;) {
      const next = Date.now() < renewAt ? renewAt : endsAt;
      await nap(Math.min(this.#timing.poll, next - Date.now()), step);
      // Once the token is dead nobody can ask any more how a popup went, so the last looks are thorough ones.
      const isLate = this.#touched && Date.now() >= renewAt;
      const status = document.visibilityState === "hidden" ? null : await this.#look(session, isLate, step);
      step.throwIfAborted();
      if (status !== null && status.account_id !== null) {
        if ("attempt" in status && status.attempt === "authenticated") return this.#confirm(status.account_id);
        // An edit session counts any news about its account, so while it is open only the Hub's word starts a check.
        if (status.status === "linked" && session.mode === "create") await this.#foundLinked(status.account_id, step);
      }
      const now = Date.now();
      if (status?.status === "expired" || status?.status === "failed" || now >= endsAt) {
        if (status?.status === "linked" && status.account_id !== null && this.#touched) {
          return this.#confirm(status.account_id);
        }
        // What the Hub sent at the last moment may still succeed.
        await nap(this.#timing.grace, step);
        // A forgotten tab mints nothing.
        await untilVisible(step);
        return this.#open(this.#touched ? "renewed" : null);
      }
      if (now >= renewAt) {
        if (this.#touched) this.#notify("expiring");
        else if (document.visibilityState !== "hidden") return this.#open(null);
      }
    }
  }

  async #look(
    session: ConnectSession,
    isThorough: boolean,
    step: AbortSignal,
  ): Promise<SessionStatus | PolledSession | null> {
    const { client } = this.#options;
    try {
      return isThorough
        ? await client.pollSession(session.id, session.token, step)
        : await client.sessionStatus(session.id, step);
    } catch (error) {
      step.throwIfAborted();
      if (error instanceof ConnectProblem) return null; // The next look may work; the Hub itself goes on.
      throw error;
    }
  }

  async #foundLinked(accountId: string, step: AbortSignal): Promise<void> {
    if (this.#linkedElsewhere !== null) return;
    await nap(this.#timing.grace * 2, step);
    this.#linkedElsewhere = accountId;
    // It may have been another tab; what is being typed here is not thrown away for that.
    if (this.#touched) this.#notify("linked_elsewhere");
    else this.#confirm(accountId);
    step.throwIfAborted();
  }

  #confirm(accountId: string): void {
    const step = this.#newStep();
    this.#become({ phase: "confirming", slow: false });
    this.#callSlow(step, () => this.#become({ phase: "confirming", slow: true }));
    let confirmed: LinkedAccount | null = null;
    const work = async () => {
      const account = await this.#confirmed(accountId, step);
      step.throwIfAborted();
      confirmed = account;
    };
    // What the Hub did stays done: only a save that did not happen is tried again from the start.
    const again = (problem: ConnectProblem) =>
      problem.kind === "not_saved" || problem.kind === "not_confirmed" ? this.#open(null) : this.#confirm(accountId);
    void this.#guarded(step, work, again).then(() => {
      if (confirmed === null) return;
      this.#newStep();
      this.#become({ phase: "linked", account: confirmed });
      this.#options.onLinked(confirmed, this.#mode);
    });
  }

  async #confirmed(accountId: string, step: AbortSignal): Promise<LinkedAccount> {
    const before = this.#before?.account_id === accountId ? this.#before : null;
    // StackOne's own read side may lag a moment behind what the Hub has just done.
    for (const pause of [...this.#timing.confirmAgain, null]) {
      try {
        const account = await this.#options.client.confirm(accountId, step);
        if (before === null || account.updated_at !== before.updated_at) return account;
        if (pause === null) throw new ConnectProblem("not_saved");
      } catch (error) {
        const isGone = error instanceof ConnectProblem && error.kind === "not_found";
        if (!isGone) throw error;
        if (pause === null) throw new ConnectProblem("not_confirmed", { requestId: error.requestId });
      }
      await nap(pause, step);
    }
    throw new ConnectProblem("not_confirmed");
  }

  #fail(problem: ConnectProblem, again: () => void): void {
    if (this.#stopped) return;
    this.#again = again;
    const step = this.#step.signal;
    const { retry } = this.#timing;
    const pause = problem.passes ? (retry[this.#failures] ?? retry.at(-1)) : undefined;
    this.#failures += 1;
    if (pause === undefined) {
      this.#failures = 0;
      this.#become({ phase: "failed", problem, retryAt: null });
      return;
    }
    const wait = problem.retryAfter === null ? pause : problem.retryAfter * 1000;
    this.#become({ phase: "failed", problem, retryAt: Date.now() + wait });
    void this.#guarded(step, async () => {
      await nap(wait, step);
      await untilVisible(step);
      again();
    });
  }

  /** Runs a step; what it throws becomes a state, unless the step was ended on purpose. */
  async #guarded(
    step: AbortSignal,
    work: () => Promise<void>,
    again: (problem: ConnectProblem) => void = () => this.#open(null),
  ): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (step.aborted) return;
      const problem = error instanceof ConnectProblem ? error : new ConnectProblem("broken");
      this.#newStep();
      this.#fail(problem, () => again(problem));
    }
  }

  #callSlow(step: AbortSignal, report: () => void): void {
    nap(this.#timing.slow, step).then(report, () => {});
  }

  #notify(notice: Notice): void {
    if (this.#state.phase === "open" && this.#state.notice !== notice) this.#become({ ...this.#state, notice });
  }

  #newStep(): AbortSignal {
    this.#step.abort();
    this.#step = new AbortController();
    if (this.#stopped) this.#step.abort();
    return this.#step.signal;
  }

  #become(state: ConnectState): void {
    if (this.#stopped) return;
    this.#state = state;
    this.#options.onState(state);
  }
}

function untilVisible(signal: AbortSignal): Promise<void> {
  if (document.visibilityState !== "hidden") return Promise.resolve();
  return new Promise((resolve, reject) => {
    const look = () => {
      if (document.visibilityState !== "hidden") resolve();
    };
    const ended = () => reject(signal.reason);
    signal.addEventListener("abort", ended, { once: true });
    document.addEventListener("visibilitychange", look, { signal });
  });
}

/** Waits; rejects when aborted, and wakes early when the page comes back from sleep or the background. */
function nap(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const dueAt = Date.now() + ms;
    const timer = setTimeout(end, ms);
    // Timers stand still while a laptop sleeps; the session does not.
    const wake = () => {
      if (Date.now() >= dueAt) end();
    };
    function end() {
      stop();
      resolve();
    }
    function abort() {
      stop();
      reject(signal.reason);
    }
    function stop() {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      document.removeEventListener("visibilitychange", wake);
    }
    signal.addEventListener("abort", abort);
    document.addEventListener("visibilitychange", wake);
  });
}
