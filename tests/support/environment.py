"""The environment in which the broker's own commands work on a test's world."""

import json
import os

from tests.support.world import API_KEY, PEPPER, WEBHOOK_SECRET, World


def environment_of(world: World) -> dict[str, str]:
    """Spell a world's settings out as a process reads them."""
    settings = world.settings
    issuers = [issuer.model_dump(mode="json", exclude_defaults=True) for issuer in settings.identity.issuers]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BROKER_")},
        "BROKER_ENVIRONMENT": "development",
        "BROKER_HTTP__DRAIN_SECONDS": "0",
        "BROKER_STACKONE__API_KEY": API_KEY,
        "BROKER_STACKONE__BASE_URL": settings.stackone.base_url,
        "BROKER_STACKONE__WEBHOOK_SECRETS": json.dumps([WEBHOOK_SECRET]),
        "BROKER_DATABASE__URL": settings.database.url.get_secret_value(),
        "BROKER_IDENTITY__ISSUERS": json.dumps(issuers),
        "BROKER_SERVICE_KEYS__PEPPER": PEPPER,
    }
