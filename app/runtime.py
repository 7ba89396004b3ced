"""Runtime: what one process shares. Opened by the web app, by the command line and by tests alike."""

import asyncio
import base64
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from app.clock import Clock, SystemClock
from app.db.database import Database
from app.db.engine import open_engine
from app.identity.authenticate import Authenticator, open_authenticator
from app.identity.tokens.oidc import Transport as IssuerTransport
from app.limits import Limiter, key_of, open_limiter
from app.metrics import Metrics
from app.outbound import open_transport
from app.policy.file import read_policy
from app.policy.rules import Policy
from app.settings import Settings
from app.stackone.auth_configs import AuthConfigs
from app.stackone.budget import Budget
from app.stackone.call import Transport as StackOneTransport
from app.stackone.client import StackOneClient
from app.stackone.unknown_ids import UnknownIds

_ID_BYTES = 16


@dataclass(frozen=True)
class Externals:
    """What lies outside the process; tests put their own in its place."""

    clock: Clock = field(default_factory=SystemClock)
    token_bytes: Callable[[int], bytes] = secrets.token_bytes
    jitter: random.Random = field(default_factory=random.Random)
    stackone_transport: StackOneTransport | None = None
    identity_transport: IssuerTransport | None = None


@dataclass(frozen=True)
class Runtime:
    """Everything a request or a command may need."""

    settings: Settings
    clock: Clock
    token_bytes: Callable[[int], bytes]
    jitter: random.Random
    metrics: Metrics
    policy: Policy
    database: Database
    stackone: StackOneClient
    auth_configs: AuthConfigs
    unknown_ids: UnknownIds
    authenticator: Authenticator
    limiter: Limiter
    account_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an account becomes due in this process: its refresh job then starts at once."""
    sweep_requested: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a sweep is requested in this process."""
    waiting: Counter[str] = field(default_factory=Counter)
    """How many requests wait for events, by credential."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this process is to end: requests that only wait for events are then answered at once."""

    def new_id(self, prefix: str) -> str:
        """Return a fresh unguessable id: the prefix and 128 random bits."""
        return f"{prefix}_{base64.urlsafe_b64encode(self.token_bytes(_ID_BYTES)).rstrip(b'=').decode()}"


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    externals: Externals | None = None,
    *,
    metrics: Metrics | None = None,
    policy: Policy | None = None,
) -> AsyncIterator[Runtime]:
    """Open the Runtime, and close it at the end of the block. Nothing connects before it is used.

    Raises SettingsError for a policy file or an issuer's key that cannot be used.
    """
    world = externals or Externals()
    metrics = metrics or Metrics()
    async with AsyncExitStack() as stack:
        database = Database(open_engine(settings.database), metrics)
        stack.push_async_callback(database.close)
        limiter = await stack.enter_async_context(
            open_limiter(settings.limits, settings.tls, clock=world.clock, metrics=metrics)
        )
        budget = Budget(
            settings.stackone.requests_per_minute,
            clock=world.clock,
            metrics=metrics,
            shared=limiter.shared,
            shared_key=key_of(settings.stackone.api_key.get_secret_value()),
        )
        stackone = StackOneClient(
            settings.stackone,
            clock=world.clock,
            metrics=metrics,
            budget=budget,
            transport=world.stackone_transport
            or open_transport(settings.tls, max_connections=settings.stackone.max_connections),
        )
        stack.push_async_callback(stackone.close)
        authenticator = await stack.enter_async_context(
            open_authenticator(
                settings.identity,
                settings.service_keys,
                settings.http,
                database=database,
                clock=world.clock,
                transport=world.identity_transport or open_transport(settings.tls, max_connections=20, max_kept=5),
            )
        )
        yield Runtime(
            settings=settings,
            clock=world.clock,
            token_bytes=world.token_bytes,
            jitter=world.jitter,
            metrics=metrics,
            policy=policy or read_policy(settings.policy_file),
            database=database,
            stackone=stackone,
            auth_configs=AuthConfigs(stackone, world.clock),
            unknown_ids=UnknownIds(world.clock),
            authenticator=authenticator,
            limiter=limiter,
        )
