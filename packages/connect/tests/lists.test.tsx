import { act, render, renderHook, screen } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { createElement, type ReactNode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Connect } from "../src/connect.js";
import { Connections } from "../src/connections.js";
import { showList } from "../src/list.js";
import { ConnectProblem } from "../src/problems.js";
import { ConnectButton, ConnectProvider, useConnections, useSessionStatus } from "../src/react.js";
import { fakeConnect } from "../src/testing.js";
import { account, ScriptedClient, status } from "./scripted-client.js";

let broker: ScriptedClient;
let connect: Connect;
const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));
const wrapper = ({ children }: { children: ReactNode }) =>
  createElement(ConnectProvider, { connect, onSignedOut: () => {}, children });

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("BroadcastChannel", undefined);
  broker = new ScriptedClient();
  connect = {
    connections: new Connections(broker.client),
    interrupted: () => null,
    sessionStatus: (id: string, { signal }: { signal: AbortSignal }) => broker.sessionStatus(id, signal),
  } as unknown as Connect;
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("useConnections", () => {
  it("reads at once, and again by itself", async () => {
    const { result } = renderHook(() => useConnections(), { wrapper });
    expect(result.current.accounts).toBeNull();
    await act(() => broker.last("linkedAccounts").answer([account()]));
    expect(result.current.accounts).toHaveLength(1);
    await pass(10_000);
    expect(broker.made("linkedAccounts")).toHaveLength(2);
  });

  it("reads once for however many ask", async () => {
    renderHook(() => [useConnections(), useConnections()], { wrapper });
    renderHook(() => useConnections(), { wrapper });
    expect(broker.made("linkedAccounts")).toHaveLength(1);
  });

  it("keeps what it knows while the broker is away, and recovers", async () => {
    const { result } = renderHook(() => useConnections(), { wrapper });
    await act(() => broker.last("linkedAccounts").answer([account()]));
    await pass(10_000);
    await act(() => broker.last("linkedAccounts").refuse(new ConnectProblem("offline")));
    expect(result.current.problem?.kind).toBe("offline");
    expect(result.current.accounts).toHaveLength(1);
    await pass(10_000);
    await act(() => broker.last("linkedAccounts").answer([]));
    expect(result.current).toMatchObject({ accounts: [], problem: null });
  });

  it("waits as long as the broker asks for", async () => {
    renderHook(() => useConnections(), { wrapper });
    await act(() => broker.last("linkedAccounts").refuse(new ConnectProblem("too_many", { retryAfter: 25 })));
    await pass(24_000);
    expect(broker.made("linkedAccounts")).toHaveLength(1);
    await pass(1_000);
    expect(broker.made("linkedAccounts")).toHaveLength(2);
  });

  it("lets the newest reading win", async () => {
    const { result } = renderHook(() => useConnections(), { wrapper });
    act(() => result.current.reload());
    const [first, second] = broker.made("linkedAccounts");
    expect(first!.signal.aborted).toBe(true);
    await act(() => second!.answer([account()]));
    await act(() => first!.answer([]));
    expect(result.current.accounts).toHaveLength(1);
  });

  it("stops with the last who asks", async () => {
    const view = renderHook(() => useConnections(), { wrapper });
    view.unmount();
    expect(broker.last("linkedAccounts").signal.aborted).toBe(true);
    await broker.last("linkedAccounts").answer([]);
    await pass(60_000);
    expect(broker.made("linkedAccounts")).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("tabs", () => {
  it("of one user share what one of them reads; another user's is not shown", async () => {
    const tabs: { hear: (event: { data: unknown }) => void }[] = [];
    vi.stubGlobal(
      "BroadcastChannel",
      class {
        hear = (_event: { data: unknown }) => {};
        constructor() {
          tabs.push(this);
        }
        addEventListener(_name: string, hear: (event: { data: unknown }) => void) {
          this.hear = hear;
        }
        postMessage(data: unknown) {
          for (const tab of tabs) if (tab !== this) tab.hear({ data });
        }
        close() {}
      },
    );
    const scripted = ["alice", "alice", "bob"].map((reader) => Object.assign(new ScriptedClient(), { reader }));
    const lists = scripted.map((one) => new Connections(one.client));
    const stops = lists.map((list) => list.subscribe(() => {}));
    for (const one of scripted) await one.last("linkedAccounts").answer([]);
    lists[0]!.reload();
    await scripted[0]!.last("linkedAccounts").answer([account()]);
    expect(lists.map((list) => list.state.accounts?.length)).toEqual([1, 1, 0]);
    for (const stop of stops) stop();
  });
});

describe("showList", () => {
  it("asks before it disconnects, says so, and leaves the focus in the list", async () => {
    vi.useRealTimers();
    HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
      this.open = true;
    };
    HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
      this.open = false;
      this.dispatchEvent(new Event("close"));
    };
    const place = document.body.appendChild(document.createElement("div"));
    const fake = fakeConnect({ accounts: [account({ leaving: false })] });
    const stop = showList(fake, place, { locale: "de" });
    await userEvent.click(await screen.findByRole("button", { name: "Trennen Bamboohr" }));
    await userEvent.click(screen.getByRole("button", { name: "Trennen" }));
    expect(await screen.findByText("Bamboohr ist getrennt.")).toBeVisible();
    expect(screen.getByText("Noch ist nichts verbunden.")).toBeVisible();
    expect(screen.getByRole("region", { name: "Ihre Verbindungen" })).toHaveFocus();
    stop();
    expect(place).toBeEmptyDOMElement();
    place.remove();
  });
});

describe("a button in a page", () => {
  it.each([
    ["rgb(10, 12, 16)", "dark"],
    ["rgba(0, 0, 0, 0.2)", "light"],
    ["oklch(0.145 0 0)", "dark"],
    ["oklab(0.98 0 0)", "light"],
    ["lab(4 0 0)", "dark"],
    ["color(display-p3 0.9 0.9 0.95)", "light"],
  ])("on %s is %s, and follows when the page changes", async (background, theme) => {
    vi.useRealTimers();
    const styles = vi.spyOn(window, "getComputedStyle");
    styles.mockReturnValue({ backgroundColor: background, colorScheme: "normal" } as CSSStyleDeclaration);
    // What lets through what is behind it has the page's white behind it in the end.
    const view = render(createElement(ConnectButton, { provider: "bamboohr" }), { wrapper });
    const button = view.container.querySelector("button");
    expect(button?.dataset["scbTheme"]).toBe(theme);
    styles.mockReturnValue({ backgroundColor: "rgb(0, 0, 0)", colorScheme: "normal" } as CSSStyleDeclaration);
    document.documentElement.className = "dark";
    await vi.waitFor(() => expect(button?.dataset["scbTheme"]).toBe("dark"));
    styles.mockRestore();
    document.documentElement.className = "";
  });
});

describe("useSessionStatus", () => {
  it("follows a session until it is decided", async () => {
    const { result } = renderHook(() => useSessionStatus("cs_1"), { wrapper });
    await act(() => broker.last("sessionStatus").answer(status()));
    expect(result.current.status?.status).toBe("pending");
    await pass(4_000);
    await act(() => broker.last("sessionStatus").answer(status({ status: "linked", account_id: "acc_1" })));
    expect(result.current.status?.status).toBe("linked");
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(2);
  });

  it("asks again after what passes, and no more after what does not", async () => {
    const { result } = renderHook(() => useSessionStatus("cs_1"), { wrapper });
    await act(() => broker.last("sessionStatus").refuse(new ConnectProblem("unavailable")));
    await pass(4_000);
    await act(() => broker.last("sessionStatus").refuse(new ConnectProblem("not_found")));
    expect(result.current.problem?.kind).toBe("not_found");
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(2);
  });

  it("asks nothing without a session, and stops on unmount", async () => {
    renderHook(() => useSessionStatus(null), { wrapper }).unmount();
    expect(broker.calls).toEqual([]);
    const view = renderHook(() => useSessionStatus("cs_1"), { wrapper });
    view.unmount();
    await broker.last("sessionStatus").answer(status());
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(1);
  });
});
