/** Which words a page shows: a locale's, and over them the product's own. */

import { load } from "./load.js";
import en from "./locales/en.js";
import type { WordsOverride } from "./view-types.js";
import type { Words } from "./words.js";

export interface Chosen {
  words: Words;
  /** The language that they are in, as an element's `lang` has it. */
  language: string;
}

/** Loads a locale, with a product's own words over it; English where there is none, or it cannot be loaded. */
export async function loadWords(locale: string | undefined, override: WordsOverride = {}): Promise<Chosen> {
  const [asked = ""] = /^[a-z]{2,3}(?=$|[-_])/.exec((locale ?? "").toLowerCase()) ?? [];
  const words = asked === "de" ? await load(() => import("./locales/de.js")).catch(() => null) : null;
  // Another language can only be one that the product brought its own words for.
  const isItsOwn = asked !== "" && asked !== "de" && Object.keys(override).length > 0;
  return { words: over(words?.default ?? en, override), language: words || isItsOwn ? asked : "en" };
}

/** Fills in what stands in braces. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

function over<Value extends object>(base: Value, above: object): Value {
  const merged = { ...base } as Record<string, unknown>;
  for (const [name, value] of Object.entries(above)) {
    const under = merged[name];
    if (value !== undefined && value !== null) {
      merged[name] = typeof under === "object" && under !== null ? over(under, value as object) : value;
    }
  }
  return merged as Value;
}
