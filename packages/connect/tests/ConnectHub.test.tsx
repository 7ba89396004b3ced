import { act, render, screen } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { StrictMode } from "react";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { BrokerClient, type ConnectRequest } from "../src/client.js";
import { createConnect, type Connect } from "../src/connect.js";
import { ConnectProblem, type ProblemKind } from "../src/problems.js";
import { ConnectHub, ConnectProvider } from "../src/react.js";
import { watchHubRefusals } from "../src/refusals.js";
import type { HubProps } from "../src/view-types.js";
import { account, ScriptedClient, session, status } from "./scripted-client.js";

const hubs = { mounted: [] as string[], unmounted: [] as string[], throws: false, props: {} as HubProps, theme: "" };

function fakeHub(mount: HTMLElement, props: HubProps) {
  if (hubs.throws) throw new Error("localStorage is denied");
  hubs.props = props;
  hubs.theme = props.theme;
  hubs.mounted.push(props.token);
  mount.textContent = `Hub for ${props.token}`;
  return {
    setTheme: (theme: string) => void (hubs.theme = theme),
    remove: () => void hubs.unmounted.push(props.token),
  };
}

vi.mock("../src/refusals.js", () => ({ watchHubRefusals: vi.fn(() => () => {}) }));

const hub = () => hubs.props;
const onLinked = vi.fn();
const onSignedOut = vi.fn();
const STACKONE = { baseUrl: "https://api.example", appUrl: "https://app.example" };
let broker: ScriptedClient;
let connect: Connect;

beforeEach(() => {
  hubs.mounted = [];
  hubs.unmounted = [];
  hubs.throws = false;
  onLinked.mockReset();
  onSignedOut.mockReset();
  broker = new ScriptedClient();
  broker.usual.sessionStatus = () => status();
  // The one seam: what the client asks of the broker is answered by the test.
  for (const name of ["openSession", "sessionStatus", "pollSession", "confirm"] as const) {
    vi.spyOn(BrokerClient.prototype, name).mockImplementation(broker[name] as never);
  }
  connect = createConnect({
    brokerUrl: "https://broker.example",
    auth: { bearer: () => "token" },
    stackone: STACKONE,
    hub: fakeHub,
    timing: { poll: 20, grace: 10, confirmAgain: [5, 5] },
  });
});

function page(request: ConnectRequest = {}, theme: "light" | "dark" = "light") {
  return (
    <ConnectProvider connect={connect} theme={theme} onSignedOut={onSignedOut}>
      <ConnectHub request={request} onLinked={onLinked} />
    </ConnectProvider>
  );
}

async function answer(name: Parameters<ScriptedClient["last"]>[0], value: unknown) {
  await vi.waitFor(() => expect(broker.made(name)).not.toEqual([]));
  await act(() => broker.last(name).answer(value));
}

async function refuse(name: Parameters<ScriptedClient["last"]>[0], kind: ProblemKind, retryAfter: number | null = null) {
  await vi.waitFor(() => expect(broker.made(name)).not.toEqual([]));
  await act(() => broker.last(name).refuse(new ConnectProblem(kind, { retryAfter, requestId: "req-7" })));
}

describe("ConnectHub", () => {
  it("shows no Hub before there is a token", async () => {
    render(page());
    expect(await screen.findByRole("status")).toHaveTextContent("Opening a secure connection form");
    expect(hubs.mounted).toEqual([]);
    await answer("openSession", session({ token: "one" }));
    expect(await screen.findByText("Hub for one")).toBeVisible();
  });

  it("gives an edit session's account to the Hub", async () => {
    render(page({ account_id: "acc_1" }));
    await answer("openSession", session({ mode: "edit", account_id: "acc_1" }));
    await answer("confirm", account());
    await screen.findByText(/Hub for/);
    expect(hub().accountId).toBe("acc_1");
  });

  it("follows the theme without a new token", async () => {
    const view = render(page());
    await answer("openSession", session({ token: "one" }));
    await screen.findByText("Hub for one");
    view.rerender(page({}, "dark"));
    expect(hubs.theme).toBe("dark");
    expect(hubs.mounted).toEqual(["one"]);
    expect(broker.made("openSession")).toHaveLength(1);
  });

  it("mounts a new Hub for a new token and says why", async () => {
    render(page());
    await answer("openSession", session({ token: "one" }));
    await userEvent.click(await screen.findByText("Hub for one"));
    const refused = vi.mocked(watchHubRefusals).mock.lastCall![2];
    act(() => refused());
    await vi.waitFor(() => expect(broker.made("openSession")).toHaveLength(2));
    await answer("openSession", session({ token: "two" }));
    expect(await screen.findByText("Hub for two")).toBeVisible();
    expect(hubs.mounted).toEqual(["one", "two"]);
    expect(hubs.unmounted).toEqual(["one"]);
    expect(screen.getByRole("status")).toHaveTextContent("here is a fresh one");
  });

  it("takes the Hub away when it claims success, and tells the app after the broker has confirmed", async () => {
    render(page());
    await answer("openSession", session());
    await screen.findByText(/Hub for/);
    act(() => hub().onSuccess({ id: "acc_1", provider: "bamboohr" }));
    expect(await screen.findByRole("status")).toHaveTextContent("Checking that everything was saved");
    expect(screen.queryByText(/Hub for/)).toBeNull();
    expect(onLinked).not.toHaveBeenCalled();
    await answer("confirm", account());
    expect(onLinked).toHaveBeenCalledExactlyOnceWith(account());
  });

  it("says that nothing was saved when the Hub's success was false", async () => {
    render(page({ account_id: "acc_1" }));
    await answer("openSession", session({ mode: "edit", account_id: "acc_1" }));
    await answer("confirm", account());
    await screen.findByText(/Hub for/);
    broker.usual.confirm = () => account();
    act(() => hub().onSuccess({ id: "acc_1", provider: "bamboohr" }));
    expect(await screen.findByRole("alert")).toHaveTextContent("Your changes were not saved");
    expect(onLinked).not.toHaveBeenCalled();
    await userEvent.click(screen.getByRole("button", { name: "Try again" }));
    expect(broker.made("openSession")).toHaveLength(2);
  });

  it.each([
    ["forbidden", "You may not connect this", "Try again"],
    ["conflict", "Something changed meanwhile", "Try again"],
    ["too_many", "Too many tries", "Try now"],
    ["unavailable", "not possible right now", "Try now"],
  ] as const)("tells a person about %s and offers a way on", async (kind, title, button) => {
    render(page());
    await refuse("openSession", kind, 9);
    expect(await screen.findByRole("alert")).toHaveTextContent(title);
    expect(screen.getByText("req-7")).toBeVisible();
    const waits = kind === "too_many" || kind === "unavailable";
    expect(screen.queryByText(/Trying again by itself in [89] s/) !== null).toBe(waits);
    await userEvent.click(screen.getByRole("button", { name: button }));
    await answer("openSession", session({ token: "again" }));
    expect(await screen.findByText("Hub for again")).toBeVisible();
  });

  it("sends whoever was signed out to the app's own sign-in", async () => {
    render(page());
    await refuse("openSession", "signed_out");
    expect(await screen.findByRole("alert")).toHaveTextContent("You have been signed out");
    expect(onSignedOut).not.toHaveBeenCalled();
    await userEvent.click(screen.getByRole("button", { name: "Sign in" }));
    expect(onSignedOut).toHaveBeenCalledOnce();
    expect(broker.made("openSession")).toHaveLength(1);
  });

  it("outlives a Hub that throws", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    hubs.throws = true;
    render(page());
    await answer("openSession", session());
    expect(await screen.findByRole("alert")).toHaveTextContent("could not be shown");
  });

  it("starts over for another request, and keeps its session for an equal one", async () => {
    const view = render(page({ provider: "bamboohr" }));
    await answer("openSession", session());
    view.rerender(page({ provider: "bamboohr" }));
    expect(broker.made("openSession")).toHaveLength(1);
    view.rerender(page({ provider: "workday" }));
    await vi.waitFor(() => expect(broker.made("openSession")).toHaveLength(2));
    expect(broker.made("openSession")[0]!.signal.aborted).toBe(true);
  });

  it("opens one session under StrictMode", async () => {
    render(<StrictMode>{page()}</StrictMode>);
    await answer("openSession", session({ token: "two" }));
    expect(await screen.findByText("Hub for two")).toBeVisible();
    expect(broker.made("openSession")).toHaveLength(1);
  });

  it.each(["openSession", "confirm", "sessionStatus"] as const)("aborts %s on unmount and stays silent", async (during) => {
    if (during === "sessionStatus") delete broker.usual.sessionStatus;
    const view = render(page({ account_id: "acc_1" }));
    if (during !== "openSession") await answer("openSession", session({ mode: "edit", account_id: "acc_1" }));
    if (during === "sessionStatus") await answer("confirm", account());
    await vi.waitFor(() => expect(broker.made(during)).not.toEqual([]));
    const call = broker.last(during);
    const made = broker.calls.length;
    view.unmount();
    expect(call.signal.aborted).toBe(true);
    await answer(during, during === "openSession" ? session() : during === "confirm" ? account() : status());
    expect(broker.calls).toHaveLength(made);
    expect(onLinked).not.toHaveBeenCalled();
  });
});
