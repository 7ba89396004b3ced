import { ago, statusOf } from "./account-status";
import type { LinkedAccount } from "./connect";
import { ProviderIcon } from "./ProviderIcon";
import { providerFor } from "./providers";

interface AccountRowProps {
  account: LinkedAccount;
  isNew: boolean;
  isLeaving: boolean;
  onReconnect: () => void;
  onDisconnect: () => void;
}

export function AccountRow({ account, isNew, isLeaving, onReconnect, onDisconnect }: AccountRowProps) {
  const provider = providerFor(account.provider);
  const status = statusOf(account, provider.name);
  const title = account.label ? `${provider.name} · ${account.label}` : provider.name;
  const facts = [
    account.username ? `by ${account.username}` : null,
    account.created_at ? ago(account.created_at) : null,
  ].filter((fact) => fact !== null);
  return (
    <li className={`account ${status.mood} ${isNew ? "is-new" : ""}`} data-account={account.account_id}>
      <ProviderIcon provider={provider} />
      <div className="account-text">
        <h3>{title}</h3>
        <p className="facts">Connected {facts.join(", ")}</p>
      </div>
      <p className={`status ${status.mood}`}>{isLeaving ? "Disconnecting…" : status.label}</p>
      {status.why !== null && !isLeaving && <p className="why">{status.why}</p>}
      <div className="actions">
        <button
          type="button"
          className={status.mood === "attention" ? "primary" : "quiet"}
          aria-label={`Reconnect ${title}`}
          disabled={isLeaving}
          onClick={onReconnect}
        >
          Reconnect
        </button>
        <button
          type="button"
          className="quiet danger"
          aria-label={`Disconnect ${title}`}
          disabled={isLeaving}
          onClick={onDisconnect}
        >
          Disconnect
        </button>
      </div>
    </li>
  );
}
