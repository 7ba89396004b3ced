"""Every failure of a request, as RFC 9457 application/problem+json."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import errors
from app.errors import AppError, FieldError

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_STATUS_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request", "The request is malformed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "The method is not allowed here"),
    413: ("payload_too_large", "The request body is too large"),
    415: ("unsupported_media_type", "The body must be application/json"),
}
_SERVER_ERROR = 500
_KEPT_HEADERS = ("allow", "retry-after", "access-control-", "vary")


def problem_body(
    *, status: int, code: str, title: str, detail: str | None = None, problems: Sequence[FieldError] = ()
) -> bytes:
    """Write a problem document; `type` is a stable URN that ends in the code (RFC 9457 section 3.1.1)."""
    body: dict[str, Any] = {
        "type": f"urn:connect-broker:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "request_id": correlation_id.get(),
    }
    if detail:
        body["detail"] = detail
    if problems:
        body["errors"] = [{"location": problem.location, "message": problem.message} for problem in problems]
    return json.dumps(body, ensure_ascii=True).encode()


def problem_response(error: AppError) -> Response:
    """Answer an AppError, with the challenge (RFC 6750) or Retry-After (RFC 9110 10.2.3) that goes with it."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, errors.Unauthenticated):
        challenge = 'Bearer realm="connect-broker"'
        if error.challenge_error:
            challenge += f', error="{error.challenge_error}"'
        headers["www-authenticate"] = challenge
    if isinstance(error, errors.InsufficientScope):
        headers["www-authenticate"] = (
            f'Bearer realm="connect-broker", error="insufficient_scope", scope="{error.scope}"'
        )
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    body = problem_body(
        status=error.status, code=error.code, title=error.title, detail=error.detail, problems=error.errors
    )
    return Response(body, error.status, headers, MEDIA_TYPE)


async def _on_app_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101  registered for this type only
    if isinstance(error, errors.Unauthenticated):
        logger.info("unauthenticated", reason=error.reason)
    elif isinstance(error, errors.UpstreamRejected):
        logger.error("upstream_rejected", detail=error.detail)
    elif error.status >= _SERVER_ERROR:
        logger.warning("unavailable", code=error.code, detail=error.detail)
    return problem_response(error)


async def _on_invalid_input(_request: Request, error: Exception) -> Response:
    """Answer 422 with where and why, never with the input: the framework's own body would echo it."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for this type only
    found = error.errors()
    problems = [FieldError(_location(item["loc"]), _message(item)) for item in found[:50]]
    if any(item["type"] == "json_invalid" for item in found):
        return problem_response(errors.InvalidRequest("the body is not valid JSON", errors=problems))
    return problem_response(errors.Unprocessable(errors=problems))


def _location(loc: Sequence[str | int]) -> str:
    """Join a location; names that the client chose are cut and cleaned, since they are input too."""
    parts = [str(part) for part in loc]
    return ".".join("".join(c if c.isalnum() or c in "_-" else "?" for c in part)[:64] for part in parts)


def _message(item: Mapping[str, Any]) -> str:
    # Pydantic's own texts are fixed, but a custom or enum message could quote input: keep to known kinds.
    if item["type"] == "extra_forbidden":
        return "unknown field; the broker decides everything that is not documented"
    return str(item["msg"]).removeprefix("Value error, ")[:300]


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for this type only
    return status_response(error.status_code, error.headers or {})


def status_response(status: int, headers: Mapping[str, str]) -> Response:
    """Answer a failure of which only the status is known; of its headers only harmless ones are kept."""
    code, title = _STATUS_ERRORS.get(status, ("http_error", "The request cannot be served"))
    kept = {name: value for name, value in headers.items() if name.lower().startswith(_KEPT_HEADERS)}
    body = problem_body(status=status, code=code, title=title)
    return Response(body, status, {**kept, "cache-control": "no-store"}, MEDIA_TYPE)


def unexpected_response(error: Exception) -> Response:
    """Answer 500 without a word about the cause; the cause is in the log under the same request id."""
    logger.error("unexpected_error", error_type=type(error).__name__, exc_info=error)
    body = problem_body(status=500, code="internal_error", title="Internal error")
    return Response(body, 500, {"cache-control": "no-store"}, MEDIA_TYPE)


def install_problem_answers(app: FastAPI) -> None:
    """Make every expected failure of the app answer problem+json, and describe that answer in its document."""
    describe = app.openapi

    def describe_with_problems() -> dict[str, Any]:
        document = describe()
        document.setdefault("components", {}).setdefault("schemas", {}).update(problem_schemas())
        return document

    app.openapi = describe_with_problems  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_input)
    app.add_exception_handler(HTTPException, _on_http_exception)


class FieldProblem(BaseModel):
    """One offending input."""

    location: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    code: str
    request_id: str | None
    detail: str | None = None
    errors: list[FieldProblem] | None = None


_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "No acceptable credential; the answer never says why.",
    403: "The caller is known and may not do this.",
    404: "It does not exist, or it is not the caller's: the same answer.",
    409: "It clashes with the present state.",
    413: "The body is too large.",
    422: "The input is not acceptable; `errors` says where and why.",
    429: "A limit was reached; Retry-After says when to come back.",
    502: "StackOne refused what the broker sent; its operator has to act.",
    503: "An external system is away; Retry-After says when to come back.",
}


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that `documented` points at, for the components of the OpenAPI document."""
    template = "#/components/schemas/{model}"
    _, definitions = models_json_schema([(Problem, "serialization")], ref_template=template)
    return dict(definitions["$defs"])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the failures of a route for the OpenAPI document; 400 is possible everywhere."""
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in (400, *statuses)
    }
