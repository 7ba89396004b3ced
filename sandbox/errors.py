"""Errors in the one shape that StackOne documents: statusCode, message, timestamp."""

from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sandbox.clock import Clock, iso


class ApiError(Exception):
    """An answer other than 2xx; `extra` is what its body says beyond the documented three fields."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def bad_request(*errors: str) -> ApiError:
    """Return a 400 that lists what is wrong."""
    return ApiError(400, "Bad Request", extra=_validation(errors))


def error_body(status: int, message: str, clock: Clock) -> dict[str, object]:
    """Return the documented error body."""
    return {"statusCode": status, "message": message, "timestamp": iso(clock())}


def answer_errors_like_stackone(app: FastAPI, clock: Clock) -> None:
    """Replace the framework's own error bodies: the Hub cannot read `{"detail": ...}`."""

    def respond(
        status: int, message: str, more: Mapping[str, object], headers: Mapping[str, str] | None
    ) -> JSONResponse:
        return JSONResponse({**error_body(status, message, clock), **more}, status, headers=headers)

    @app.exception_handler(ApiError)
    async def from_api_error(_request: Request, error: ApiError) -> JSONResponse:
        return respond(error.status, error.message, error.extra, error.headers)

    @app.exception_handler(HTTPException)
    async def from_framework(_request: Request, error: HTTPException) -> JSONResponse:
        return respond(error.status_code, str(error.detail), {}, error.headers)

    @app.exception_handler(RequestValidationError)
    async def from_validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The first step of a location is where the value was: body, query, path.
        found = [f"{'.'.join(str(step) for step in item['loc'][1:])}: {item['msg']}" for item in error.errors()]
        return respond(400, "Bad Request", _validation(found), None)

    @app.exception_handler(Exception)
    async def from_bug(_request: Request, _error: Exception) -> JSONResponse:
        return respond(500, "Internal server error", {}, None)


def _validation(errors: Sequence[str]) -> dict[str, object]:
    return {"errorCode": "ValidationError", "errors": list(errors)}
