import type { Connector } from "@connect-broker/connect";
import { useEffect, useRef, useState, type FormEvent } from "react";
import { invite } from "./product";
import { USERS, type DemoUser } from "./users";

interface InviteDialogProps {
  user: DemoUser;
  catalogue: readonly Connector[];
  onClose: () => void;
}

export function InviteDialog({ user, catalogue, onClose }: InviteDialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const link = useRef<HTMLInputElement>(null);
  const life = useRef<AbortController | null>(null);
  const colleagues = USERS.filter(({ id, organisation }) => organisation === user.organisation && id !== user.id);
  const [colleague, setColleague] = useState<string>(colleagues[0]?.id ?? "");
  const [provider, setProvider] = useState("");
  const [url, setUrl] = useState<string | null>(null);
  const [news, setNews] = useState<string | null>(null);

  useEffect(() => {
    const shown = dialog.current;
    life.current = new AbortController();
    if (shown && !shown.open) shown.showModal();
    return () => life.current?.abort();
  }, []);
  useEffect(() => link.current?.select(), [url]);

  function make(event: FormEvent) {
    event.preventDefault();
    const signal = life.current?.signal;
    if (!signal) return;
    setNews(null);
    invite(user, { colleague: colleague || null, provider: provider || null }, signal).then(
      (made) => !signal.aborted && setUrl(made),
      () => !signal.aborted && setNews("The link could not be made. Try again in a moment."),
    );
  }

  const copy = () =>
    navigator.clipboard.writeText(url ?? "").then(
      () => setNews("Copied."),
      () => setNews("Your browser does not let this page copy. Select the link and copy it."),
    );
  const name = colleagues.find(({ id }) => id === colleague)?.name;
  return (
    <dialog ref={dialog} aria-labelledby="invite-title" onClose={onClose}>
      <h2 id="invite-title">Invite a colleague</h2>
      {url === null ? (
        <form onSubmit={make}>
          <label>
            Who
            <select value={colleague} onChange={(event) => setColleague(event.target.value)}>
              {colleagues.map(({ id, name }) => (
                <option key={id} value={id}>
                  {name}
                </option>
              ))}
              <option value="">Anybody at {user.organisation}</option>
            </select>
          </label>
          <label>
            What
            <select value={provider} onChange={(event) => setProvider(event.target.value)}>
              <option value="">Whatever they choose</option>
              {catalogue
                .filter(({ picker_only }) => !picker_only)
                .map(({ key, label }) => (
                  <option key={key} value={key}>
                    {label}
                  </option>
                ))}
            </select>
          </label>
          <div className="dialog-actions">
            <button type="button" onClick={() => dialog.current?.close()}>
              Cancel
            </button>
            <button type="submit" className="primary">
              Make a link
            </button>
          </div>
        </form>
      ) : (
        <>
          <p>Send this link. It opens nothing for anybody but {name ?? `the people of ${user.organisation}`}.</p>
          <input ref={link} readOnly value={url} aria-label="Link" />
          <div className="dialog-actions">
            <button type="button" onClick={() => void copy()}>
              Copy
            </button>
            <button type="button" className="primary" onClick={() => dialog.current?.close()}>
              Done
            </button>
          </div>
        </>
      )}
      <p role="status">{news}</p>
    </dialog>
  );
}
