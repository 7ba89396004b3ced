/** How providers are shown: by the names and logos of the broker's catalogue, which is read once for the whole page. */

import type { Connector } from "./client.js";
import type { Connect } from "./connect.js";

export type Catalogue = ReadonlyMap<string, Connector>;

// By what every copy of one `Connect` shares.
const asked = new WeakMap<object, Promise<Catalogue>>();

/** Reads the catalogue; what failed is asked for again by the next who needs it. */
export function catalogueOf(connect: Pick<Connect, "connections" | "connectors">): Promise<Catalogue> {
  const key = connect.connections;
  let found = asked.get(key);
  if (!found) {
    found = connect.connectors().then((connectors) => new Map(connectors.map((connector) => [connector.key, connector])));
    asked.set(key, found);
    found.catch(() => asked.delete(key));
  }
  return found;
}

/** A provider's name; a readable one from its key where the catalogue has none, or is not known yet. */
export function nameOf(provider: string, catalogue: Catalogue | null): string {
  const known = catalogue?.get(provider)?.label;
  return known ?? provider.replace(/[_-]+/g, " ").replace(/\b\w/g, (letter) => letter.toUpperCase());
}
