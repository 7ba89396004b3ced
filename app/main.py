"""create_app: routers, middleware, error answers, and the loops that run beside the requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import app as package
from app.connect_sessions import poll_routes
from app.connect_sessions import routes as connect_session_routes
from app.connect_sessions.housekeeping import Upkeep
from app.errors import AppError
from app.http import health
from app.http.middleware import AccessLog, PlainFailuresAsProblems, SecurityHeaders, WholePaths
from app.http.problems import install_problem_answers
from app.linked_accounts import routes as linked_account_routes
from app.metrics import Metrics
from app.owners import routes as erasure_routes
from app.policy.file import read_policy
from app.push.deliver import Pusher, open_wire
from app.push.sender import Wire
from app.runtime import Neighbours, Runtime, open_runtime
from app.settings import Settings
from app.sync import routes as sync_routes
from app.sync import sweep_routes
from app.sync.refresh import Refresher
from app.sync.timer import SweepTimer

logger = structlog.get_logger(__name__)

VERSION = "0.1.0"
_LOOP_PAUSE_SECONDS = 1.0
_DOCUMENTATION_PATHS = frozenset({"/docs"})


def create_app(settings: Settings, neighbours: Neighbours | None = None) -> FastAPI:
    """Build the web app; it opens its Runtime when it starts serving and closes it when it stops.

    Raises SettingsError if the policy file cannot be used.
    """
    metrics = Metrics()
    policy = read_policy(settings.policy_file)

    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(open_runtime(settings, neighbours, metrics))
            web.state.runtime = runtime
            # Beside the start, not before it: an issuer that is slow must not keep the webhook from being served.
            warming = asyncio.create_task(runtime.authenticator.warm())
            stack.push_async_callback(_cancelled, warming)
            if settings.sync.enabled:
                wire = open_wire(runtime)
                stack.push_async_callback(wire.close)
                for name, loop in _background_loops(runtime, wire):
                    task = asyncio.create_task(_keep_running(name, loop, runtime))
                    stack.push_async_callback(_cancelled, task)
            yield

    documented = settings.http.docs or settings.environment == "development"
    web = FastAPI(
        title="Connect Broker",
        summary=package.__doc__,
        version=VERSION,
        lifespan=lifespan,
        openapi_url="/openapi.json" if documented else None,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        # A redirect would be built from the Host header, which is the client's word.
        redirect_slashes=False,
        # A page with a script of its own, for a login that the documentation does not offer.
        swagger_ui_oauth2_redirect_url=None,
    )
    web.state.metrics = metrics
    web.state.policy = policy
    for router in (
        connect_session_routes.browser,
        poll_routes.browser,
        linked_account_routes.browser,
        connect_session_routes.service,
        connect_session_routes.policies,
        linked_account_routes.service,
        sweep_routes.service,
        erasure_routes.service,
        health.router,
    ):
        web.include_router(router, max_body_size=settings.http.max_body_bytes)
    web.include_router(sync_routes.webhook, max_body_size=settings.http.max_webhook_bytes)
    install_problem_answers(web)
    _install_middleware(web, settings, metrics)
    return web


def _install_middleware(web: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Add the middleware from the innermost to the outermost."""
    web.add_middleware(WholePaths)
    if settings.http.allowed_origins:
        cookie = settings.identity.cookie
        web.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.http.allowed_origins),
            allow_credentials=cookie is not None,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-request-id", *([cookie.csrf_header] if cookie else [])],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )
    web.add_middleware(PlainFailuresAsProblems)
    web.add_middleware(AccessLog, metrics=metrics)
    web.add_middleware(SecurityHeaders, documentation_paths=_DOCUMENTATION_PATHS)
    web.add_middleware(CorrelationIdMiddleware, header_name="X-Request-ID")


def _background_loops(runtime: Runtime, wire: Wire) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """List what runs beside the requests."""
    return [
        ("refresh", Refresher(runtime).run_forever),
        ("sweep", SweepTimer(runtime).run_forever),
        ("upkeep", Upkeep(runtime).run_forever),
        ("push", Pusher(runtime, wire).run_forever),
    ]


async def _keep_running(name: str, loop: Callable[[], Awaitable[None]], runtime: Runtime) -> None:
    """Start a loop again whenever it fails: a database that was away for a minute must not stop it for good."""
    while True:
        try:
            await loop()
        except AppError as error:
            logger.warning("background_loop_paused", loop=name, code=error.code)
        except Exception:
            runtime.metrics.loop_failures.labels(name).inc()
            logger.exception("background_loop_failed", loop=name)
        await asyncio.sleep(_LOOP_PAUSE_SECONDS)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
