/** The demo's own sign-in. In your product this is your identity provider's library. */

import { ConnectProblem } from "@connect-broker/connect";

export interface DemoUser {
  id: "alice" | "bob" | "carol";
  name: string;
  organisation: string;
  note: string;
}

export const USERS: readonly DemoUser[] = [
  { id: "alice", name: "Alice", organisation: "Acme Inc", note: "Runs people operations" },
  { id: "carol", name: "Carol", organisation: "Acme Inc", note: "Same company as Alice, so she sees the same connections" },
  { id: "bob", name: "Bob", organisation: "Globex Corp", note: "Another company: he never sees Acme’s" },
];

const RENEW_BEFORE_MS = 60_000;

/** Keeps a user's access token in memory, and replaces it before it runs out or when it was refused. */
export function tokenSource(user: DemoUser) {
  let token = "";
  let goodUntil = 0;

  return async ({ renew, signal }: { renew: boolean; signal: AbortSignal }): Promise<string> => {
    if (!renew && Date.now() < goodUntil) return token;
    const unreachable = (cause: unknown) => {
      signal.throwIfAborted();
      throw new ConnectProblem("offline", { cause });
    };
    const response = await fetch("/demo/sign-in", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ user: user.id }),
      signal,
    }).catch(unreachable);
    if (response.status === 401 || response.status === 403) throw new ConnectProblem("signed_out");
    if (!response.ok) throw new ConnectProblem("unavailable");
    const answer = (await response.json()) as { token: string; expires_in: number };
    token = answer.token;
    goodUntil = Date.now() + answer.expires_in * 1000 - RENEW_BEFORE_MS;
    return token;
  };
}
