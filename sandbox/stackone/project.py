"""One StackOne project, in memory: the whole state of the emulator in one object."""

from dataclasses import dataclass, field, replace

import httpx2

from sandbox.bodies import JsonObject
from sandbox.clock import Clock, Ticker, system_clock
from sandbox.errors import ApiError
from sandbox.faults import Faults
from sandbox.provider import Provider
from sandbox.recording import RequestHook, RequestLog
from sandbox.stackone.account_json import event_payload
from sandbox.stackone.accounts import Account, AccountEvent, Accounts
from sandbox.stackone.attempts import Attempts
from sandbox.stackone.connectors import CONNECTORS, FURTHER_PROFILES, Connector
from sandbox.stackone.decisions import Decisions, Lies
from sandbox.stackone.gate import ApiKey, Limits
from sandbox.stackone.listing import Listing
from sandbox.stackone.sessions import ConnectSession, Sessions
from sandbox.stackone.webhooks import Deliverer, DeliverySettings


@dataclass(frozen=True, kw_only=True)
class StackOneConfig:
    """What a customer of StackOne would set, plus the sandbox's own key."""

    api_key: str
    webhook_secret: str
    sandbox_key: str
    webhook_url: str | None = None
    project_id: str = "connect-sandbox-10427"
    own_url: str = "http://127.0.0.1:8100"
    provider_url: str = "http://127.0.0.1:8300"
    web_component: str | None = None
    retry_delays: tuple[float, ...] = (0.5, 1, 2, 4, 8)
    decisions: Decisions = field(default_factory=Decisions)


class Project:
    """The state behind every route of the emulator."""

    def __init__(
        self,
        config: StackOneConfig,
        *,
        clock: Clock = system_clock,
        provider: Provider | None = None,
        webhook_transport: httpx2.AsyncBaseTransport | None = None,
        on_request: RequestHook | None = None,
    ) -> None:
        """Start with no accounts; `on_request` is called before each request outside /_sandbox."""
        self.config = config
        self.clock = clock
        self.provider = provider or Provider(registered_origin=config.own_url)
        self.api_key = ApiKey(config.api_key)
        self.limits = Limits(clock)
        self.listing = Listing()
        self.auth_configs = _auth_configs()
        self.decisions = config.decisions
        self.lies = Lies()
        self.sessions = Sessions(clock)
        self.attempts = Attempts(clock)
        self.accounts = Accounts(Ticker(clock), self._announce)
        self.faults = Faults()
        self.sandbox_key = config.sandbox_key
        self.requests = RequestLog(hook=on_request)
        self.webhooks = Deliverer(
            DeliverySettings(url=config.webhook_url, secret=config.webhook_secret, retry_delays=config.retry_delays),
            clock=clock,
            transport=webhook_transport,
        )

    def reset(self) -> None:
        """Go back to the state of the start; no event is sent."""
        self.api_key = ApiKey(self.config.api_key)
        self.limits = Limits(self.clock)
        self.listing = Listing()
        self.auth_configs = _auth_configs()
        self.decisions = self.config.decisions
        self.lies = Lies()
        self.sessions.clear()
        self.attempts.clear()
        self.accounts.clear()
        self.faults.clear()
        self.requests.entries.clear()
        self.webhooks.reset()

    def change_auth_config(self, config_id: str, changes: JsonObject) -> Connector:
        """Enable, disable, or make the default one of its provider. Raises ApiError 404."""
        config = self.auth_configs.get(config_id)
        if config is None:
            raise ApiError(404, "No such auth config")
        if changes.get("default"):
            for other in self.auth_configs.values():
                if other.provider == config.provider:
                    self.auth_configs[other.integration_id] = replace(other, default=False)
        self.auth_configs[config_id] = replace(config, **changes)
        return self.auth_configs[config_id]

    def account_edited_by(self, session: ConnectSession) -> Account | None:
        """Return the account that a session edits: the one it names, or the one its create-vs-update key names."""
        if session.account_id is not None:
            return self.accounts.find(session.account_id)
        if session.multiple or session.provider is None:
            return None
        return self.accounts.existing(session.origin_owner_id, session.origin_owner_name, session.provider)

    def connectors_for(self, session: ConnectSession, provider: str | None = None) -> list[Connector]:
        """Return the connectors that a session may open, inactive ones included."""
        edited = self.accounts.find(session.account_id) if session.account_id else None
        providers = {wanted for wanted in (provider, session.provider, edited and edited.provider) if wanted}
        profile = session.connector_profile_id
        return [
            connector
            for connector in self.auth_configs.values()
            if all(connector.provider == wanted for wanted in providers)
            and (not session.categories or connector.category in session.categories)
            and (connector.default if profile is None else connector.integration_id == profile)
        ]

    def _announce(self, event: AccountEvent, account: Account) -> None:
        payload = event_payload(event, account, self.config.project_id, with_owner=self.webhooks.settings.with_owner)
        self.webhooks.emit(payload)


def _auth_configs() -> dict[str, Connector]:
    return {connector.integration_id: connector for connector in (*CONNECTORS, *FURTHER_PROFILES)}
