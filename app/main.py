"""create_app: routers, middleware, error answers, and the jobs that run beside the requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI

import app as package
from app.connect_sessions import routes as connect_session_routes
from app.http import health
from app.http.cors import Cors
from app.http.middleware import AccessLog, PlainFailuresAsProblems, SecurityHeaders, WholePaths
from app.http.problems import install_problem_answers
from app.jobs import cancelled, running_jobs
from app.linked_accounts import routes as linked_account_routes
from app.metrics import Metrics
from app.owners import routes as owner_routes
from app.policy import routes as policy_routes
from app.policy.file import read_policy
from app.runtime import Externals, open_runtime
from app.settings import Environment, Settings
from app.sync import routes as sync_routes

_DOCUMENTATION_PATHS = frozenset({"/docs"})


def create_app(settings: Settings, externals: Externals | None = None) -> FastAPI:
    """Build the web app; it opens its Runtime when it starts serving and closes it when it stops.

    Raises SettingsError if the policy file cannot be used.
    """
    metrics = Metrics()
    policy = read_policy(settings.policy_file)

    @asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(open_runtime(settings, externals, metrics=metrics, policy=policy))
            web.state.runtime = runtime
            # Beside the start, not before it: the webhook must be served even while an issuer is slow.
            warming = asyncio.create_task(runtime.authenticator.warm())
            stack.push_async_callback(cancelled, warming)
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
        # A redirect would be built from the Host header, which the client chooses.
        redirect_slashes=False,
        # A page with a script of its own, for a login that the documentation does not offer.
        swagger_ui_oauth2_redirect_url=None,
    )
    web.state.metrics = metrics
    for router in (
        connect_session_routes.browser,
        linked_account_routes.browser,
        connect_session_routes.service,
        policy_routes.service,
        linked_account_routes.service,
        sync_routes.service,
        owner_routes.service,
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
        web.add_middleware(Cors, http=settings.http, csrf_header=cookie.csrf_header if cookie else None)
    web.add_middleware(PlainFailuresAsProblems)
    web.add_middleware(AccessLog, metrics=metrics)
    web.add_middleware(SecurityHeaders, documentation_paths=_DOCUMENTATION_PATHS)
    web.add_middleware(CorrelationIdMiddleware, header_name="X-Request-ID")
