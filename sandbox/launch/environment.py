"""The settings that the broker of the demo runs with: the same ones that production uses, spelled out."""

import json
import os
from collections.abc import Mapping

from sandbox.launch.options import DemoOptions
from sandbox.launch.ports import Ports
from sandbox.launch.secrets_file import DemoSecrets
from sandbox.serving import LOOPBACK, url_of

AUDIENCE = "connect-broker"
PROJECT_ID = "connect-sandbox-10427"

# What a Python program needs from its surroundings. Settings of a real broker must not leak in.
_INHERITED = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT"})
_INHERITED_PREFIXES = ("PYTHON", "COVERAGE_", "VIRTUAL_ENV")


def database_url(options: DemoOptions) -> str:
    """Return the database of the demo: the one given, or a file in the state folder."""
    return options.database_url or f"sqlite:///{options.directory / 'broker.db'}"


def broker_environment(
    options: DemoOptions, ports: Ports, secrets: DemoSecrets, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the whole environment of the broker's process. Raises DemoError for a malformed --broker-env."""
    surroundings = {
        name: value for name, value in inherited.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    page = url_of(ports.identity)
    issuer = {
        "issuer": page,
        "audiences": [AUDIENCE],
        "algorithms": ["RS256"],
        "claims": {"owner_id": "org_id", "owner_name": "org_name", "username": "email"},
    }
    settings = {
        "BROKER_ENVIRONMENT": "development",
        "BROKER_HTTP__DRAIN_SECONDS": "0",
        "BROKER_HTTP__HOST": LOOPBACK,
        "BROKER_HTTP__PORT": str(ports.broker),
        "BROKER_METRICS__PORT": str(ports.metrics),
        "BROKER_HTTP__ALLOWED_ORIGINS": json.dumps([page]),
        "BROKER_STACKONE__API_KEY": secrets.stackone_api_key,
        "BROKER_STACKONE__BASE_URL": url_of(ports.stackone),
        "BROKER_STACKONE__WEBHOOK_SECRETS": json.dumps([secrets.webhook_secret]),
        "BROKER_STACKONE__PROJECT_ID": PROJECT_ID,
        "BROKER_DATABASE__URL": database_url(options),
        "BROKER_SERVICE_KEYS__PEPPER": secrets.pepper,
        "BROKER_IDENTITY__ISSUERS": json.dumps([issuer]),
        "BROKER_USER_TOKENS__SECRETS": json.dumps([secrets.user_token_secret]),
        "BROKER_INVITATIONS__PAGE_URL": page,
        "BROKER_INVITATIONS__SECRETS": json.dumps([secrets.invitation_secret]),
    }
    return {**surroundings, **settings, **options.extra_environment()}
