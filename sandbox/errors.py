"""Errors in the one shape that StackOne documents: statusCode, message, timestamp."""

from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sandbox.clock import Clock, iso


class ApiError(Exception):
    """An answer other than 2xx; `errors` is the list that StackOne adds to a 400."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Keep everything that the body and the headers will say."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def error_body(status: int, message: str, clock: Clock) -> dict[str, object]:
    """Return the documented error body."""
    return {"statusCode": status, "message": message, "timestamp": iso(clock())}


def answer_errors_like_stackone(app: FastAPI, clock: Clock) -> None:
    """Replace the framework's own error bodies: the Hub cannot read `{"detail": ...}`."""

    async def from_api_error(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, ApiError):
            raise error
        body = error_body(error.status, error.message, clock) | error.extra
        if error.errors:
            body |= {"errorCode": "ValidationError", "errors": list(error.errors)}
        return JSONResponse(body, error.status, headers=error.headers)

    async def from_framework(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            raise error
        return JSONResponse(
            error_body(error.status_code, str(error.detail), clock), error.status_code, headers=error.headers
        )

    async def from_validation(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        complaints = [f"{'.'.join(str(step) for step in item['loc'])}: {item['msg']}" for item in error.errors()]
        body = error_body(400, "Bad Request", clock)
        return JSONResponse(body | {"errorCode": "ValidationError", "errors": complaints}, 400)

    async def from_bug(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "Internal server error", clock), 500)

    app.add_exception_handler(ApiError, from_api_error)
    app.add_exception_handler(HTTPException, from_framework)
    app.add_exception_handler(RequestValidationError, from_validation)
    app.add_exception_handler(Exception, from_bug)
