"""Every failure of a request, as RFC 9457 application/problem+json."""

import json
import math
from collections.abc import Mapping, MutableMapping, Sequence
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
from app.identity.cookie import CsrfRefused

logger = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_STATUS_ERRORS: Mapping[int, type[AppError]] = {
    kind.status: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.PayloadTooLarge,
        errors.UnsupportedMediaType,
    )
}
_SERVER_ERROR = 500
SAMPLE_REQUEST_ID = "cbe0f5d2f4143edbaf484dd87b085a0c"
_SAMPLE_MISTAKES = {
    errors.Unprocessable.code: [FieldError("body.provider", "the project has no such provider")],
}
_KEPT_HEADERS = ("allow", "retry-after", "access-control-", "vary")


def problem_body(
    kind: type[AppError], *, status: int | None = None, detail: str | None = None, problems: Sequence[FieldError] = ()
) -> bytes:
    """Write a problem document. It takes a class, so that there is no code that the API's document does not list."""
    body = problem_of(kind, request_id=correlation_id.get(), detail=detail, problems=problems)
    if status is not None:
        body["status"] = status
    return json.dumps(body, ensure_ascii=True).encode()


def problem_of(
    kind: type[AppError], *, request_id: str | None, detail: str | None = None, problems: Sequence[FieldError] = ()
) -> dict[str, Any]:
    """Return a problem document; `type` is a stable URN that ends in the code (RFC 9457 section 3.1.1)."""
    body: dict[str, Any] = {
        "type": f"urn:connect-broker:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "request_id": request_id,
    }
    if detail:
        body["detail"] = detail
    if problems:
        body["errors"] = [{"location": problem.location, "message": problem.message} for problem in problems]
    return body


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
    body = problem_body(type(error), detail=error.detail, problems=error.errors)
    return Response(body, error.status, headers, MEDIA_TYPE)


async def _on_app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)  # noqa: S101  registered for this type only
    if isinstance(error, errors.Unauthenticated):
        logger.info("unauthenticated", reason=error.reason)
    elif error.status >= _SERVER_ERROR:
        # Whom somebody has to act for is an error; what passes by itself a warning.
        log = logger.error if isinstance(error, errors.UpstreamRejected) else logger.warning
        log(
            error.code,
            status=error.status,
            route=route_template(request.scope),
            detail=error.detail or error.title,
            remedy=error.remedy,
        )
    return problem_response(error)


def route_template(scope: MutableMapping[str, Any]) -> str:
    """Return the route that a request was for, without what its path says."""
    template = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", None)
    return template if isinstance(template, str) else "none"


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
        return "no field of this request; see the operation's schema in the API's document"
    return str(item["msg"]).removeprefix("Value error, ")[:300]


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for this type only
    return status_response(error.status_code, error.headers or {})


def status_response(status: int, headers: Mapping[str, str]) -> Response:
    """Answer a failure of which only the status is known; of its headers only harmless ones are kept."""
    kind = _STATUS_ERRORS.get(status, errors.HttpError)
    kept = {name: value for name, value in headers.items() if name.lower().startswith(_KEPT_HEADERS)}
    body = problem_body(kind, status=status)
    return Response(body, status, {**kept, "cache-control": "no-store"}, MEDIA_TYPE)


def unexpected_response(error: Exception, route: str) -> Response:
    """Answer 500 without a word about the cause; the cause is in the log under the same request id."""
    logger.error(
        "unexpected_error",
        status=_SERVER_ERROR,
        route=route,
        error_type=type(error).__name__,
        detail="a mistake in the broker itself; other requests are not touched",
        remedy="report this line with the version (broker_build_info)",
        exc_info=error,
    )
    body = problem_body(AppError)
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
    403: "The caller is known and may not do this; `csrf`: a cookie came without what proves the page's origin.",
    404: "It does not exist, or it is not the caller's: the same answer.",
    409: "It clashes with the present state.",
    410: "It is over: a position of the feed that cannot be gone on from, or an invitation.",
    413: "The body is too large.",
    422: "The input is not acceptable; `errors` says where and why.",
    429: "A limit was reached; Retry-After says when to come back.",
    502: "StackOne refused what the broker sent; its operator has to act.",
    503: "An external system is away, or the broker has too much to do; Retry-After says when to come back.",
}


def problem_schemas() -> dict[str, Any]:
    """Return the schemas that `documented` points at, for the components of the OpenAPI document."""
    template = "#/components/schemas/{model}"
    _, definitions = models_json_schema([(Problem, "serialization")], ref_template=template)
    return dict(definitions["$defs"])


# What a route answers because of who may call it, and because it takes something.
OF_USERS = (errors.Unauthenticated, CsrfRefused, errors.TooManyRequests, errors.Unavailable, errors.Overloaded)
OF_SERVICES = (
    errors.Unauthenticated,
    errors.InsufficientScope,
    errors.TooManyRequests,
    errors.Unavailable,
    errors.Overloaded,
)
WITH_BODY = (errors.PayloadTooLarge, errors.Unprocessable)
WITH_PARAMETERS = (errors.Unprocessable,)


def documented(*kinds: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """Describe the failures of a route for the OpenAPI document, each by an example; 400 is possible everywhere."""
    responses: dict[int | str, dict[str, Any]] = {}
    possible: set[type[AppError]] = {errors.InvalidRequest, *kinds}
    for kind in sorted(possible, key=lambda kind: (kind.status, kind.code)):
        response = responses.setdefault(
            kind.status,
            {
                "description": _DESCRIPTIONS[kind.status],
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        response["content"][MEDIA_TYPE]["examples"][kind.code] = {
            "summary": kind.title,
            "value": problem_of(kind, request_id=SAMPLE_REQUEST_ID, problems=_SAMPLE_MISTAKES.get(kind.code, ())),
        }
    return responses
