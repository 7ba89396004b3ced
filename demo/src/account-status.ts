/** How an account's state is told to people. */

import type { LinkedAccount } from "@connect-broker/connect";

export type Mood = "good" | "attention" | "paused";

export interface StatusWords {
  mood: Mood;
  label: string;
  /** Why, and what to do about it; null where there is nothing to say. */
  why: string | null;
}

const REASONS: Record<string, string> = {
  invalid_credentials: "The credentials are no longer accepted.",
  token_expired: "The sign-in has expired.",
  insufficient_scope: "The sign-in does not allow everything that is needed.",
};

export function statusOf(account: LinkedAccount, providerName: string): StatusWords {
  if (account.needs_reauth) {
    return { mood: "attention", label: "Needs you to reconnect", why: reason(account) ?? `${providerName} asks for a new sign-in.` };
  }
  switch (account.status) {
    case "active":
      return { mood: "good", label: "Connected", why: null };
    case "suspended":
      return { mood: "paused", label: "Suspended", why: reason(account) ?? "Data is not being read at the moment. Contact us to resume." };
    case "inactive":
      return { mood: "paused", label: "Inactive", why: reason(account) ?? "This connection is switched off." };
    case "archived":
      return { mood: "paused", label: "Archived", why: reason(account) ?? "This connection is kept for the record only." };
    default:
      return account.usable
        ? { mood: "good", label: "Connected", why: reason(account) }
        : { mood: "attention", label: "Not working", why: reason(account) ?? "Reconnecting may help." };
  }
}

function reason(account: LinkedAccount): string | null {
  const words = account.status_reasons.map(
    (found) => found.description ?? (found.code ? REASONS[found.code] : null) ?? null,
  );
  const text = words.filter((word) => word !== null).join(" ");
  if (text === "") return null;
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const STEPS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

/** Says how long ago something was. */
export function ago(moment: string, now = Date.now()): string {
  const seconds = (Date.parse(moment) - now) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= size) return RELATIVE.format(Math.round(seconds / size), unit);
  }
  return "just now";
}
