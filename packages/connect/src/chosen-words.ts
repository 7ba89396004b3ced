/** Which words a page shows: a locale's, and over them the product's own. */

import { load } from "./load.js";
import en from "./locales/en.js";
import type { WordsOverride } from "./view-types.js";
import type { Words } from "./words.js";

/** Loads a locale, with a product's own words over it; English where there is none, or it cannot be loaded. */
export async function loadWords(locale: string | undefined, override: WordsOverride = {}): Promise<Words> {
  const language = (locale ?? "en").toLowerCase().split("-")[0];
  const words = language === "de" ? await load(() => import("./locales/de.js")).catch(() => null) : null;
  return over(words?.default ?? en, override);
}

/** Fills in what stands in braces. */
export function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

function over<Value extends object>(base: Value, above: object): Value {
  const merged = { ...base } as Record<string, unknown>;
  for (const [name, value] of Object.entries(above)) {
    const under = merged[name];
    if (value !== undefined) {
      merged[name] = typeof under === "object" && under !== null ? over(under, value as object) : value;
    }
  }
  return merged as Value;
}
