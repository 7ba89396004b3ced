import { useEffect, useState } from "react";
import type { BrokerClient, SessionStatus } from "./client";
import { ConnectProblem } from "./problems";

/** Follows a session that is completed elsewhere, such as behind an auth link that was sent by e-mail. */
export function useSessionStatus(
  client: BrokerClient,
  sessionId: string | null,
  everyMs = 4_000,
): { status: SessionStatus | null; problem: ConnectProblem | null } {
  const [status, setStatus] = useState<SessionStatus | null>(null);
  const [problem, setProblem] = useState<ConnectProblem | null>(null);

  useEffect(() => {
    setStatus(null);
    setProblem(null);
    if (sessionId === null) return undefined;
    const life = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;

    async function look(id: string) {
      try {
        // An auth link lives for days; a hidden page asks nothing meanwhile.
        const answer = document.visibilityState === "hidden" ? null : await client.sessionStatus(id, life.signal);
        if (life.signal.aborted) return;
        if (answer !== null) {
          setStatus(answer);
          setProblem(null);
          if (answer.status !== "pending") return;
        }
      } catch (error) {
        if (life.signal.aborted) return;
        const found = error instanceof ConnectProblem ? error : new ConnectProblem("broken");
        setProblem(found);
        if (!found.passes) return;
      }
      timer = setTimeout(() => void look(id), everyMs);
    }

    void look(sessionId);
    return () => {
      life.abort();
      clearTimeout(timer);
    };
  }, [client, sessionId, everyMs]);

  return { status, problem };
}
