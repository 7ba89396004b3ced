/** What people read: the shape that every locale fills. */

import type { Notice } from "./flow.js";
import type { ConnectProblem, ProblemKind } from "./problems.js";

export interface ProblemWords {
  title: string;
  text: string;
  /** What the button says that tries again. */
  again: string;
}

/** Every word that the package shows. What stands in braces is filled in. */
export interface Words {
  problems: Record<ProblemKind, ProblemWords>;
  notices: Record<Notice, string>;
  opening: string;
  openingSlowly: string;
  confirming: string;
  confirmingSlowly: string;
  finish: string;
  reference: string;
  retryIn: string;
  connect: string;
  connectAny: string;
  reconnect: string;
  disconnect: string;
  close: string;
  connections: string;
  loading: string;
  empty: string;
  by: string;
  connectedNow: string;
  reconnectedNow: string;
  connectedAgo: string;
  disconnecting: string;
  isDisconnected: string;
  disconnectTitle: string;
  disconnectText: string;
  keep: string;
  needsReauth: string;
  notUsable: string;
  statuses: Record<string, string>;
}

/** Says what went wrong; the broker's own words go first where it sent some meant for people. */
export function describe(problem: ConnectProblem, words: Words): ProblemWords {
  const found = words.problems[problem.kind];
  const speaksForItself = problem.kind === "forbidden" || problem.kind === "conflict";
  return speaksForItself && problem.detail !== null ? { ...found, text: sentence(problem.detail) } : found;
}

function sentence(text: string): string {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}
