/** The list of connections, with what a person can do about each. */

import { catalogueOf, nameOf, type Catalogue } from "./catalogue.js";
import { fill, loadWords } from "./chosen-words.js";
import type { ConnectRequest, LinkedAccount } from "./client.js";
import type { Connect, OpenOptions } from "./connect.js";
import { h, replaceIn, ThemeWatch } from "./dom.js";
import { ConnectProblem } from "./problems.js";
import { describe, type Words } from "./words.js";

export interface ListOptions extends Omit<OpenOptions, "mount"> {
  /** Where the Hub appears on "Reconnect"; without it, over the page. */
  hubMount?: HTMLElement | null;
  /** Shown by the page itself where there is nothing to list. */
  hasOwnEmpty?: boolean;
  onLinked?: (account: LinkedAccount) => void;
}

/** Shows the list in an element, until the function that comes back is called. */
export function showList(connect: Connect, mount: HTMLElement, options: ListOptions = {}): () => void {
  const root = h("section", { class: "scb scb-list", tabindex: "-1" });
  const news = h("p", { class: "scb-news", role: "status" });
  const rows = h("div", {});
  const theme = new ThemeWatch(mount, (now) => (root.dataset["scbTheme"] = now));
  const life = new AbortController();
  theme.set(options.theme ?? "auto");
  root.append(news, rows);
  mount.append(root);
  let last = "";
  let catalogue: Catalogue | null = null;

  void loadWords(options.locale, options.words).then(({ words, language }) => {
    if (life.signal.aborted) return;
    root.lang = language;
    root.setAttribute("aria-label", words.connections);
    const draw = () => {
      const { accounts, problem, recent } = connect.connections.state;
      const next = JSON.stringify([accounts, problem?.kind, recent, catalogue !== null]);
      if (next === last) return;
      last = next;
      const focused = rows.contains(document.activeElement) ? document.activeElement : null;
      replaceIn(rows, problem && trouble(problem, words), list(accounts, words));
      if (focused) (document.getElementById(focused.id) ?? root).focus({ preventScroll: true });
    };
    const name = () => {
      if (catalogue !== null) return;
      const known = (found: Catalogue) => {
        catalogue = found;
        if (!life.signal.aborted) draw();
      };
      // The list is read again and again, and with it what its names come from, until there is an answer.
      catalogueOf(connect).then(known, () => {});
    };
    const changed = () => {
      draw();
      name();
    };
    life.signal.addEventListener("abort", connect.connections.subscribe(changed));
    changed();
    // A reload in the middle of a reconnect comes back to it.
    const interrupted = connect.interrupted(({ account_id: id }) => Boolean(id));
    if (interrupted) reconnect(interrupted);
  });

  function trouble(problem: ConnectProblem, words: Words): HTMLElement {
    const { title, text, again } = describe(problem, words);
    const signIn = options.onSignedOut ?? connect.onSignedOut;
    const act = () => {
      if (problem.kind === "signed_out") signIn?.("signed_out");
      connect.connections.reload();
    };
    const said = h("div", { role: "alert" }, h("p", { class: "scb-title" }, title), h("p", {}, text));
    return h("div", { class: "scb-trouble" }, said, h("button", { type: "button", class: "scb-button", onclick: act }, again));
  }

  function list(accounts: LinkedAccount[] | null, words: Words): HTMLElement | null {
    if (accounts === null) {
      return connect.connections.state.problem ? null : h("p", { role: "status" }, words.loading);
    }
    if (accounts.length === 0) return options.hasOwnEmpty ? null : h("p", {}, words.empty);
    const sorted = [...accounts].sort(
      (one, other) => Number(other.needs_reauth) - Number(one.needs_reauth) || one.account_id.localeCompare(other.account_id),
    );
    return h("ul", {}, ...sorted.map((account) => row(account, words)));
  }

  function row(account: LinkedAccount, words: Words): HTMLElement {
    const provider = nameOf(account.provider, catalogue);
    const name = account.label ? `${provider} · ${account.label}` : provider;
    const needsYou = account.needs_reauth || (account.status === "active" && !account.usable);
    const status = account.leaving
      ? words.disconnecting
      : account.needs_reauth
        ? words.needsReauth
        : (words.statuses[account.status] ?? (account.usable ? words.statuses["active"] : words.notUsable)) ?? account.status;
    const reason = account.status_reasons.map((found) => found.description).filter(Boolean).join(" ");
    const action = (label: string, look: string, act: () => void, what: string) =>
      h(
        "button",
        {
          type: "button",
          class: look,
          id: `scb-${what}-${account.account_id}`,
          "aria-label": `${label} ${name}`,
          disabled: account.leaving,
          onclick: act,
        },
        label,
      );
    return h(
      "li",
      { "data-account": account.account_id, class: isRecent(account) ? "scb-new" : null },
      logo(account.provider, provider),
      h("div", { class: "scb-who" }, h("p", { class: "scb-title" }, name), h("p", { class: "scb-facts" }, facts(account, words))),
      h("p", { class: `scb-status ${needsYou ? "scb-attention" : ""}` }, status),
      reason !== "" && !account.leaving && h("p", { class: "scb-why" }, reason),
      h(
        "div",
        { class: "scb-actions" },
        action(words.reconnect, needsYou ? "scb-button" : "scb-quiet", () => reconnect({ account_id: account.account_id, provider: account.provider }), "reconnect"),
        action(words.disconnect, "scb-quiet", () => ask(account, name, words), "disconnect"),
      ),
    );
  }

  function logo(provider: string, name: string): HTMLElement {
    const letter = h("span", { class: "scb-logo", "aria-hidden": "true" }, name.charAt(0));
    const address = catalogue?.get(provider)?.logo_url;
    if (!address) return letter;
    // Who serves the picture need not know on which page it is.
    const image = h("img", { class: "scb-logo", alt: "", referrerpolicy: "no-referrer" });
    image.addEventListener("error", () => image.replaceWith(letter));
    image.src = address;
    return image;
  }

  function isRecent(account: LinkedAccount): boolean {
    return connect.connections.state.recent?.accountId === account.account_id;
  }

  function facts(account: LinkedAccount, words: Words): string {
    const by = account.username ? fill(words.by, { name: account.username }) : null;
    const when = isRecent(account)
      ? connect.connections.state.recent?.mode === "edit" ? words.reconnectedNow : words.connectedNow
      : account.created_at ? fill(words.connectedAgo, { ago: ago(account.created_at, root.lang) }) : null;
    return [when, by].filter((fact) => fact !== null).join(", ");
  }

  function reconnect(request: ConnectRequest): void {
    const flow = connect.open(request, { ...options, mount: options.hubMount ?? undefined, signal: life.signal });
    void flow.done.then((linked) => linked && options.onLinked?.(linked));
  }

  function ask(account: LinkedAccount, name: string, words: Words): void {
    const trouble = h("p", { role: "alert" });
    const go = h("button", { type: "button", class: "scb-button scb-danger" }, words.disconnect);
    const keep = h("button", { type: "button", class: "scb-quiet", autofocus: true, onclick: () => void dialog.close() }, words.keep);
    const title = fill(words.disconnectTitle, { name });
    const leave = () => {
      dialog.remove();
      // The row may have been drawn anew meanwhile, or, with the button that was pressed, be gone.
      if (document.activeElement === document.body) {
        (document.getElementById(`scb-disconnect-${account.account_id}`) ?? root).focus({ preventScroll: true });
      }
    };
    const dialog: HTMLDialogElement = h(
      "dialog",
      { class: "scb scb-dialog", "aria-label": title, "data-scb-theme": theme.now, onclose: leave },
      h("p", { class: "scb-title" }, title),
      h("p", {}, fill(words.disconnectText, { name })),
      trouble,
      h("div", { class: "scb-actions" }, keep, go),
    );
    go.addEventListener("click", () => {
      go.disabled = true;
      connect.disconnect(account.account_id, { signal: life.signal }).then(
        (isDone) => {
          dialog.close();
          news.textContent = isDone ? fill(words.isDisconnected, { name }) : words.disconnecting;
          root.focus({ preventScroll: true });
        },
        (error: unknown) => {
          if (life.signal.aborted) return;
          const found = error instanceof ConnectProblem ? error : new ConnectProblem("broken", { cause: error });
          const said = describe(found, words);
          trouble.textContent = `${said.title}. ${said.text}`;
          go.disabled = false;
        },
      );
    });
    root.append(dialog);
    dialog.showModal();
  }

  return () => {
    life.abort();
    theme.stop();
    root.remove();
  };
}

const STEPS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

function ago(moment: string, locale: string): string {
  const seconds = Math.min(0, (Date.parse(moment) - Date.now()) / 1000);
  const [unit, size] = STEPS.find(([, step]) => Math.abs(seconds) >= step) ?? ["second", 1];
  return new Intl.RelativeTimeFormat(locale, { numeric: "auto" }).format(Math.round(seconds / size), unit);
}
