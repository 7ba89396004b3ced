import { afterEach, beforeEach, describe, expect, it, vi, type Mock } from "vitest";
import { BrokerClient } from "../src/client.js";
import { ConnectProblem } from "../src/problems.js";
import en from "../src/locales/en.js";
import { describe as describeIn } from "../src/words.js";

const inWords = (problem: ConnectProblem) => describeIn(problem, en);

let answers: (Response | Error)[];
let requests: { url: string; init: RequestInit }[];
let getToken: Mock<(ask: { renew: boolean; signal: AbortSignal }) => string | Promise<string>>;
let client: BrokerClient;
let life: AbortController;

beforeEach(() => {
  answers = [];
  requests = [];
  life = new AbortController();
  getToken = vi.fn(({ renew }) => (renew ? "new-token" : "token"));
  client = new BrokerClient({ brokerUrl: "https://broker.example/", auth: { bearer: getToken } });
  vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
    requests.push({ url, init });
    const answer = answers.shift();
    if (!answer) throw new Error("an answer is missing");
    return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
  });
});

afterEach(() => vi.unstubAllGlobals());

const json = (status: number, body: unknown, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify(body), { status, headers });

async function problemOf(call: Promise<unknown>): Promise<ConnectProblem> {
  const error: unknown = await call.then(
    () => new Error("it succeeded"),
    (reason: unknown) => reason,
  );
  if (error instanceof ConnectProblem) return error;
  throw error;
}

describe("calls", () => {
  it("mints with the user's token, keeping nothing in a cache", async () => {
    answers.push(json(201, { token: "t" }));
    await client.openSession({ provider: "bamboohr" }, life.signal);
    const { url, init } = requests[0]!;
    expect(url).toBe("https://broker.example/v1/connect-sessions");
    expect(init).toMatchObject({ method: "POST", body: '{"provider":"bamboohr"}', cache: "no-store" });
    expect(init.headers).toMatchObject({ authorization: "Bearer token", "content-type": "application/json" });
  });

  it("reads every page of the list", async () => {
    answers.push(json(200, { data: [{ account_id: "1" }], next_cursor: "a b" }));
    answers.push(json(200, { data: [{ account_id: "2" }], next_cursor: null }));
    const accounts = await client.linkedAccounts(life.signal);
    expect(accounts.map((account) => account.account_id)).toEqual(["1", "2"]);
    expect(requests[1]!.url).toContain("cursor=a%20b");
  });

  it("never lets an id reach into the path", async () => {
    answers.push(json(200, {}));
    await client.confirm("../owners/x?", life.signal);
    expect(requests[0]!.url).toBe("https://broker.example/v1/linked-accounts/..%2Fowners%2Fx%3F/confirm");
  });

  it.each([
    [204, true],
    [202, false],
  ])("says of a disconnect answered %i whether it is done: %s", async (status, isDone) => {
    answers.push(status === 204 ? new Response(null, { status }) : json(status, {}));
    expect(await client.disconnect("acc_1", life.signal)).toBe(isDone);
  });
});

describe("a refused token", () => {
  it("is renewed once, and the call repeated", async () => {
    answers.push(json(401, { code: "unauthenticated" }), json(201, { token: "t" }));
    await client.openSession({}, life.signal);
    expect(requests.map(({ init }) => (init.headers as Record<string, string>)["authorization"])).toEqual([
      "Bearer token",
      "Bearer new-token",
    ]);
  });

  it("is not waited for without end where the app's own sign-in hangs", async () => {
    client = new BrokerClient({ brokerUrl: "https://broker.example", auth: { bearer: () => new Promise(() => {}) }, timeoutMs: 20 });
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("too_slow");
    const call = client.openSession({}, life.signal);
    life.abort(new Error("unmounted"));
    await expect(call).rejects.toThrow("unmounted");
    expect(requests).toEqual([]);
  });

  it("is given up the second time", async () => {
    answers.push(json(401, {}), json(401, {}));
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("signed_out");
    expect(requests).toHaveLength(2);
  });
});

describe("refusals", () => {
  it.each([
    [403, "forbidden", false],
    [404, "not_found", false],
    [409, "conflict", false],
    [422, "invalid", false],
    [429, "too_many", true],
    [500, "broken", false],
    [502, "misconfigured", false],
    [503, "unavailable", true],
    [504, "unavailable", true],
  ] as const)("reads %i as %s", async (status, kind, passes) => {
    answers.push(json(status, { detail: "a reason", request_id: "r-1" }, { "retry-after": "12" }));
    const problem = await problemOf(client.openSession({}, life.signal));
    expect(problem).toMatchObject({ kind, passes, detail: "a reason", requestId: "r-1", retryAfter: 12 });
    expect(inWords(problem).title).not.toBe("");
  });

  it("survives what is no problem document", async () => {
    answers.push(new Response("<html>Bad gateway</html>", { status: 503, headers: { "x-request-id": "r-2" } }));
    expect(await problemOf(client.openSession({}, life.signal))).toMatchObject({
      kind: "unavailable",
      detail: null,
      requestId: "r-2",
      retryAfter: null,
    });
  });

  it("reads a Retry-After that is a date", async () => {
    vi.setSystemTime("2026-01-01T00:00:00Z");
    answers.push(json(503, {}, { "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT" }));
    expect((await problemOf(client.openSession({}, life.signal))).retryAfter).toBe(30);
    vi.setSystemTime("2025-12-31T21:00:00Z"); // A machine whose clock is three hours late.
    answers.push(json(503, {}, { "retry-after": "Thu, 01 Jan 2026 00:00:30 GMT" }));
    expect((await problemOf(client.openSession({}, life.signal))).retryAfter).toBe(300);
    vi.useRealTimers();
  });

  it("lets the broker speak where it speaks to people, and makes a sentence of it", () => {
    expect(inWords(new ConnectProblem("forbidden", { detail: "your plan has no CRM" })).text).toBe("Your plan has no CRM.");
    expect(inWords(new ConnectProblem("invalid", { detail: "body.provider: pattern" })).text).not.toContain("pattern");
  });

  it("calls no answer offline", async () => {
    answers.push(new TypeError("Failed to fetch"), new TypeError("Failed to fetch"));
    expect(await problemOf(client.openSession({}, life.signal))).toMatchObject({ kind: "offline", passes: true });
  });

  it("tells an answer that the page may not read from none", async () => {
    const refused = new TypeError("Failed to fetch");
    answers.push(refused, new Response(null, { status: 200 }));
    expect(await problemOf(client.openSession({}, life.signal))).toMatchObject({ kind: "blocked", cause: refused });
    expect(requests[1]).toMatchObject({ url: "https://broker.example/livez", init: { mode: "no-cors" } });
  });

  it("tells a sign-in that throws from a network that is dead", async () => {
    const bug = new Error("a bug of the app's own");
    getToken.mockImplementation(() => {
      throw bug;
    });
    expect(await problemOf(client.openSession({}, life.signal))).toMatchObject({ kind: "sign_in_failed", cause: bug });
    expect(requests).toEqual([]);
  });

  it("calls an answer that breaks off offline", async () => {
    answers.push(new Response('{"tok', { status: 201 }));
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("offline");
  });

  it("calls an answer that does not come too slow", async () => {
    client = new BrokerClient({ brokerUrl: "https://broker.example", auth: { bearer: getToken }, timeoutMs: 10 });
    vi.stubGlobal("fetch", (_url: string, init: RequestInit) => {
      return new Promise((_resolve, reject) => init.signal?.addEventListener("abort", () => reject(init.signal?.reason)));
    });
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("too_slow");
  });

  it("passes on what the sign-in says", async () => {
    getToken.mockRejectedValue(new ConnectProblem("signed_out"));
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("signed_out");
    expect(requests).toEqual([]);
  });
});

describe("aborting", () => {
  it("while the user's token is fetched sends nothing", async () => {
    let give = (_token: string) => {};
    getToken.mockReturnValue(new Promise<string>((resolve) => (give = resolve)));
    const call = client.openSession({}, life.signal);
    life.abort();
    give("late");
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
    expect(requests).toEqual([]);
  });

  it("while the answer travels is no problem to show", async () => {
    const travelling = vi.fn((_url: string, init: RequestInit) => {
      return new Promise((_resolve, reject) => init.signal?.addEventListener("abort", () => reject(new Error("cut"))));
    });
    vi.stubGlobal("fetch", travelling);
    const call = client.openSession({}, life.signal);
    await vi.waitFor(() => expect(travelling).toHaveBeenCalled());
    life.abort();
    await expect(call).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("whom it reads for", () => {
  const token = (claims: object) => `x.${btoa(JSON.stringify(claims)).replace(/=/g, "")}.y`;
  const readerFor = async (text: string) => {
    getToken.mockReturnValue(text);
    answers.push(json(200, { data: [], next_cursor: null }));
    await client.linkedAccounts(life.signal);
    return client.reader;
  };

  it("stays the same from token to token, and differs from user to user", async () => {
    const first = await readerFor(token({ sub: "alice", org_id: "1", exp: 1, jti: "a" }));
    expect(await readerFor(token({ sub: "alice", org_id: "1", exp: 2, jti: "b" }))).toBe(first);
    expect(await readerFor(token({ sub: "alice", org_id: "2", exp: 1 }))).not.toBe(first);
    expect(await readerFor(token({ sub: "bob", org_id: "1", exp: 1 }))).not.toBe(first);
    expect(await readerFor("opaque")).toBeNull();
  });

  it("sends a cookie with the header that other sites cannot set, and no token", async () => {
    client = new BrokerClient({ brokerUrl: "/broker", auth: { cookie: { csrfHeader: "x-csrf" } } });
    answers.push(json(201, { token: "t" }));
    await client.openSession({}, life.signal);
    expect(requests[0]!.init).toMatchObject({ credentials: "include", headers: { "x-csrf": "1" } });
    expect(requests[0]!.init.headers).not.toHaveProperty("authorization");
  });

  it("has a cookie that was refused set anew, once", async () => {
    const renew = vi.fn<(ask: { signal: AbortSignal }) => Promise<void>>(() => Promise.resolve());
    client = new BrokerClient({ brokerUrl: "/broker", auth: { cookie: { csrfHeader: "x-csrf", renew } } });
    answers.push(json(401, {}), json(201, { token: "t" }));
    await client.openSession({}, life.signal);
    expect(renew).toHaveBeenCalledOnce();
    expect(requests).toHaveLength(2);
    renew.mockRejectedValue(new ConnectProblem("signed_out"));
    answers.push(json(401, {}));
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("signed_out");
    renew.mockRejectedValue(new Error("502"));
    answers.push(json(401, {}));
    expect((await problemOf(client.openSession({}, life.signal))).kind).toBe("sign_in_failed");
  });
});
