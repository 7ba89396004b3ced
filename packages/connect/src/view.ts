/** What a person sees of a flow: the Hub, and a life around it that the Hub does not have. */

import { catalogueOf, nameOf, type Catalogue } from "./catalogue.js";
import { fill, loadWords, type Chosen } from "./chosen-words.js";
import { h, replaceIn, ThemeWatch } from "./dom.js";
import type { ConnectState } from "./flow.js";
import { load } from "./load.js";
import { watchHubRefusals } from "./refusals.js";
import type { ShownHub, View, ViewOptions } from "./view-types.js";
import { describe, type Words } from "./words.js";

/** Makes the view of one flow. */
export async function createView(options: ViewOptions): Promise<View> {
  // While the token is minted; a failure shows when the Hub is to be shown.
  if (!options.hub) load(() => import("./hub.js")).then(({ loadWebComponent }) => loadWebComponent()).catch(() => {});
  return new FlowView(options, await loadWords(options.locale, options.words));
}

/** The lists of the Hub, which it opens at the end of the body. */
const HUB_LISTS = ".malachite-dropdown-surface, .malachite-multiselect-surface, .malachite-actionmenu-surface";

interface Shown {
  token: string;
  hub: ShownHub | null;
  notice: HTMLElement;
  life: AbortController;
}

class FlowView implements View {
  readonly #options: ViewOptions;
  readonly #words: Words;
  readonly #root = h("div", { class: "scb", tabindex: "-1" });
  readonly #theme: ThemeWatch;
  readonly #overlay: Overlay | null;
  readonly #leaveHistory: () => void;
  readonly #life = new AbortController();
  #shown: Shown | null = null;
  #countdown: ReturnType<typeof setInterval> | undefined;

  constructor(options: ViewOptions, { words, language }: Chosen) {
    this.#options = options;
    this.#words = words;
    this.#root.lang = language;
    this.#theme = new ThemeWatch(options.mount ?? document.body, (theme) => {
      this.#root.dataset["scbTheme"] = theme;
      this.#overlay?.setTheme(theme);
      this.#shown?.hub?.setTheme(theme);
    });
    const { provider } = options.request;
    const title = (known: Catalogue | null) =>
      provider ? fill(words.connect, { name: nameOf(provider, known) }) : words.connectAny;
    const overlay = options.mount ? null : new Overlay(title(null), language, words.close, options.close);
    this.#overlay = overlay;
    if (overlay && provider) catalogueOf(options.connect).then((known) => overlay.setTitle(title(known)), () => {});
    (options.mount ?? this.#overlay?.body)?.append(this.#root);
    this.#overlay?.open();
    // A modal dialog of the page closes when something outside of it is pressed, and lets nothing outside of it scroll.
    const keep = (event: Event) => (event.target as Element).closest(`.scb-overlay, ${HUB_LISTS}`) && event.stopPropagation();
    for (const type of ["pointerdown", "wheel", "touchmove"])
      document.body.addEventListener(type, keep, { signal: this.#life.signal, passive: true });
    this.#leaveHistory = options.closeOnBack ? closeOnBack(options.close) : () => {};
  }

  setTheme(theme: ViewOptions["theme"]): void {
    this.#theme.set(theme);
  }

  render(state: ConnectState): void {
    clearInterval(this.#countdown);
    if (state.phase === "open") return this.#renderHub(state);
    this.#dropHub();
    const words = this.#words;
    switch (state.phase) {
      case "opening":
        return this.#waiting(state.slow ? words.openingSlowly : words.opening);
      case "confirming":
        return this.#waiting(state.slow ? words.confirmingSlowly : words.confirming);
      case "failed":
        return this.#failure(state);
      case "linked":
        return replaceIn(this.#root);
    }
  }

  remove(): void {
    clearInterval(this.#countdown);
    this.#life.abort();
    this.#leaveHistory();
    this.#theme.stop();
    this.#dropHub();
    this.#root.remove();
    this.#overlay?.remove();
  }

  #waiting(text: string): void {
    const spinner = h("span", { class: "scb-spinner", "aria-hidden": "true" });
    replaceIn(this.#root, h("div", { class: "scb-waiting", role: "status" }, spinner, h("p", {}, text)));
  }

  #failure({ problem, retryAt }: Extract<ConnectState, { phase: "failed" }>): void {
    const { flow, close, onSignedOut } = this.#options;
    const found = describe(problem, this.#words);
    const { kind } = problem;
    const again = () => {
      if (kind === "already_linked" || kind === "invitation_over") close();
      else if (onSignedOut && (kind === "signed_out" || kind === "not_invited")) onSignedOut(kind);
      else flow.retry();
    };
    const clock = retryAt === null ? null : h("p", { "aria-hidden": "true" });
    if (clock !== null && retryAt !== null) {
      const count = () => {
        const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
        clock.textContent = fill(this.#words.retryIn, { seconds });
      };
      count();
      this.#countdown = setInterval(count, 500);
    }
    replaceIn(
      this.#root,
      h(
        "div",
        { class: "scb-failure", "data-problem": kind },
        h("div", { role: "alert" }, h("p", { class: "scb-title" }, found.title), h("p", {}, found.text)),
        clock,
        h("button", { type: "button", class: "scb-button", onclick: again }, found.again),
        problem.requestId !== null &&
          h("p", { class: "scb-reference" }, `${this.#words.reference}: `, h("code", {}, problem.requestId)),
      ),
    );
  }

  #renderHub({ session, notice }: Extract<ConnectState, { phase: "open" }>): void {
    const { flow, stackone } = this.#options;
    if (this.#shown?.token !== session.token) {
      this.#dropHub();
      const life = new AbortController();
      const mount = h("div", { class: "scb-hub" });
      const notes = h("div", { class: "scb-notice", role: "status" });
      const open = h("div", {}, notes, mount);
      const touch = () => flow.touch();
      open.addEventListener("pointerdown", touch);
      open.addEventListener("input", touch);
      open.addEventListener("keydown", ({ key }) => {
        if (!["Tab", "Shift", "Escape", "ArrowUp", "ArrowDown"].includes(key)) touch();
      });
      const shown: Shown = { token: session.token, hub: null, notice: notes, life };
      this.#shown = shown;
      const waiting = h("p", { class: "scb-waiting", role: "status" }, this.#words.opening);
      mount.append(waiting);
      replaceIn(this.#root, open);
      const stop = watchHubRefusals(stackone.baseUrl, performance.now(), () => flow.hubWasRefused());
      life.signal.addEventListener("abort", stop);
      void this.#mountHub(shown, waiting, session);
    }
    const fresh =
      notice === null
        ? []
        : [
            h("p", {}, this.#words.notices[notice]),
            notice === "linked_elsewhere" &&
              h("button", { type: "button", class: "scb-button", onclick: () => flow.finish() }, this.#words.finish),
          ];
    if (this.#shown) replaceIn(this.#shown.notice, ...fresh);
  }

  async #mountHub(
    shown: Shown,
    waiting: HTMLElement,
    session: Extract<ConnectState, { phase: "open" }>["session"],
  ): Promise<void> {
    const { flow, stackone, hubTheme } = this.#options;
    const life = shown.life.signal;
    try {
      const renderer = this.#options.hub ?? (await load(() => import("./hub.js"))).webComponent;
      const place = h("div", {});
      const hub = await renderer(place, {
        token: session.token,
        ...stackone,
        accountId: session.account_id,
        theme: this.#theme.now,
        hubTheme,
        onSuccess: (success) => !life.aborted && flow.hubSucceeded(success),
        onCrash: () => !life.aborted && flow.hubCrashed(),
      });
      if (life.aborted) return hub.remove();
      shown.hub = hub;
      hub.setTheme(this.#theme.now);
      waiting.replaceWith(place);
    } catch {
      if (!life.aborted) flow.hubCrashed();
    }
  }

  #dropHub(): void {
    this.#shown?.life.abort();
    this.#shown?.hub?.remove();
    this.#shown = null;
  }
}

/** Over the page, without a modal dialog: the Hub opens its lists at the end of the body, which a modal makes inert. */
class Overlay {
  readonly body = h("div", { class: "scb-panel-body" });
  readonly #element: HTMLElement;
  readonly #heading: HTMLElement;
  readonly #panel: HTMLElement;
  readonly #before = document.activeElement;
  readonly #onClose: () => void;
  /** What had the focus in the Hub last: what opened its list, while one is open. */
  #focused: HTMLElement | null = null;
  #inert: HTMLElement[] = [];

  constructor(title: string, language: string, close: string, onClose: () => void) {
    this.#heading = h("h2", { class: "scb-title", tabindex: "-1" });
    const leave = h("button", { type: "button", class: "scb-quiet", onclick: onClose }, close);
    const head = h("div", { class: "scb-panel-head" }, this.#heading, leave);
    this.#panel = h("div", { class: "scb-panel", role: "dialog" }, head, this.body);
    this.#element = h("div", { class: "scb scb-overlay", lang: language }, this.#panel);
    this.setTitle(title);
    this.#onClose = onClose;
    // The Hub stands in a shadow, and the first of the path is the field itself.
    this.body.addEventListener("focusin", (event) => (this.#focused = event.composedPath()[0] as HTMLElement));
  }

  open(): void {
    this.#inert = [...document.body.children].filter((child): child is HTMLElement => child instanceof HTMLElement && !child.inert);
    for (const child of this.#inert) child.inert = true;
    document.body.append(this.#element);
    addEventListener("keydown", this.#escape, { capture: true });
    this.#heading.focus();
  }

  // Before a dialog of the page takes it for its own: those listen at the document, and leave alone what was prevented. So do
  // the Hub's lists, which close as well when something else is pressed.
  readonly #escape = (event: KeyboardEvent) => {
    const target = event.target as Node;
    const list = document.querySelector(HUB_LISTS);
    const isOurs = target === document.body || this.#element.contains(target) || list?.contains(target);
    if (event.key !== "Escape" || event.isComposing || !isOurs) return;
    event.preventDefault();
    if (list) {
      this.#element.dispatchEvent(new MouseEvent("mousedown", { bubbles: true }));
      this.#focused?.focus();
    } else if (!this.body.contains(target)) this.#onClose();
  };

  setTitle(title: string): void {
    this.#heading.textContent = title;
    this.#panel.setAttribute("aria-label", title);
  }

  setTheme(theme: string): void {
    this.#element.dataset["scbTheme"] = theme;
  }

  remove(): void {
    removeEventListener("keydown", this.#escape, { capture: true });
    for (const child of this.#inert) child.inert = false;
    this.#element.remove();
    // What was pressed may have been drawn anew meanwhile, or be gone.
    const before = this.#before?.isConnected ? this.#before : this.#before && document.getElementById(this.#before.id);
    (before instanceof HTMLElement ? before : document.querySelector<HTMLElement>(".scb-list"))?.focus();
  }
}

/** Makes one step of history, which Back leaves; what comes back takes the step away. */
function closeOnBack(close: () => void): () => void {
  const mark = `connect-broker-${Math.random()}`;
  history.pushState({ ...(history.state as object | null), connectBroker: mark }, "");
  const left = () => close();
  addEventListener("popstate", left, { once: true });
  return () => {
    removeEventListener("popstate", left);
    if ((history.state as { connectBroker?: string } | null)?.connectBroker === mark) history.back();
  };
}
