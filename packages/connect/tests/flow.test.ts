import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { LinkedAccount } from "../src/client.js";
import { ConnectFlow, type ConnectState } from "../src/flow.js";
import { ConnectProblem, type ProblemKind } from "../src/problems.js";
import { account, ScriptedClient, session, status } from "./scripted-client.js";

let broker: ScriptedClient;
let states: ConnectState[];
let linked: LinkedAccount[];
let flow: ConnectFlow;

const phase = () => states.at(-1)?.phase;
const latest = () => states.at(-1)!;
const problem = (kind: ProblemKind, retryAfter: number | null = null) => new ConnectProblem(kind, { retryAfter });
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

function shownToken(): string | null {
  const state = latest();
  return state.phase === "open" ? state.session.token : null;
}

function notice(): string | null {
  const state = latest();
  return state.phase === "open" ? state.notice : null;
}

function failure(): { kind: ProblemKind; retryAt: number | null } {
  const state = latest();
  if (state.phase !== "failed") throw new Error(`it is ${state.phase}`);
  return { kind: state.problem.kind, retryAt: state.retryAt };
}

function setVisible(isVisible: boolean) {
  vi.spyOn(document, "visibilityState", "get").mockReturnValue(isVisible ? "visible" : "hidden");
  document.dispatchEvent(new Event("visibilitychange"));
}

beforeEach(() => {
  vi.useFakeTimers();
  broker = new ScriptedClient();
  broker.usual.sessionStatus = () => status();
  // A thorough look says what a plain one says, unless a test knows more.
  broker.usual.pollSession = () => ({ ...(broker.usual.sessionStatus?.("") as object), attempt: null });
  states = [];
  linked = [];
  begin();
});

afterEach(() => {
  flow.stop();
  vi.useRealTimers();
});

function begin(request = {}) {
  flow = new ConnectFlow({
    client: broker.client,
    mint: (signal) => broker.client.openSession(request, signal),
    onState: (state) => states.push(state),
    onLinked: (confirmed) => linked.push(confirmed),
  });
}

async function opened(fields = {}) {
  flow.start();
  await broker.last("openSession").answer(session(fields));
}

async function openedForEdit(before = account(), expiresIn = 1_800) {
  flow.start();
  await broker.last("openSession").answer(
    session({ mode: "edit", account_id: before.account_id, expires_in: expiresIn }),
  );
  await broker.last("confirm").answer(before);
}

describe("opening", () => {
  it("mints on start and shows the Hub with that token", async () => {
    begin({ provider: "bamboohr" });
    flow.start();
    expect(phase()).toBe("opening");
    expect(broker.last("openSession").argument).toEqual({ provider: "bamboohr" });
    await broker.last("openSession").answer(session({ token: "fresh" }));
    expect(shownToken()).toBe("fresh");
  });

  it("asks for nothing but the token to begin with", async () => {
    await opened();
    expect(broker.calls.map((call) => call.name)).toEqual(["openSession"]);
  });

  it("looks at the account first when the session edits one", async () => {
    flow.start();
    await broker.last("openSession").answer(session({ mode: "edit", account_id: "acc_1" }));
    expect(phase()).toBe("opening");
    expect(broker.last("confirm").argument).toBe("acc_1");
    await broker.last("confirm").answer(account());
    expect(phase()).toBe("open");
  });

  it("says when it takes long", async () => {
    flow.start();
    await pass(3_900);
    expect(latest()).toEqual({ phase: "opening", slow: false });
    await pass(200);
    expect(latest()).toEqual({ phase: "opening", slow: true });
    await broker.last("openSession").answer(session());
    expect(phase()).toBe("open");
    await pass(60_000);
    expect(states.filter((state) => state.phase === "opening" && state.slow)).toHaveLength(1);
  });

  it.each(["signed_out", "forbidden", "not_found", "conflict", "invalid", "misconfigured", "broken"] as const)(
    "stops at %s, and tries again only when asked",
    async (kind) => {
      flow.start();
      await broker.last("openSession").refuse(problem(kind));
      expect(failure()).toEqual({ kind, retryAt: null });
      await pass(600_000);
      expect(broker.made("openSession")).toHaveLength(1);
      flow.retry();
      expect(phase()).toBe("opening");
      await broker.last("openSession").answer(session());
      expect(phase()).toBe("open");
    },
  );

  it.each(["too_many", "unavailable"] as const)("waits as long as %s asks for, then goes on", async (kind) => {
    flow.start();
    await broker.last("openSession").refuse(problem(kind, 7));
    expect(failure()).toEqual({ kind, retryAt: Date.now() + 7_000 });
    await pass(6_900);
    expect(broker.made("openSession")).toHaveLength(1);
    await pass(200);
    expect(broker.made("openSession")).toHaveLength(2);
    await broker.last("openSession").answer(session());
    expect(phase()).toBe("open");
  });

  it.each(["offline", "too_slow"] as const)("keeps trying after %s, ever more slowly, while somebody looks", async (kind) => {
    broker.usual.openSession = () => {
      throw problem(kind);
    };
    flow.start();
    await pass(0);
    expect(failure().retryAt).toBe(Date.now() + 1_000);
    await pass(60_000);
    expect(broker.made("openSession")).toHaveLength(7);
    await pass(600_000);
    expect(broker.made("openSession")).toHaveLength(27);
    setVisible(false);
    await pass(3_600_000);
    expect(broker.made("openSession")).toHaveLength(27);
    broker.usual.openSession = () => session({ token: "at last" });
    setVisible(true);
    await pass(0);
    expect(shownToken()).toBe("at last");
  });

  it("does not wait when the user is faster", async () => {
    flow.start();
    await broker.last("openSession").refuse(problem("unavailable", 30));
    flow.retry();
    await broker.last("openSession").answer(session());
    expect(phase()).toBe("open");
    await pass(60_000);
    expect(broker.made("openSession")).toHaveLength(2);
  });
});

describe("the end of a session", () => {
  it("replaces a token that nobody has used yet before it runs out, without a word", async () => {
    await opened({ expires_in: 120 });
    await pass(89_000);
    expect(broker.made("openSession")).toHaveLength(1);
    await pass(2_000);
    expect(broker.made("openSession")).toHaveLength(2);
    await broker.last("openSession").answer(session({ token: "second" }));
    expect([shownToken(), notice()]).toEqual(["second", null]);
  });

  it("keeps what the user has typed, warns, and replaces the token only once it is dead", async () => {
    await opened({ token: "first", expires_in: 120 });
    flow.touch();
    await pass(91_000);
    expect([shownToken(), notice()]).toEqual(["first", "expiring"]);
    await pass(28_000);
    expect(shownToken()).toBe("first");
    await pass(4_000);
    await broker.last("openSession").answer(session({ token: "second" }));
    expect([shownToken(), notice()]).toEqual(["second", "renewed"]);
  });

  it("measures by the broker's clock, not by this machine's", async () => {
    await opened({ expires_at: "1999-01-01T00:00:00Z", expires_in: 60 });
    await pass(40_000);
    expect(broker.made("openSession")).toHaveLength(1);
    await pass(10_000);
    expect(broker.made("openSession")).toHaveLength(2);
  });

  it("believes the broker when it says that the session is over", async () => {
    await opened();
    flow.touch();
    broker.usual.sessionStatus = () => status({ status: "expired" });
    await pass(6_000);
    await broker.last("openSession").answer(session());
    expect(notice()).toBe("renewed");
  });

  it("takes what was linked at the last moment instead of a fresh form", async () => {
    await opened({ expires_in: 120 });
    flow.touch();
    await pass(118_000);
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_9" });
    await pass(6_000);
    expect(broker.last("confirm").argument).toBe("acc_9");
  });

  it.each(["create", "edit"] as const)("asks StackOne in time how the popup of a session went (%s)", async (mode) => {
    if (mode === "edit") await openedForEdit(account(), 120);
    else await opened({ token: "first", expires_in: 120 });
    flow.touch();
    await pass(80_000);
    expect(broker.made("pollSession")).toEqual([]);
    broker.usual.pollSession = () => ({
      ...status({ status: "linked", account_id: "acc_1", mode }),
      attempt: "authenticated",
    });
    broker.usual.confirm = () => account({ updated_at: "2026-01-01T00:00:09Z" });
    await pass(20_000);
    expect(broker.made("pollSession")).toHaveLength(1);
    expect(linked).toHaveLength(1);
    expect(broker.made("openSession")).toHaveLength(1);
  });

  it("mints nothing for a forgotten tab until somebody comes back", async () => {
    await opened({ expires_in: 120 });
    setVisible(false);
    await pass(3_600_000);
    expect(broker.made("openSession")).toHaveLength(1);
    setVisible(true);
    await pass(5_000);
    expect(broker.made("openSession")).toHaveLength(2);
  });

  it("notices the end at once after the machine slept", async () => {
    await opened();
    flow.touch();
    await pass(100);
    vi.setSystemTime(Date.now() + 7_200_000); // Timers stood still, time did not.
    setVisible(true);
    await pass(2_000);
    expect(broker.made("openSession")).toHaveLength(2);
  });

  it("goes on although the broker does not answer for a while", async () => {
    await opened({ token: "first" });
    broker.usual.sessionStatus = () => {
      throw problem("unavailable", 5);
    };
    await pass(60_000);
    expect(shownToken()).toBe("first");
  });
});

describe("a refused token", () => {
  it("is replaced, and the user told why the form is empty", async () => {
    await opened();
    flow.touch();
    flow.hubWasRefused();
    flow.hubWasRefused();
    await pass(1_600);
    expect(broker.made("openSession")).toHaveLength(2);
    await broker.last("openSession").answer(session({ token: "second" }));
    expect([shownToken(), notice()]).toEqual(["second", "renewed"]);
  });

  it("is not replaced for ever", async () => {
    broker.usual.openSession = () => session();
    flow.start();
    for (let times = 0; times < 5; times += 1) {
      await pass(100);
      flow.hubWasRefused();
      await pass(1_600);
    }
    expect(failure()).toEqual({ kind: "refused", retryAt: null });
    expect(broker.made("openSession")).toHaveLength(3);
  });

  it("leaves the word to the Hub where that claims success a moment later", async () => {
    await openedForEdit();
    flow.hubWasRefused();
    await pass(300);
    broker.usual.confirm = () => account();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await pass(10_000);
    expect(broker.made("openSession")).toHaveLength(1);
    expect(states.some((state) => state.phase === "failed" && state.problem.kind === "not_saved")).toBe(true);
  });
});

describe("confirming", () => {
  it("tells the app only what the broker confirmed", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    expect(phase()).toBe("confirming");
    expect(linked).toEqual([]);
    const confirmed = account({ provider: "workday" });
    await broker.last("confirm").answer(confirmed);
    expect(linked).toEqual([confirmed]);
    expect(phase()).toBe("linked");
  });

  it("says that nothing was saved when the account did not change (a refused PATCH)", async () => {
    await openedForEdit();
    broker.usual.confirm = () => account();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await pass(4_000);
    expect(failure()).toEqual({ kind: "not_saved", retryAt: null });
    expect(linked).toEqual([]);
    flow.retry();
    expect(broker.made("openSession")).toHaveLength(2);
  });

  it("gives StackOne's read side a moment to see the change", async () => {
    await openedForEdit();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await broker.last("confirm").answer(account());
    await pass(500);
    await broker.last("confirm").answer(account({ updated_at: "2026-01-01T00:00:05Z" }));
    expect(linked).toHaveLength(1);
  });

  it("says that it could not be confirmed when the broker knows no such account", async () => {
    await opened();
    broker.usual.confirm = () => {
      throw problem("not_found");
    };
    flow.hubSucceeded({ id: "somebody-elses", provider: "bamboohr" });
    await pass(4_000);
    expect(failure().kind).toBe("not_confirmed");
    expect(linked).toEqual([]);
  });

  it.each(["unavailable", "too_many", "offline", "too_slow"] as const)(
    "confirms again after %s, without a new session",
    async (kind) => {
      await opened();
      flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
      await broker.last("confirm").refuse(problem(kind, 3));
      expect(failure()).toEqual({ kind, retryAt: Date.now() + 3_000 });
      await pass(3_000);
      await broker.last("confirm").answer(account());
      expect(linked).toHaveLength(1);
      expect(broker.made("openSession")).toHaveLength(1);
    },
  );

  it("confirms what was linked after signing in again", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await broker.last("confirm").refuse(problem("signed_out"));
    flow.retry();
    await broker.last("confirm").answer(account());
    expect(linked).toHaveLength(1);
  });

  it("takes the Hub's word once", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    expect(broker.made("confirm")).toHaveLength(1);
    await broker.last("confirm").answer(account());
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await pass(60_000);
    expect(linked).toHaveLength(1);
  });

  it("stops looking at the session once linked", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await broker.last("confirm").answer(account());
    const looks = broker.made("sessionStatus").length;
    await pass(600_000);
    expect(broker.made("sessionStatus")).toHaveLength(looks);
  });
});

describe("what is linked in another way", () => {
  it("is taken when the Hub was not used here (an auth link, a popup that the Hub lost)", async () => {
    await opened();
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_7" });
    await pass(8_000);
    await broker.last("confirm").answer(account({ account_id: "acc_7" }));
    expect(linked.map((found) => found.account_id)).toEqual(["acc_7"]);
  });

  it("does not take the form away from somebody who is typing", async () => {
    await opened({ token: "first" });
    flow.touch();
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_7" });
    await pass(20_000);
    expect([shownToken(), notice()]).toEqual(["first", "linked_elsewhere"]);
    flow.finish();
    await broker.last("confirm").answer(account({ account_id: "acc_7" }));
    expect(linked).toHaveLength(1);
  });

  it("leaves the first word to the Hub", async () => {
    await opened();
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_1" });
    await pass(4_500);
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await broker.last("confirm").answer(account());
    await pass(20_000);
    expect(linked).toHaveLength(1);
    expect(broker.made("confirm")).toHaveLength(1);
  });

  it("means nothing for an edit session, which any news about its account turns linked", async () => {
    await openedForEdit();
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_1", mode: "edit" });
    await pass(60_000);
    expect(phase()).toBe("open");
  });
});

describe("stopping (unmount) during each wait", () => {
  async function nothingFollows(settle: () => Promise<unknown>) {
    const before = states.length;
    const calls = broker.calls.length;
    flow.stop();
    await settle();
    flow.touch();
    flow.retry();
    flow.finish();
    flow.hubWasRefused();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await pass(3_600_000);
    expect(states).toHaveLength(before);
    expect(broker.calls.filter((call) => !call.signal.aborted)).toEqual([]);
    expect(broker.calls.length - calls).toBe(0);
    expect(linked).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  }

  it("while minting", async () => {
    flow.start();
    await nothingFollows(() => broker.last("openSession").answer(session()));
  });

  it("while minting fails", async () => {
    flow.start();
    await nothingFollows(() => broker.last("openSession").refuse(problem("unavailable", 1)));
  });

  it("while looking at the account that is to be edited", async () => {
    flow.start();
    await broker.last("openSession").answer(session({ mode: "edit", account_id: "acc_1" }));
    await nothingFollows(() => broker.last("confirm").answer(account()));
  });

  it("while looking at the session", async () => {
    delete broker.usual.sessionStatus;
    await opened();
    await pass(4_000);
    await nothingFollows(() => broker.last("sessionStatus").answer(status({ status: "linked", account_id: "acc_1" })));
  });

  it("between two looks", async () => {
    await opened();
    await pass(1_000);
    await nothingFollows(() => pass(0));
  });

  it("while the Hub gets its moment after a link was found", async () => {
    await opened();
    broker.usual.sessionStatus = () => status({ status: "linked", account_id: "acc_1" });
    await pass(4_500);
    await nothingFollows(() => pass(0));
  });

  it("while a refused token is about to be replaced", async () => {
    await opened();
    flow.hubWasRefused();
    await nothingFollows(() => pass(0));
  });

  it("while a dead session waits for somebody to come back", async () => {
    await opened({ expires_in: 60 });
    setVisible(false);
    await pass(100_000);
    await nothingFollows(async () => setVisible(true));
  });

  it("while confirming", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await nothingFollows(() => broker.last("confirm").answer(account()));
  });

  it("between two tries to confirm", async () => {
    await opened();
    flow.hubSucceeded({ id: "acc_1", provider: "bamboohr" });
    await broker.last("confirm").refuse(problem("not_found"));
    await nothingFollows(() => pass(0));
  });

  it("while waiting to try again", async () => {
    flow.start();
    await broker.last("openSession").refuse(problem("too_many", 5));
    await nothingFollows(() => pass(0));
  });
});

it("says so when the Hub itself breaks", async () => {
  await opened();
  flow.hubCrashed();
  expect(failure()).toEqual({ kind: "hub_crashed", retryAt: null });
});
