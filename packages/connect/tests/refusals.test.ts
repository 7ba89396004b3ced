import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { watchHubRefusals } from "../src/refusals.js";

let deliver: (entries: Partial<PerformanceResourceTiming>[]) => void;
const disconnect = vi.fn();

beforeEach(() => {
  disconnect.mockReset();
  class Observer {
    static supportedEntryTypes = ["resource"];
    disconnect = disconnect;
    constructor(callback: PerformanceObserverCallback) {
      deliver = (entries) =>
        callback({ getEntries: () => entries } as unknown as PerformanceObserverEntryList, this as never);
    }
    observe() {}
  }
  vi.stubGlobal("PerformanceObserver", Observer);
});

afterEach(() => vi.unstubAllGlobals());

const later = () => performance.now() + 1;

it.each([
  ["https://api.example/hub/connectors", 401, true],
  ["https://api.example/hub/accounts/1", 403, true],
  ["https://api.example/hub/connectors", 200, false],
  ["https://api.example/hub/accounts", 400, false],
  ["https://api.example/hub/connectors", 0, false],
  ["https://broker.example/v1/linked-accounts", 401, false],
  ["https://api.example.evil.example/hub/x", 401, false],
])("%s answered %i: %s", (name, responseStatus, isRefusal) => {
  const onRefused = vi.fn();
  watchHubRefusals("https://api.example", performance.now(), onRefused);
  deliver([{ name, responseStatus, startTime: later() }]);
  expect(onRefused).toHaveBeenCalledTimes(isRefusal ? 1 : 0);
});

it("ignores what an earlier token asked for", () => {
  const onRefused = vi.fn();
  watchHubRefusals("https://api.example", performance.now(), onRefused);
  deliver([{ name: "https://api.example/hub/settings", responseStatus: 401, startTime: performance.now() - 1000 }]);
  expect(onRefused).not.toHaveBeenCalled();
});

it("understands a base that is a path of the page's own origin", () => {
  const onRefused = vi.fn();
  watchHubRefusals("/stackone/", performance.now(), onRefused);
  deliver([{ name: `${location.origin}/stackone/hub/settings`, responseStatus: 401, startTime: later() }]);
  expect(onRefused).toHaveBeenCalledOnce();
});

it("stops on demand, and does without where a browser cannot tell", () => {
  watchHubRefusals("https://api.example", 0, vi.fn())();
  expect(disconnect).toHaveBeenCalledOnce();
  vi.stubGlobal("PerformanceObserver", undefined);
  expect(watchHubRefusals("https://api.example", 0, vi.fn())).not.toThrow();
});
