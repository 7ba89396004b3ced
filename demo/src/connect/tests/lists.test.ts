import { act, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ConnectProblem } from "../problems";
import { useLinkedAccounts } from "../useLinkedAccounts";
import { useSessionStatus } from "../useSessionStatus";
import { account, ScriptedClient, status } from "./scripted-client";

let broker: ScriptedClient;
const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("BroadcastChannel", undefined);
  broker = new ScriptedClient();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("useLinkedAccounts", () => {
  it("reads at once, and again by itself", async () => {
    const { result } = renderHook(() => useLinkedAccounts(broker.client));
    expect(result.current.accounts).toBeNull();
    await act(() => broker.last("linkedAccounts").answer([account()]));
    expect(result.current.accounts).toHaveLength(1);
    await pass(10_000);
    expect(broker.made("linkedAccounts")).toHaveLength(2);
  });

  it("keeps what it knows while the broker is away, and recovers", async () => {
    const { result } = renderHook(() => useLinkedAccounts(broker.client));
    await act(() => broker.last("linkedAccounts").answer([account()]));
    await pass(10_000);
    await act(() => broker.last("linkedAccounts").refuse(new ConnectProblem("offline")));
    expect(result.current.problem?.kind).toBe("offline");
    expect(result.current.accounts).toHaveLength(1);
    await pass(10_000);
    await act(() => broker.last("linkedAccounts").answer([]));
    expect(result.current).toMatchObject({ accounts: [], problem: null });
  });

  it("lets the newest reading win", async () => {
    const { result } = renderHook(() => useLinkedAccounts(broker.client));
    act(() => result.current.changed());
    const [first, second] = broker.made("linkedAccounts");
    expect(first!.signal.aborted).toBe(true);
    await act(() => second!.answer([account()]));
    await act(() => first!.answer([]));
    expect(result.current.accounts).toHaveLength(1);
  });

  it("stops on unmount", async () => {
    const view = renderHook(() => useLinkedAccounts(broker.client));
    view.unmount();
    expect(broker.last("linkedAccounts").signal.aborted).toBe(true);
    await broker.last("linkedAccounts").answer([]);
    await pass(60_000);
    expect(broker.made("linkedAccounts")).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("useSessionStatus", () => {
  it("follows a session until it is decided", async () => {
    const { result } = renderHook(() => useSessionStatus(broker.client, "cs_1"));
    await act(() => broker.last("sessionStatus").answer(status()));
    expect(result.current.status?.status).toBe("pending");
    await pass(4_000);
    await act(() => broker.last("sessionStatus").answer(status({ status: "linked", account_id: "acc_1" })));
    expect(result.current.status?.status).toBe("linked");
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(2);
  });

  it("asks again after what passes, and no more after what does not", async () => {
    const { result } = renderHook(() => useSessionStatus(broker.client, "cs_1"));
    await act(() => broker.last("sessionStatus").refuse(new ConnectProblem("unavailable")));
    await pass(4_000);
    await act(() => broker.last("sessionStatus").refuse(new ConnectProblem("not_found")));
    expect(result.current.problem?.kind).toBe("not_found");
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(2);
  });

  it("asks nothing without a session, and stops on unmount", async () => {
    renderHook(() => useSessionStatus(broker.client, null)).unmount();
    expect(broker.calls).toEqual([]);
    const view = renderHook(() => useSessionStatus(broker.client, "cs_1"));
    view.unmount();
    await broker.last("sessionStatus").answer(status());
    await pass(60_000);
    expect(broker.made("sessionStatus")).toHaveLength(1);
  });
});
