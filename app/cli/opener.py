"""How a command opens the broker: settings, quiet logs on which no secret can show, and a Runtime."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from rich.console import Console

from app.logs import configure_logs
from app.runtime import Runtime, open_runtime
from app.settings import Settings, load_settings

Result = TypeVar("Result")

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def configured_secrets(settings: Settings) -> list[str]:
    """List every secret of the settings, for the log redactor to know by heart."""
    found = [
        settings.stackone.api_key,
        *settings.stackone.webhook_secrets,
        settings.service_keys.pepper,
        *settings.service_keys.previous_peppers,
        *(
            issuer.secret
            for issuer in (*settings.identity.issuers, *settings.identity.machine_issuers)
            if issuer.secret
        ),
        *(destination.secret for destination in settings.push.destinations),
    ]
    storage_password = urlsplit(settings.limits.storage_url.get_secret_value()).password
    return [*(secret.get_secret_value() for secret in found), *([storage_password] if storage_password else [])]


def with_runtime(work: Callable[[Runtime], Awaitable[Result]]) -> Result:
    """Run `work(runtime)` on an opened Runtime."""
    settings = load_settings()
    configure_logs("ERROR", configured_secrets(settings))

    async def run() -> Result:
        async with open_runtime(settings) as runtime:
            return await work(runtime)

    return asyncio.run(run())
