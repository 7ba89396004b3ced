"""The sandbox under test."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import httpx2
import pytest

from sandbox.identity import IdentityConfig, IdentityProvider, create_identity_provider
from sandbox.provider import create_provider
from sandbox.serving import bind, serving
from sandbox.stackone import Project, StackOneConfig, create_stackone
from tests.sandbox.look import (
    API_KEY,
    OWN_URL,
    PROVIDER_URL,
    SANDBOX_KEY,
    WEBHOOK_SECRET,
    Idp,
    Look,
    Receiver,
    StandingClock,
)


@pytest.fixture(scope="session")
async def shared_look() -> AsyncIterator[Look]:
    """Start the emulator once; `look` puts it back to its beginning before each test."""
    config = StackOneConfig(
        api_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        sandbox_key=SANDBOX_KEY,
        webhook_url="http://broker.test/hooks",
        own_url=OWN_URL,
        provider_url=PROVIDER_URL,
        retry_delays=(0, 0),
    )
    clock, receiver = StandingClock(), Receiver()
    project = Project(config, clock=clock, webhook_transport=httpx2.ASGITransport(receiver))
    app = create_stackone(project)
    over = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app):
        yield Look(
            project=project,
            clock=clock,
            receiver=receiver,
            api=httpx2.AsyncClient(transport=over, base_url=OWN_URL, auth=(API_KEY, "")),
            switch=httpx2.AsyncClient(transport=over, base_url=OWN_URL, headers={"x-sandbox-key": SANDBOX_KEY}),
            browser=httpx2.AsyncClient(transport=over, base_url=OWN_URL),
            over=over,
            provider=httpx2.AsyncClient(
                transport=httpx2.ASGITransport(create_provider(project.provider)), base_url=PROVIDER_URL
            ),
        )


@pytest.fixture
def look(shared_look: Look) -> Look:
    shared_look.project.reset()
    shared_look.project.requests.hook = None
    shared_look.clock.now = StandingClock().now
    for kept in (shared_look.receiver.bodies, shared_look.receiver.signatures, shared_look.receiver.answers):
        kept.clear()
    return shared_look


@pytest.fixture(scope="module")
async def on_the_wire(shared_look: Look) -> AsyncIterator[str]:
    """Serve the same project on a real socket, without a second deliverer."""
    async with serving(create_stackone(shared_look.project), bind(0), lifespan="off") as url:
        yield url


@pytest.fixture(scope="session")
def make_idp() -> Callable[..., Idp]:
    def make(clock: Callable[[], datetime], **changes: Any) -> Idp:
        config = IdentityConfig(sandbox_key=SANDBOX_KEY, own_url="http://idp.test", **changes)
        provider = IdentityProvider(config, clock=clock)
        over = httpx2.ASGITransport(create_identity_provider(provider))
        return Idp(
            provider=provider,
            switch=httpx2.AsyncClient(
                transport=over, base_url="http://idp.test", headers={"x-sandbox-key": SANDBOX_KEY}
            ),
            browser=httpx2.AsyncClient(transport=over, base_url="http://idp.test"),
        )

    return make
