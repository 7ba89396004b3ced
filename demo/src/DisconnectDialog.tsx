import { useEffect, useRef, useState } from "react";
import { ConnectProblem, describe, type BrokerClient, type LinkedAccount } from "./connect";
import { providerFor } from "./providers";

interface DisconnectDialogProps {
  client: BrokerClient;
  account: LinkedAccount;
  onKeep: () => void;
  /** False: accepted, and finished by the broker a little later. */
  onGone: (isDone: boolean) => void;
}

export function DisconnectDialog({ client, account, onKeep, onGone }: DisconnectDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const life = useRef<AbortController | null>(null);
  const [isWorking, setIsWorking] = useState(false);
  const [problem, setProblem] = useState<ConnectProblem | null>(null);
  const { name } = providerFor(account.provider);

  useEffect(() => {
    const shown = dialog.current;
    life.current = new AbortController();
    if (shown && !shown.open) shown.showModal();
    return () => life.current?.abort();
  }, []);

  async function disconnect() {
    const signal = life.current?.signal;
    if (!signal || isWorking) return;
    setIsWorking(true);
    setProblem(null);
    try {
      onGone(await client.disconnect(account.account_id, signal));
    } catch (error) {
      if (signal.aborted) return;
      const found = error instanceof ConnectProblem ? error : new ConnectProblem("broken");
      // Somebody else was faster; the outcome is the one that was asked for.
      if (found.kind === "not_found") return onGone(true);
      setProblem(found);
      setIsWorking(false);
    }
  }

  return (
    <dialog ref={dialog} aria-labelledby="disconnect-title" aria-describedby="disconnect-text" onClose={onKeep}>
      <h2 id="disconnect-title">Disconnect {name}?</h2>
      <p id="disconnect-text">
        Fieldnote stops reading from {name} for everybody in your organisation. You can connect it again at any time,
        with your credentials at hand.
      </p>
      {problem !== null && (
        <p className="banner problem" role="alert">
          <b>{describe(problem).title}.</b> {describe(problem).text}
        </p>
      )}
      <div className="dialog-actions">
        <button type="button" autoFocus onClick={() => dialog.current?.close()}>
          Keep it
        </button>
        <button type="button" className="danger-solid" disabled={isWorking} onClick={() => void disconnect()}>
          {isWorking ? "Disconnecting…" : "Disconnect"}
        </button>
      </div>
    </dialog>
  );
}
