"""What `broker-demo` prints once everything runs: for people, or one line of JSON for programs."""

import json
from dataclasses import dataclass

from sandbox.identity.provider import USERS, IdentityProvider, TokenOrder
from sandbox.launch.ports import Ports
from sandbox.launch.secrets_file import DemoSecrets
from sandbox.serving import url_of


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything that somebody needs to try the demo or to test against it."""

    ports: Ports
    secrets: DemoSecrets
    identity: IdentityProvider
    has_page: bool
    service_key: str
    database_url: str
    log: str

    def to_json(self) -> str:
        """Return one line of JSON."""
        page = url_of(self.ports.identity)
        users = {
            name: {"owner_id": user.org_id, "token": self.identity.mint(TokenOrder(user=user))}
            for name, user in USERS.items()
        }
        return json.dumps(
            {
                "broker": self.ports.broker_url,
                "metrics": self.ports.metrics_url,
                "stackone": url_of(self.ports.stackone),
                "idp": page,
                "page": page if self.has_page else None,
                "provider": url_of(self.ports.provider),
                "users": users,
                "service_key": self.service_key,
                "stackone_api_key": self.secrets.stackone_api_key,
                "webhook_secret": self.secrets.webhook_secret,
                "sandbox_key": self.secrets.sandbox_key,
                "database_url": self.database_url,
            }
        )

    def to_text(self) -> str:
        """Return lines for a terminal; the last one is `ready`."""
        broker, stackone = self.ports.broker_url, url_of(self.ports.stackone)
        identity = url_of(self.ports.identity)
        token = self.identity.mint(TokenOrder(user=USERS["alice"]))
        page = identity if self.has_page else "not built: install Node 20.19 or newer and run `make demo` again"
        return f"""
page      {page}
broker    {broker}  (API docs: {broker}/docs)
metrics   {self.ports.metrics_url}
stackone  {stackone}  (emulator)
idp       {identity}/.well-known/openid-configuration
provider  {url_of(self.ports.provider)}  (OAuth consent page)
database  {_without_password(self.database_url)}
log       {self.log}

Mint a connect-session token as alice of Acme Inc (her token lasts an hour):
  curl -X POST {broker}/v1/connect-sessions -H 'content-type: application/json' -d '{{"provider":"bamboohr"}}' \\
    -H 'authorization: Bearer {token}'

Link an account as if somebody did it elsewhere, and watch it arrive through a signed webhook:
  curl -X POST {stackone}/_sandbox/accounts -H 'x-sandbox-key: {self.secrets.sandbox_key}' \\
    -H 'content-type: application/json' \\
    -d '{{"provider":"workday","origin_owner_id":"org_acme","origin_owner_name":"Acme Inc"}}'
  curl {broker}/v1/owners/org_acme/linked-accounts -H 'authorization: Bearer {self.service_key}'

Ctrl-C stops everything.
ready"""


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
