"""Which pages may call browser routes, and a log line for each page that may not: browsers tell nobody why."""

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.settings import HttpSettings

logger = structlog.get_logger(__name__)

_FIRST_FAILURE = 400
_SHOWN_LENGTH = 200
_OWN_HEADERS = ("authorization", "content-type", "x-request-id")
# Tracers and fetch wrappers add these to every call of a page; the broker ignores them.
_HARMLESS_HEADERS = (
    *("traceparent", "tracestate", "baggage", "sentry-trace", "b3", "uber-trace-id"),
    *(f"x-b3-{name}" for name in ("traceid", "spanid", "parentspanid", "sampled", "flags")),
    *(f"x-datadog-{name}" for name in ("origin", "parent-id", "sampled", "sampling-priority", "tags", "trace-id")),
    *("newrelic", "x-newrelic-id", "x-newrelic-transaction", "elastic-apm-traceparent"),
    *("x-amzn-trace-id", "x-cloud-trace-context", "x-correlation-id"),
    *("idempotency-key", "x-requested-with", "cache-control", "pragma"),
)


class Cors(CORSMiddleware):
    """CORS for the origins of the settings."""

    def __init__(self, app: ASGIApp, *, http: HttpSettings, csrf_header: str | None) -> None:
        """`csrf_header` is named where cookies are accepted."""
        super().__init__(
            app,
            allow_origins=list(http.allowed_origins),
            allow_credentials=csrf_header is not None,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                *_OWN_HEADERS,
                *_HARMLESS_HEADERS,
                *http.allowed_headers,
                *([csrf_header] if csrf_header else []),
            ],
            expose_headers=["x-request-id", "retry-after"],
            max_age=600,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight, and say in the log what it was refused for."""
        response = super().preflight_response(request_headers)
        if response.status_code >= _FIRST_FAILURE:
            origin = request_headers["origin"]
            asked = request_headers.get("access-control-request-headers", "").lower().split(",")
            refused = sorted({name.strip() for name in asked} - {*self.allow_headers, ""})
            logger.warning(
                "preflight_refused",
                origin=origin[:_SHOWN_LENGTH],
                is_origin_allowed=self.is_allowed_origin(origin),
                method=request_headers["access-control-request-method"][:_SHOWN_LENGTH],
                refused_headers=", ".join(refused)[:_SHOWN_LENGTH],
            )
        return response
