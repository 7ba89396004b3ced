/** One whole page on a broker that answers: names, words, who signs in, what a reload comes back to. */

import { act, render, screen, waitFor } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { createElement, StrictMode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createConnect, type Connect, type ConnectOptions } from "../src/connect.js";
import "../src/element.js";
import { showList, type ListOptions } from "../src/list.js";
import { ConnectProblem } from "../src/problems.js";
import { ConnectButton, ConnectProvider, reactHub } from "../src/react.js";
import type { HubProps } from "../src/view-types.js";
import { account, session } from "./scripted-client.js";

const json = (status: number, body: unknown) => new Response(JSON.stringify(body), { status });
const connector = (key: string, label: string, logo: string | null = null) => ({ key, label, logo_url: logo, categories: [] });
const page = (data: unknown[]) => json(200, { data, next_cursor: null });

let answers: Record<string, () => Response>;
let asked: string[];
let bearer: () => string;
let said: unknown[];
let place: HTMLElement;
let stops: (() => void)[];

beforeEach(() => {
  sessionStorage.clear();
  [asked, said, stops] = [[], [], []];
  bearer = () => "token";
  answers = {
    "GET /v1/linked-accounts": () => page([account({ provider: "bamboohr", account_id: "acc_1" })]),
    "GET /v1/connectors": () => page([connector("bamboohr", "BambooHR", "data:image/svg+xml,x")]),
    "POST /v1/connect-sessions": () => json(201, session()),
    "POST /v1/linked-accounts/acc_1/confirm": () => json(200, account()),
  };
  place = document.body.appendChild(document.createElement("div"));
  vi.stubGlobal("BroadcastChannel", undefined);
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const call = `${init.method} ${url.split("?")[0]}`;
    asked.push(call);
    return (answers[call] ?? (() => json(404, {})))();
  });
});

afterEach(() => {
  for (const stop of stops) stop();
  place.remove();
  vi.unstubAllGlobals();
});

function connected(options: Partial<ConnectOptions> = {}): Connect {
  return createConnect({
    brokerUrl: "",
    auth: { bearer: () => bearer() },
    hub: (mount: HTMLElement, { token }: HubProps) => {
      mount.textContent = `Hub for ${token}`;
      return { setTheme() {}, remove() {} };
    },
    onEvent: (event) => said.push(event.type),
    ...options,
  });
}

function list(connect: Connect, options: ListOptions = {}): void {
  stops.push(showList(connect, place, options));
}

const times = (call: string) => asked.filter((made) => made === call).length;

describe("the names of providers", () => {
  it("are the catalogue's, and so are their pictures; it is read once for the whole page", async () => {
    const connect = connected();
    list(connect);
    list(connect);
    expect(await screen.findAllByRole("button", { name: "Disconnect BambooHR" })).toHaveLength(2);
    const image = place.querySelector("img.scb-logo");
    expect(image).toHaveAttribute("src", "data:image/svg+xml,x");
    expect(image).toHaveAttribute("referrerpolicy", "no-referrer");
    await userEvent.click(screen.getAllByRole("button", { name: "Reconnect BambooHR" })[0]!);
    expect(await screen.findByRole("dialog", { name: "Connect BambooHR" })).toBeVisible();
    expect(times("GET /v1/connectors")).toBe(1);
    await userEvent.click(screen.getByRole("button", { name: "Close" }));
    // A picture that cannot be had leaves its place to the name's first letter.
    act(() => void image!.dispatchEvent(new Event("error")));
    expect(image).not.toBeInTheDocument();
    expect(place.querySelector("span.scb-logo")).toHaveTextContent("B");
  });

  it("are readable without it, and corrected when it can be read", async () => {
    const known = answers["GET /v1/connectors"]!;
    answers["GET /v1/connectors"] = () => json(503, {});
    const connect = connected();
    list(connect);
    await screen.findByRole("button", { name: "Disconnect Bamboohr" });
    answers["GET /v1/connectors"] = known;
    connect.connections.reload();
    await screen.findByRole("button", { name: "Disconnect BambooHR" });
  });
});

describe("words", () => {
  it.each([
    ["fr", undefined, "en", "Your connections"],
    ["fr-CH", { connections: "Vos connexions" }, "fr", "Vos connexions"],
    ["de_AT", undefined, "de", "Ihre Verbindungen"],
    ["", undefined, "en", "Your connections"],
    ["not a language", { connections: "Yours" }, "en", "Yours"],
    ["de", { connections: undefined, problems: null }, "de", "Ihre Verbindungen"],
  ])("for the locale %j with %j are in %j", async (locale, words, language, name) => {
    list(connected(), { locale, ...(words ? { words: words as object } : {}) });
    const region = await screen.findByRole("region", { name });
    expect(region).toHaveAttribute("lang", language);
    const facts = () => region.querySelector(".scb-facts")?.textContent;
    await waitFor(() => expect(facts()).toMatch(language === "de" ? /^verbunden vor/ : /^connected/));
  });
});

describe("who is signed out", () => {
  beforeEach(() => {
    bearer = () => {
      throw new ConnectProblem("signed_out");
    };
  });

  it("is signed in by what the page said once, from the list and from the Hub", async () => {
    const why: string[] = [];
    const connect = connected({ onSignedOut: (kind) => why.push(kind) });
    list(connect);
    await userEvent.click(await screen.findByRole("button", { name: "Sign in" }));
    expect(why).toEqual(["signed_out"]);
    const flow = connect.open({ provider: "bamboohr" });
    const dialog = await screen.findByRole("dialog");
    await waitFor(() => expect(dialog.querySelector(".scb-failure .scb-button")).not.toBeNull());
    await userEvent.click(dialog.querySelector(".scb-failure .scb-button")!);
    expect(why).toEqual(["signed_out", "signed_out"]);
    flow.close();
  });

  it("is signed in by an element's event instead, where that is taken", async () => {
    const why: string[] = [];
    const shown = document.createElement("connect-list");
    shown.connect = connected({ onSignedOut: () => why.push("by the page") });
    place.append(shown);
    await userEvent.click(await screen.findByRole("button", { name: "Sign in" }));
    expect(why).toEqual(["by the page"]);
    shown.addEventListener("signedout", (event) => {
      event.preventDefault();
      why.push((event as CustomEvent<string>).detail);
    });
    await userEvent.click(await screen.findByRole("button", { name: "Sign in" }));
    expect(why).toEqual(["by the page", "signed_out"]);
    shown.remove();
  });

  it("is asked for again when they come back, and not by waiting", async () => {
    const ask = vi.fn(bearer);
    bearer = ask;
    const connect = connected({ everyMs: 1 });
    list(connect);
    await screen.findByRole("button", { name: "Sign in" });
    const before = ask.mock.calls.length;
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(ask.mock.calls.length).toBe(before);
    bearer = () => "token";
    window.dispatchEvent(new Event("focus"));
    await screen.findByRole("button", { name: "Disconnect BambooHR" });
  });
});

describe("a reload in the middle", () => {
  const begun = (type: NavigationTimingType, request: object) => {
    vi.spyOn(performance, "getEntriesByType").mockReturnValue([{ type } as PerformanceNavigationTiming]);
    sessionStorage.setItem("connect-broker-open", JSON.stringify({ request, page: performance.timeOrigin - 1 }));
  };
  const button = (connect: Connect, provider: string) =>
    createElement(
      StrictMode,
      null,
      createElement(ConnectProvider, {
        connect,
        onSignedOut: () => {},
        children: createElement(ConnectButton, { provider, children: `Connect ${provider}` }),
      }),
    );

  it("comes back to what this button had opened, with a new token", async () => {
    begun("reload", { provider: "bamboohr" });
    const connect = connected();
    const other = render(button(connect, "workday"));
    const view = render(button(connect, "bamboohr"));
    expect(await screen.findByText(/Hub for/)).toBeVisible();
    expect(times("POST /v1/connect-sessions")).toBe(1);
    await userEvent.click(screen.getByRole("button", { name: "Close" }));
    view.unmount();
    other.unmount();
    // Who closed it is done with it.
    const again = render(button(connect, "bamboohr"));
    await act(() => new Promise((resolve) => setTimeout(resolve, 10)));
    expect(screen.queryByRole("dialog")).toBeNull();
    again.unmount();
  });

  it("comes back to the account that was being reconnected", async () => {
    begun("reload", { provider: "bamboohr", account_id: "acc_1" });
    answers["POST /v1/connect-sessions"] = () => json(201, session({ mode: "edit", account_id: "acc_1" }));
    const connect = connected();
    list(connect);
    expect(await screen.findByText(/Hub for/)).toBeVisible();
    await userEvent.click(screen.getByRole("button", { name: "Close" }));
    expect(connect.interrupted()).toBeNull();
  });

  it("is not what a link or Back is, from which nothing comes back, not even at a reload later", () => {
    for (const type of ["navigate", "back_forward"] as const) {
      begun(type, { provider: "bamboohr" });
      expect(connected().interrupted()).toBeNull();
      vi.spyOn(performance, "getEntriesByType").mockReturnValue([{ type: "reload" } as PerformanceNavigationTiming]);
      expect(connected().interrupted()).toBeNull();
    }
  });

  it("is not what is open in this page, whatever else is shown meanwhile", () => {
    begun("reload", { provider: "workday" });
    const connect = connected();
    const flow = connect.open({ provider: "bamboohr" });
    expect(connect.interrupted()).toBeNull();
    flow.close();
  });

  it("is nothing to a server that draws the page", () => {
    vi.stubGlobal("document", undefined);
    vi.stubGlobal("sessionStorage", undefined);
    vi.stubGlobal("performance", { now: () => 0 });
    const left = connected().interrupted();
    vi.unstubAllGlobals();
    expect(left).toBeNull();
  });

  it("is over a minute later", () => {
    begun("reload", { provider: "bamboohr" });
    const connect = connected();
    const now = performance.now();
    vi.spyOn(performance, "now").mockReturnValue(now + 61_000);
    expect(connect.interrupted()).toBeNull();
  });
});

describe("a page", () => {
  it("opens one Hub over itself, however often it is asked", async () => {
    const connect = connected();
    const first = connect.open({ provider: "bamboohr" });
    const second = connect.open({ provider: "bamboohr" });
    await expect(first.done).resolves.toBeNull();
    expect(await screen.findAllByRole("dialog")).toHaveLength(1);
    expect(said).toEqual(["opened", "cancelled", "opened"]);
    second.close();
    expect(screen.queryByRole("dialog")).toBeNull();
  });

  it("goes on when its own listener throws", async () => {
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    const connect = connected({
      onEvent: () => {
        throw new Error("ours");
      },
    });
    const flow = connect.open({ provider: "bamboohr" });
    await screen.findByText(/Hub for/);
    flow.close();
    expect(reported).toHaveBeenCalledTimes(2);
  });

  it("gives an element its own words", async () => {
    const shown = Object.assign(document.createElement("connect-list"), { words: { connections: "Your tools" } });
    shown.connect = connected();
    place.append(shown);
    expect(await screen.findByRole("region", { name: "Your tools" })).toBeVisible();
    shown.words = { connections: "Yours" };
    expect(await screen.findByRole("region", { name: "Yours" })).toBeVisible();
    shown.remove();
  });
});

describe("the vendor's React component", () => {
  it("that throws is told of", async () => {
    const onCrash = vi.fn();
    vi.spyOn(console, "error").mockImplementation(() => {});
    const props = { token: "one", baseUrl: "", appUrl: "", accountId: null, theme: "light", hubTheme: undefined } as const;
    const Broken = () => {
      throw new Error("localStorage is denied");
    };
    const shown = await reactHub(Broken as never)(place, { ...props, onSuccess() {}, onCrash });
    await waitFor(() => expect(onCrash).toHaveBeenCalledOnce());
    expect(place).toBeEmptyDOMElement();
    shown.remove();
  });
});
