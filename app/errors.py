"""What can go wrong, named by what the caller should do next.

AppError
    InvalidRequest          400  the request itself is malformed (RFC 6750 invalid_request)
    Unauthenticated         401  no credential, or not one we accept; never says why
    InsufficientScope       403  a known service key that may not do this
    Forbidden               403  a known caller whom policy refuses
    NotFound                404  it does not exist, or it is somebody else's: the same answer
    Conflict                409  it clashes with what is already there
    Unprocessable           422  well-formed, but a value is not acceptable
    TooManyRequests         429  come back after `retry_after` seconds
    UpstreamRejected        502  StackOne refused something that we should not have sent
    Unavailable             503  an external is away; come back after `retry_after` seconds

Some are answered before a route is found, and never raised: MethodNotAllowed, UnsupportedMediaType, RequestTimeout,
HeadTooLarge, Overloaded, HttpError. Each `code` that a caller can meet is a class here, or below one of these.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One offending input: where it stands and what is wrong with it, never what it was."""

    location: str
    message: str


class AppError(Exception):
    """Base of every expected failure; `detail` is shown to callers, so it never carries input or secrets."""

    status = 500
    code = "internal_error"
    title = "Internal error"
    remedy: str | None = None
    """What the operator can do, for the log; callers are not told."""

    def __init__(
        self, detail: str | None = None, *, retry_after: float | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        """Keep what the caller may know; `retry_after` is in seconds."""
        super().__init__(detail or self.title)
        self.detail = detail
        self.retry_after = retry_after
        self.errors = tuple(errors)


class SettingsError(Exception):
    """The settings cannot be used; `mistakes` has a line for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        """Keep all mistakes; their text never holds a value."""
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class InvalidRequest(AppError):
    """The request is malformed in a way that no schema describes, such as two Authorization headers."""

    status = 400
    code = "invalid_request"
    title = "The request is malformed"


class Unauthenticated(AppError):
    """No acceptable credential. Every cause gives the same answer, so that it is no oracle.

    `challenge_error` is the RFC 6750 section 3 error code; it is left out where no credential was sent.
    """

    status = 401
    code = "unauthenticated"
    title = "A valid credential is required"

    def __init__(self, reason: str, *, credential_sent: bool) -> None:
        """`reason` is for our own log only."""
        super().__init__()
        self.reason = reason
        self.challenge_error = "invalid_token" if credential_sent else None


class InsufficientScope(AppError):
    """The service key or machine token is genuine but lacks a scope or an owner (RFC 6750 section 3.1)."""

    status = 403
    code = "insufficient_scope"
    title = "The credential does not allow this"

    def __init__(self, scope: str, detail: str | None = None) -> None:
        """`scope` is what would be needed; it goes into WWW-Authenticate."""
        super().__init__(detail or f"this needs the scope {scope}")
        self.scope = scope


class Forbidden(AppError):
    """The caller is known and policy says no."""

    status = 403
    code = "forbidden"
    title = "Not allowed"


class NotFound(AppError):
    """It does not exist for this caller. Somebody else's looks exactly the same."""

    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(AppError):
    """The request clashes with the present state."""

    status = 409
    code = "conflict"
    title = "Conflict"


class BeingDisconnected(Conflict):
    """The account is being disconnected: what somebody would type for it now would be lost."""

    code = "being_disconnected"
    title = "The account is being disconnected"


class NotConfigured(Conflict):
    """The operator has not set this up."""

    code = "not_configured"
    title = "This broker is not set up for it"


class AlreadyLinked(Conflict):
    """The invitation has done its work."""

    code = "already_linked"
    title = "An account was linked through this invitation already"


class InvitationOver(AppError):
    """The invitation was ended or has expired, or its account is gone. Said to the person it was for only."""

    status = 410
    code = "invitation_over"
    title = "The invitation is no longer valid"


class Gone(AppError):
    """What was asked for was there once, or a copy was restored: going on from there would miss changes."""

    status = 410
    code = "feed_position_gone"
    title = "This position of the feed cannot be gone on from"


class PayloadTooLarge(AppError):
    """The body is over the limit of its route."""

    status = 413
    code = "payload_too_large"
    title = "The request body is too large"


class Unprocessable(AppError):
    """Input of the right shape with a value that cannot be accepted."""

    status = 422
    code = "invalid_input"
    title = "The input is not acceptable"


class TooManyRequests(AppError):
    """A limit was reached."""

    status = 429
    code = "too_many_requests"
    title = "Too many requests"


class UpstreamRejected(AppError):
    """StackOne refused our request: a wrong key, a missing scope, or a field it does not take. Ours to correct."""

    status = 502
    code = "upstream_rejected"
    title = "StackOne refused the broker's request"
    remedy = (
        "run: broker doctor, which tries the key and its scopes; the line stackone_refused before this one has more"
    )


class Unavailable(AppError):
    """An external (StackOne, the database, the identity provider) is away or too slow."""

    status = 503
    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(
        self, detail: str | None = None, *, retry_after: float | None = None, remedy: str | None = None
    ) -> None:
        """`remedy` is for the log."""
        super().__init__(detail, retry_after=retry_after)
        self.remedy = remedy


class Overloaded(Unavailable):
    """This process has as many requests open as it can serve."""

    code = "overloaded"
    title = "The broker serves as many requests as it can"


class MethodNotAllowed(AppError):
    """The path exists, and not for this method."""

    status = 405
    code = "method_not_allowed"
    title = "The method is not allowed here"


class RequestTimeout(AppError):
    """The head or the body took too long."""

    status = 408
    code = "request_timeout"
    title = "The request took too long to arrive"


class UnsupportedMediaType(AppError):
    """The body is not JSON."""

    status = 415
    code = "unsupported_media_type"
    title = "The body must be application/json"


class HeadTooLarge(AppError):
    """More headers, or a longer path, than anybody needs."""

    status = 431
    code = "head_too_large"
    title = "The request head is too large"


class HttpError(AppError):
    """The framework refuses the request with a status for which there is no other class."""

    status = 400
    code = "http_error"
    title = "The request cannot be served"


def tls_failure(error: BaseException) -> str | None:
    """Return why TLS failed, if that is what an error comes from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS handshake failed: {(cause.reason or 'no reason given').replace('_', ' ').lower()}"
        cause = cause.__cause__ or cause.__context__
    return None
