/** What the demo's page asks of its product's own backend. Yours does it as docs/invitations.md says. */

import { tokenSource, type DemoUser } from "./users";

export interface Banner {
  account_id: string;
  provider: string;
  url: string;
}

/** Returns what is broken and this user can repair. */
export async function readBanners(user: DemoUser, signal: AbortSignal): Promise<Banner[]> {
  return (await ask(user, "GET", "/demo/banners", signal)) as Banner[];
}

/** Makes a link with which a colleague connects a tool; without one, anybody of the same organisation. */
export async function invite(
  user: DemoUser,
  given: { colleague: string | null; provider: string | null },
  signal: AbortSignal,
): Promise<string> {
  return ((await ask(user, "POST", "/demo/invitations", signal, given)) as { url: string }).url;
}

async function ask(user: DemoUser, method: string, path: string, signal: AbortSignal, body?: object): Promise<unknown> {
  const token = await tokenSource(user)({ renew: false, signal });
  const response = await fetch(path, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    signal,
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}
