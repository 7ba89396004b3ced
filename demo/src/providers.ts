/** How providers are shown: the broker's catalogue says what may be connected, and by which name. */

import type { Connect, Connector } from "@connect-broker/connect";
import { useEffect, useState } from "react";

export interface Provider {
  key: string;
  name: string;
  what: string;
  logo: string | null;
}

const CATEGORIES: Record<string, string> = {
  hris: "Employees and time off",
  crm: "Contacts and accounts",
  ats: "Jobs and candidates",
  lms: "Courses and learning",
  iam: "Users and access",
};

/** Returns what may be connected, or null until it is known. */
export function useCatalogue(connect: Connect): readonly Connector[] | null {
  const [catalogue, setCatalogue] = useState<readonly Connector[] | null>(null);
  useEffect(() => {
    const life = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const read = () =>
      connect.connectors({ signal: life.signal }).then(setCatalogue, () => {
        if (!life.signal.aborted) timer = setTimeout(read, 5_000);
      });
    void read();
    return () => {
      life.abort();
      clearTimeout(timer);
    };
  }, [connect]);
  return catalogue;
}

/** Returns how to show a provider; one that is not in the catalogue gets a readable name. */
export function providerFor(key: string, catalogue: readonly Connector[] | null): Provider {
  const known = catalogue?.find((connector) => connector.key === key);
  const name = key.replace(/[_-]+/g, " ").replace(/\b\w/g, (letter) => letter.toUpperCase());
  return {
    key,
    name: known?.label ?? name,
    what: known?.categories.map((category) => CATEGORIES[category] ?? category.toUpperCase()).join(", ") ?? "",
    logo: known?.logo_url ?? null,
  };
}
