import { useEffect, useRef, useState } from "react";
import { ConnectProblem, describe, type Connect, type LinkedAccount } from "@connect-broker/connect";
import en from "@connect-broker/connect/locales/en";

interface DisconnectDialogProps {
  connect: Connect;
  account: LinkedAccount;
  name: string;
  onKeep: () => void;
  /** False: accepted, and finished by the broker a little later. */
  onGone: (isDone: boolean) => void;
}

export function DisconnectDialog({ connect, account, name, onKeep, onGone }: DisconnectDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const life = useRef<AbortController | null>(null);
  const [isWorking, setIsWorking] = useState(false);
  const [problem, setProblem] = useState<ConnectProblem | null>(null);

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
      onGone(await connect.disconnect(account.account_id, { signal }));
    } catch (error) {
      if (signal.aborted) return;
      const found = error instanceof ConnectProblem ? error : new ConnectProblem("broken");
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
          <b>{describe(problem, en).title}.</b> {describe(problem, en).text}
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
