import { ago, statusOf } from "./account-status";
import type { LinkedAccount } from "@connect-broker/connect";
import { ProviderIcon } from "./ProviderIcon";
import type { Provider } from "./providers";

interface AccountRowProps {
  account: LinkedAccount;
  provider: Provider;
  /** What was done with it a moment ago. */
  news: "connected" | "reconnected" | null;
  isLeaving: boolean;
  onReconnect: () => void;
  onDisconnect: () => void;
}

export function AccountRow({ account, provider, news, isLeaving, onReconnect, onDisconnect }: AccountRowProps) {
  const status = statusOf(account, provider.name);
  const title = account.label ? `${provider.name} · ${account.label}` : provider.name;
  const by = account.username ? `by ${account.username}, ` : "";
  const facts =
    news === "reconnected" ? "Reconnected, just now" : `Connected ${by}${account.created_at ? ago(account.created_at) : ""}`;
  return (
    <li className={`account ${status.mood} ${news ? "is-new" : ""}`} data-account={account.account_id}>
      <ProviderIcon provider={provider} />
      <div className="account-text">
        <h3>{title}</h3>
        <p className="facts">{facts}</p>
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
