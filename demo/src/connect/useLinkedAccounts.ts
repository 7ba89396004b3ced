import { useCallback, useEffect, useRef, useState } from "react";
import type { BrokerClient, LinkedAccount } from "./client";
import { ConnectProblem } from "./problems";

const CHANNEL = "connect-broker-accounts";

export interface LinkedAccounts {
  /** Null until the first answer; kept while later ones fail. */
  accounts: LinkedAccount[] | null;
  problem: ConnectProblem | null;
  /** Reads the list now, and has the user's other tabs do the same. */
  changed: () => void;
  reload: () => void;
}

/** The list, kept fresh: what others link (an auth link, a colleague, another tab) shows up by itself. */
export function useLinkedAccounts(client: BrokerClient, everyMs = 10_000): LinkedAccounts {
  const [accounts, setAccounts] = useState<LinkedAccount[] | null>(null);
  const [problem, setProblem] = useState<ConnectProblem | null>(null);
  const reloadRef = useRef(() => {});
  const announceRef = useRef(() => {});

  useEffect(() => {
    const life = new AbortController();
    let reading = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;

    async function read() {
      clearTimeout(timer);
      reading.abort();
      const mine = (reading = new AbortController());
      const signal = AbortSignal.any([life.signal, mine.signal]);
      try {
        const answer = await client.linkedAccounts(signal);
        if (signal.aborted) return;
        setAccounts(answer);
        setProblem(null);
      } catch (error) {
        if (signal.aborted) return;
        setProblem(error instanceof ConnectProblem ? error : new ConnectProblem("broken"));
      }
      // A broker that is away comes back; a token that is refused does not.
      timer = setTimeout(readIfVisible, everyMs);
    }

    function readIfVisible() {
      if (document.visibilityState !== "hidden") void read();
    }

    const tabs = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(CHANNEL);
    tabs?.addEventListener("message", () => void read());
    window.addEventListener("focus", readIfVisible, { signal: life.signal });
    window.addEventListener("online", readIfVisible, { signal: life.signal });
    document.addEventListener("visibilitychange", readIfVisible, { signal: life.signal });
    reloadRef.current = () => void read();
    announceRef.current = () => tabs?.postMessage("changed");
    void read();
    return () => {
      life.abort();
      reading.abort();
      clearTimeout(timer);
      tabs?.close();
      reloadRef.current = () => {};
      announceRef.current = () => {};
    };
  }, [client, everyMs]);

  return {
    accounts,
    problem,
    reload: useCallback(() => reloadRef.current(), []),
    changed: useCallback(() => {
      reloadRef.current();
      announceRef.current();
    }, []),
  };
}
