import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createConnect, type InvitationOptions } from "../src/connect.js";
import { ConnectProblem } from "../src/problems.js";
import { account, session } from "./scripted-client.js";

const CODE = "inv_repair.YWNj.1700000000000aCodeOf22Characters_-";

let isSignedIn: boolean;
let opening: Response;
let asked: string[];
let why: string[];
let went: string[];

const json = (status: number, body: unknown) => new Response(JSON.stringify(body), { status });
const refusal = (status: number, code: string) => json(status, { code, request_id: "r1" });

beforeEach(() => {
  isSignedIn = true;
  [asked, why, went] = [[], [], []];
  sessionStorage.clear();
  history.replaceState({ kept: 1 }, "", `/page?x=1#${CODE}`);
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    if (!url.endsWith("/v1/invitations/open")) throw new TypeError(url);
    asked.push(String(init.body));
    return opening.clone();
  });
});

afterEach(() => vi.unstubAllGlobals());

function open(options: InvitationOptions = {}) {
  const bearer = () => {
    if (!isSignedIn) throw new ConnectProblem("signed_out");
    return "token";
  };
  const connect = createConnect({ brokerUrl: "", auth: { bearer }, timing: { poll: 1e6 } });
  const onSignedOut = (reason: string) => why.push(reason);
  const flow = connect.openInvitation({ mount: null, onSignedOut, navigate: (url) => went.push(url), ...options });
  return { connect, flow };
}

const phaseOf = (flow: ReturnType<typeof open>["flow"]) =>
  flow?.state.phase === "failed" ? flow.state.problem.kind : flow?.state.phase;

describe("an invitation", () => {
  it("is taken out of the address, and out of nothing else", async () => {
    opening = json(201, { ...session(), return_url: null });
    const { connect, flow } = open();
    expect(location.href).toMatch(/\/page\?x=1$/);
    expect(history.state).toEqual({ kept: 1 });
    await vi.waitFor(() => expect(phaseOf(flow)).toBe("open"));
    expect(asked).toEqual([JSON.stringify({ code: CODE })]);
    expect(connect.isInvited()).toBe(true);
    flow?.close();
    expect(connect.isInvited()).toBe(false);
  });

  it("is none where the address has another fragment", () => {
    history.replaceState(null, "", "/page#invoices");
    expect(open().flow).toBeNull();
    expect(location.hash).toBe("#invoices");
  });

  it("has the user sign in first, by itself once, and waits for them in this tab", async () => {
    isSignedIn = false;
    opening = json(201, { ...session(), return_url: null });
    const life = new AbortController();
    const first = open({ signal: life.signal });
    await vi.waitFor(() => expect(why).toEqual(["signed_out"]));
    life.abort();
    await first.flow?.done;
    const second = open();
    await vi.waitFor(() => expect(phaseOf(second.flow)).toBe("signed_out"));
    expect(why).toEqual(["signed_out"]);
    isSignedIn = true;
    second.flow?.retry();
    await vi.waitFor(() => expect(phaseOf(second.flow)).toBe("open"));
    second.flow?.close();
  });

  it("stays in this tab for the right person, after a wrong one", async () => {
    opening = refusal(404, "not_found");
    const life = new AbortController();
    const { connect, flow } = open({ signal: life.signal });
    await vi.waitFor(() => expect(phaseOf(flow)).toBe("not_invited"));
    life.abort();
    expect(connect.isInvited()).toBe(true);
  });

  it.each([
    [409, "already_linked"],
    [410, "invitation_over"],
  ])("is forgotten after %i %s", async (status, code) => {
    opening = refusal(status, code);
    const { connect, flow } = open();
    await vi.waitFor(() => expect(phaseOf(flow)).toBe(code));
    expect(connect.isInvited()).toBe(false);
    flow?.close();
  });

  it("goes where it says once an account is linked, and nowhere before", async () => {
    opening = json(201, { ...session(), return_url: "https://app.example/done" });
    vi.stubGlobal("fetch", async (url: string) => (url.includes("/confirm") ? json(200, account()) : opening.clone()));
    const hub = vi.fn((_mount, props) => {
      setTimeout(() => props.onSuccess({ id: "acc_1", provider: "bamboohr" }));
      return { setTheme() {}, remove() {} };
    });
    const connect = createConnect({ brokerUrl: "", auth: { bearer: () => "t" }, hub });
    const flow = connect.openInvitation({ navigate: (url) => went.push(url) });
    expect(went).toEqual([]);
    expect((await flow?.done)?.account_id).toBe("acc_1");
    await vi.waitFor(() => expect(went).toEqual(["https://app.example/done"]));
    expect(connect.isInvited()).toBe(false);
  });
});
