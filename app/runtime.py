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
from app.db.groups import GroupCommit
from app.db.traced import TracedDatabase, TracedGroups
from app.identity.authenticate import Authenticator, open_authenticator
from app.identity.tokens.oidc import Transport as IssuerTransport
from app.limits import Limiter, key_of, open_limiter
from app.metrics import Metrics
from app.outbound import open_transport, traced
from app.policy.file import read_policy
from app.policy.rules import Policy
from app.settings import Settings
from app.stackone.auth_configs import AuthConfigs
from app.stackone.budget import Budget
from app.stackone.call import Transport as StackOneTransport
from app.stackone.call import operation_of
from app.stackone.client import StackOneClient
from app.stackone.unknown_ids import UnknownIds
from app.stackone.wire import open_wire
from app.traces import OFF, Traces

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
    groups: GroupCommit
    stackone: StackOneClient
    auth_configs: AuthConfigs
    unknown_ids: UnknownIds
    authenticator: Authenticator
    limiter: Limiter
    traces: Traces = OFF
    account_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an account becomes due in this process: its refresh job then starts at once."""
    sweep_requested: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a sweep is requested in this process."""
    waiting: Counter[str] = field(default_factory=Counter)
    """How many requests wait for events, by credential."""
    reading: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Reads of accounts at StackOne that requests wait for, by account: one read serves all of them."""
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
    traces: Traces = OFF,
) -> AsyncIterator[Runtime]:
    """Open the Runtime, and close it at the end of the block. Nothing connects before it is used.

    Raises SettingsError for a policy file or an issuer's key that cannot be used.
    """
    world = externals or Externals()
    metrics = metrics or Metrics()
    async with AsyncExitStack() as stack:
        engine = open_engine(settings.database)
        database = TracedDatabase(engine, metrics, traces) if traces.is_on else Database(engine, metrics)
        stack.push_async_callback(database.close)
        groups = TracedGroups(database, traces) if traces.is_on else GroupCommit(database)
        stack.push_async_callback(groups.close)
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
            transport=traced(
                world.stackone_transport or open_wire(settings.tls, max_connections=settings.stackone.max_connections),
                traces,
                lambda request: operation_of(request.method, request.url.path),
            ),
        )
        stack.push_async_callback(stackone.close)
        authenticator = await stack.enter_async_context(
            open_authenticator(
                settings.identity,
                settings.service_keys,
                settings.http,
                user_tokens=settings.user_tokens,
                database=database,
                clock=world.clock,
                transport=traced(
                    world.identity_transport or open_transport(settings.tls, max_connections=20, max_kept=5),
                    traces,
                    lambda _request: "issuer keys",
                ),
                metrics=metrics,
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
            groups=groups,
            stackone=stackone,
            auth_configs=AuthConfigs(stackone, world.clock),
            unknown_ids=UnknownIds(world.clock),
            authenticator=authenticator,
            limiter=limiter,
            traces=traces,
        )
