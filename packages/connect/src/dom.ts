/** The few things that every view needs. */

import type { Theme } from "./view-types.js";

type Child = Node | string | null | false;

/** Makes an element; `on...` are listeners, everything else attributes. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Record<string, string | boolean | (() => void) | null> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (typeof value === "string") element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

/** Replaces what an element holds; who had the focus in it goes to the element itself, not to nowhere. */
export function replaceIn(root: HTMLElement, ...children: Child[]): void {
  const had = root.contains(document.activeElement) && document.activeElement !== root;
  root.replaceChildren(...children.filter((child) => child !== null && child !== false));
  if (had && !root.contains(document.activeElement)) root.focus({ preventScroll: true });
}

/** Where the theme is "auto", follows what the element stands on: a page may be dark whatever the system is. */
export class ThemeWatch {
  readonly #query = matchMedia("(prefers-color-scheme: dark)");
  readonly #where: Element;
  readonly #tell: (theme: "light" | "dark") => void;
  // Pages change their look by a class or an attribute up there.
  readonly #page = new MutationObserver(() => this.#look());
  #theme: Theme = "auto";

  constructor(where: Element, tell: (theme: "light" | "dark") => void) {
    this.#where = where;
    this.#tell = tell;
    this.#query.addEventListener("change", this.#look);
    for (const element of [document.documentElement, document.body]) this.#page.observe(element, { attributes: true });
  }

  get now(): "light" | "dark" {
    if (this.#theme !== "auto") return this.#theme;
    return (isOnDark(this.#where) ?? this.#query.matches) ? "dark" : "light";
  }

  set(theme: Theme): void {
    this.#theme = theme;
    this.#look();
  }

  stop(): void {
    this.#query.removeEventListener("change", this.#look);
    this.#page.disconnect();
  }

  readonly #look = () => this.#tell(this.now);
}

/** Tells whether the first colour behind an element is a dark one; null where only the system knows. */
function isOnDark(element: Element): boolean | null {
  for (let at: Element | null = element; at; at = at.parentElement ?? (at.getRootNode() as Partial<ShadowRoot>).host ?? null) {
    const light = lightness(getComputedStyle(at).backgroundColor);
    if (light !== null) return light < 0.5;
  }
  // No colour at all is white, unless the page lets the browser choose.
  const scheme = getComputedStyle(document.documentElement).colorScheme;
  return scheme === "dark" ? true : scheme === "normal" || scheme === "light" ? false : null;
}

/** Returns how light a computed colour is, from 0 to 1; null for one that lets through what is behind it. */
function lightness(colour: string): number | null {
  const [, kind = "", rest = ""] = /^(color\([\w-]+|\w+\()(.*)/.exec(colour) ?? [];
  const [one = NaN, two = NaN, three = NaN, alpha = 1] = (rest.match(/-?[\d.]+(e-?\d+)?/g) ?? []).map(Number);
  if (Number.isNaN(one) || alpha < 0.5) return null;
  if (kind.startsWith("ok")) return one;
  if (kind.startsWith("l")) return one / 100;
  const sum = 0.2126 * one + 0.7152 * two + 0.0722 * three;
  return kind.startsWith("color") ? sum : sum / 255;
}
