/** What people read. Replace or translate this file; the rest of the folder holds no sentence. */

import type { Notice } from "./flow";
import type { ConnectProblem, ProblemKind } from "./problems";

export interface Words {
  title: string;
  text: string;
  /** What the button says that tries again. */
  again: string;
}

const PROBLEMS: Record<ProblemKind, Words> = {
  signed_out: {
    title: "You have been signed out",
    text: "Sign in again to go on. Nothing was lost.",
    again: "Sign in",
  },
  forbidden: {
    title: "You may not connect this",
    text: "Your organisation’s rules do not allow it. An administrator can change that.",
    again: "Try again",
  },
  not_found: {
    title: "This connection is gone",
    text: "It was disconnected, perhaps by a colleague. You can connect it anew from the list.",
    again: "Try again",
  },
  conflict: {
    title: "Something changed meanwhile",
    text: "A colleague may be connecting the same thing right now. Look at the list, then try again.",
    again: "Try again",
  },
  invalid: {
    title: "This page asked for something impossible",
    text: "That is our mistake, not yours. Reload the page; if it happens again, tell us.",
    again: "Try again",
  },
  too_many: {
    title: "Too many tries in a short time",
    text: "Please wait a moment.",
    again: "Try now",
  },
  unavailable: {
    title: "Connecting is not possible right now",
    text: "The service behind it is not answering. Nothing was lost, and what is connected already stays connected.",
    again: "Try now",
  },
  misconfigured: {
    title: "This is not set up correctly on our side",
    text: "We have to fix it; trying again will not help. Nothing was lost.",
    again: "Try again",
  },
  broken: {
    title: "Something went wrong on our side",
    text: "Nothing was lost. Try again; if it keeps happening, tell us.",
    again: "Try again",
  },
  offline: {
    title: "We cannot reach our service",
    text: "Check your internet connection. We keep trying.",
    again: "Try now",
  },
  too_slow: {
    title: "The answer takes too long",
    text: "Your connection or our service is slow at the moment. We keep trying.",
    again: "Try now",
  },
  not_saved: {
    title: "Your changes were not saved",
    text: "The form may have said otherwise, but nothing has changed on the connection. Please enter your details again.",
    again: "Try again",
  },
  not_confirmed: {
    title: "We could not confirm the connection",
    text: "The form reported success, but we cannot find the connection. If it does not show up in the list within a minute, try again.",
    again: "Try again",
  },
  refused: {
    title: "The connection form does not open",
    text: "It was refused several times in a row. Wait a minute and try again.",
    again: "Try again",
  },
  hub_crashed: {
    title: "The connection form could not be shown",
    text: "Reload the page. If that does not help, allow this site to store data in your browser.",
    again: "Try again",
  },
};

/** Says what went wrong; the broker's own words go first where it sent some meant for people. */
export function describe(problem: ConnectProblem): Words {
  const words = PROBLEMS[problem.kind];
  const speaksForItself = problem.kind === "forbidden" || problem.kind === "conflict";
  return speaksForItself && problem.detail !== null ? { ...words, text: sentence(problem.detail) } : words;
}

export const NOTICES: Record<Notice, string> = {
  renewed: "The form had expired, so here is a fresh one. Please enter your details again.",
  expiring: "This form is about to expire. Finish now, or a fresh one will be opened for you.",
  linked_elsewhere: "A connection has just been completed, perhaps in another window.",
};

export const LABELS = {
  opening: "Opening a secure connection form…",
  openingSlowly: "Still opening. This is taking longer than usual…",
  confirming: "Checking that everything was saved…",
  confirmingSlowly: "Still checking. This is taking longer than usual…",
  finish: "Use this connection",
  reference: "Reference for support",
  retryIn: (seconds: number) => `Trying again by itself in ${seconds} s.`,
};

function sentence(text: string): string {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}
