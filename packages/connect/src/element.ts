/** `<connect-hub>` and `<connect-list>`: for Vue, Svelte and pages without a framework. Give them `connect` first. */

import type { Connect, Flow } from "./connect.js";
import { showList } from "./list.js";
import type { ProblemKind } from "./problems.js";
import type { Theme, WordsOverride } from "./view-types.js";

// On a server there are no elements; the import must not fail there.
const Base: typeof HTMLElement = typeof HTMLElement === "undefined" ? (class {} as typeof HTMLElement) : HTMLElement;

abstract class ConnectElement extends Base {
  #connect: Connect | null = null;
  #words: WordsOverride | undefined;
  #hubTheme: object | undefined;
  #life: AbortController | null = null;

  /** What `createConnect` made. */
  get connect(): Connect | null {
    return this.#connect;
  }

  set connect(connect: Connect | null) {
    this.#connect = connect;
    this.restart();
  }

  /** Words of your own, in place of the locale's. */
  get words(): WordsOverride | undefined {
    return this.#words;
  }

  set words(words: WordsOverride | undefined) {
    this.#words = words;
    this.restart();
  }

  /** The vendor's own theme object. */
  get hubTheme(): object | undefined {
    return this.#hubTheme;
  }

  set hubTheme(hubTheme: object | undefined) {
    this.#hubTheme = hubTheme;
    this.restart();
  }

  connectedCallback(): void {
    this.restart();
  }

  disconnectedCallback(): void {
    this.#life?.abort();
    this.#life = null;
  }

  attributeChangedCallback(_name: string, before: string | null, now: string | null): void {
    if (before !== now && this.#life !== null) this.restart();
  }

  protected restart(): void {
    this.#life?.abort();
    this.#life = null;
    if (this.#connect === null || !this.isConnected) return;
    this.#life = new AbortController();
    this.begin(this.#connect, this.#life.signal);
  }

  protected abstract begin(connect: Connect, signal: AbortSignal): void;

  protected get look() {
    return {
      theme: (this.getAttribute("theme") ?? "auto") as Theme,
      ...(this.hasAttribute("locale") ? { locale: this.getAttribute("locale") ?? "en" } : {}),
      ...(this.#words ? { words: this.#words } : {}),
      ...(this.#hubTheme ? { hubTheme: this.#hubTheme } : {}),
      onSignedOut: (why: ProblemKind) => {
        const event = new CustomEvent("signedout", { detail: why, cancelable: true });
        if (this.dispatchEvent(event)) this.#connect?.onSignedOut?.(why);
      },
    };
  }
}

/**
 * The Hub in the page; events: `linked` (detail: the account), `cancelled`, `signedout` (who prevents its default does
 * it in place of the `onSignedOut` of `createConnect`).
 */
export class ConnectHubElement extends ConnectElement {
  static observedAttributes = ["provider", "account-id", "locale", "theme"];

  #flow: Flow | null = null;

  override attributeChangedCallback(name: string, before: string | null, now: string | null): void {
    // What is typed into the Hub outlives a change of its colours.
    if (name === "theme") this.#flow?.setTheme(this.look.theme);
    else super.attributeChangedCallback(name, before, now);
  }

  protected begin(connect: Connect, signal: AbortSignal): void {
    const provider = this.getAttribute("provider");
    const accountId = this.getAttribute("account-id");
    const request = { ...(provider ? { provider } : {}), ...(accountId ? { account_id: accountId } : {}) };
    const flow = connect.open(request, { ...this.look, mount: this, signal });
    this.#flow = flow;
    void flow.done.then((account) => {
      if (signal.aborted) return;
      this.dispatchEvent(account ? new CustomEvent("linked", { detail: account }) : new CustomEvent("cancelled"));
    });
  }
}

/** The user's connections, with Reconnect and Disconnect; events: `linked`, `signedout`. */
export class ConnectListElement extends ConnectElement {
  static observedAttributes = ["locale", "theme"];

  protected begin(connect: Connect, signal: AbortSignal): void {
    const onLinked = (account: unknown) => void this.dispatchEvent(new CustomEvent("linked", { detail: account }));
    signal.addEventListener("abort", showList(connect, this, { ...this.look, onLinked }));
  }
}

if (typeof customElements !== "undefined") {
  if (!customElements.get("connect-hub")) customElements.define("connect-hub", ConnectHubElement);
  if (!customElements.get("connect-list")) customElements.define("connect-list", ConnectListElement);
}

declare global {
  interface HTMLElementTagNameMap {
    "connect-hub": ConnectHubElement;
    "connect-list": ConnectListElement;
  }
}
