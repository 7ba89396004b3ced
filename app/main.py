"""create_app: routers, middleware, error answers, and the jobs that run beside the requests."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

import app as package
from app.connect_sessions import routes as connect_session_routes
from app.gauges import begin_at_zero, watching_loop
from app.http import health
from app.http.cors import Cors
from app.http.direct import Direct, Limited, Table
from app.http.document import describe
from app.http.middleware import AccessLog, PlainFailuresAsProblems, SecurityHeaders, WholePaths
from app.http.problems import install_problem_answers
from app.http.tracing import Traced
from app.invitations import routes as invitation_routes
from app.jobs import cancelled, running_jobs
from app.linked_accounts import routes as linked_account_routes
from app.logs import tell_traces
from app.metrics import Metrics
from app.owners import routes as owner_routes
from app.policy import routes as policy_routes
from app.policy.file import read_policy
from app.push import routes as push_routes
from app.runtime import Externals, open_runtime
from app.settings import Environment, Settings
from app.sync import routes as sync_routes
from app.traces import OFF, Traces, open_traces

_DOCUMENTATION_PATHS = frozenset({"/docs"})


def create_app(settings: Settings, externals: Externals | None = None) -> FastAPI:
    """Build the web app; it opens its Runtime when it starts serving and closes it when it stops.

    Raises SettingsError if the policy file cannot be used.
    """
    metrics = Metrics()
    policy = read_policy(settings.policy_file)
    traces = _open_traces(settings)

    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if traces.is_on:
                # In a thread: it sends what is left.
                stack.push_async_callback(asyncio.to_thread, traces.close)
                stack.callback(tell_traces, None)
                tell_traces(traces.trace_id)
            runtime = await stack.enter_async_context(
                open_runtime(settings, externals, metrics=metrics, policy=policy, traces=traces)
            )
            web.state.runtime = runtime
            # Beside the start, not before it: the webhook must be served even while an issuer is slow.
            warming = asyncio.create_task(runtime.authenticator.warm_until_known())
            stack.push_async_callback(cancelled, warming)
            stack.push_async_callback(cancelled, asyncio.create_task(watching_loop(metrics)))
            begin_at_zero(runtime)
            if settings.sync.enabled:
                await stack.enter_async_context(running_jobs(runtime))
            yield

    documented = settings.http.docs or settings.environment is Environment.DEVELOPMENT
    web = FastAPI(
        title="Connect Broker",
        summary=package.__doc__,
        version=package.__version__,
        lifespan=lifespan,
        openapi_url="/openapi.json" if documented else None,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        # Its own spans and logs would tell paths and messages of exceptions to whoever sets OTEL_ variables; see ADR 9.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        # A redirect would be built from the Host header, which the client chooses.
        redirect_slashes=False,
        # A page with a script of its own, for a login that the documentation does not offer.
        swagger_ui_oauth2_redirect_url=None,
    )
    web.state.metrics = metrics
    routes, table = _routes(settings.http.max_webhook_bytes, settings.http.max_body_bytes)
    web.router.routes.extend(routes.routes)
    web.webhooks.include_router(push_routes.outgoing)
    install_problem_answers(web)
    web.openapi = describe(web)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    _install_middleware(web, table, settings, metrics, traces)
    return web


@lru_cache(maxsize=4)
def _routes(max_webhook_bytes: int, max_body_bytes: int) -> tuple[APIRouter, Table]:
    # FastAPI finds out what a route needs when it is first asked for, which takes longer than all else of a start: once
    # for all applications of a process. Routes are tried in their order, and events are what comes most.
    whole = APIRouter()
    limited: list[Limited] = []
    for router in (
        sync_routes.webhook,
        connect_session_routes.browser,
        connect_session_routes.catalogue,
        linked_account_routes.browser,
        connect_session_routes.service,
        policy_routes.service,
        linked_account_routes.service,
        sync_routes.service,
        owner_routes.service,
        push_routes.service,
        invitation_routes.browser,
        invitation_routes.service,
        invitation_routes.own_use,
        invitation_routes.owner_use,
        health.router,
    ):
        most = max_webhook_bytes if router is sync_routes.webhook else max_body_bytes
        whole.include_router(router, max_body_size=most)
        limited += [Limited(route, most) for route in router.routes if isinstance(route, APIRoute)]
    return whole, Table(limited)


def _open_traces(settings: Settings) -> Traces:
    wanted = settings.traces
    if wanted.endpoint is None:
        return OFF
    return open_traces(
        endpoint=wanted.endpoint,
        headers={name: value.get_secret_value() for name, value in wanted.headers.items()},
        sample_ratio=wanted.sample_ratio,
        service_name=wanted.service_name,
        version=package.__version__,
        timeout_seconds=wanted.timeout_seconds,
        ca_file=str(settings.tls.ca_file) if settings.tls.ca_file is not None else None,
    )


def _install_middleware(web: FastAPI, table: Table, settings: Settings, metrics: Metrics, traces: Traces) -> None:
    """Add the middleware from the innermost to the outermost."""
    web.add_middleware(Direct, table=table, on_errors=web.exception_handlers)
    web.add_middleware(WholePaths)
    if settings.http.allowed_origins:
        web.add_middleware(Cors, http=settings.http, csrf_header=settings.identity.csrf_header)
    web.add_middleware(PlainFailuresAsProblems)
    web.add_middleware(AccessLog, metrics=metrics)
    web.add_middleware(SecurityHeaders, documentation_paths=_DOCUMENTATION_PATHS)
    if traces.is_on:
        web.add_middleware(Traced, traces=traces)
    web.add_middleware(CorrelationIdMiddleware, header_name="X-Request-ID", generator=_request_id, transformer=None)


def _request_id() -> str:
    # An id and no secret: the system's randomness would be a call to the kernel for each request.
    return f"{random.getrandbits(128):032x}"
