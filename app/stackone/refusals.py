"""What StackOne refuses: whose mistake it is, and what of its words may be logged.

StackOne's message may quote what was sent, names of people included: callers get our words, the log gets StackOne's
without anything of the request.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from app.errors import AppError, Conflict, FieldError, Unprocessable, UpstreamRejected
from app.stackone.answers import is_stackones_error

_LONGEST_MESSAGE: Final = 200
_ERROR_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_OPERATORS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_CALLERS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.PRECONDITION_FAILED,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class Refused(UpstreamRejected):
    """StackOne refused a request with this status."""

    def __init__(
        self, status: int, *, error_code: str | None, message: str | None, genuine: bool, is_object: bool
    ) -> None:
        """`message` is for the log; `genuine` says that the answer has the shape of StackOne's own errors.

        `is_object` says that it is a JSON object at least, as its errors are at their sparest.
        """
        check = "check the API key and its scopes" if status in _OPERATORS else "see the broker's log"
        if status == HTTPStatus.GONE:
            check = "it has given up this path: BROKER_STACKONE__ACCOUNTS_PATH names another one for accounts"
        super().__init__(f"StackOne answered {status}; {check}")
        self.upstream_status = status
        self.error_code = error_code
        self.message = message
        self.genuine = genuine
        self.is_object = is_object

    @property
    def is_operators(self) -> bool:
        """Whether only the operator can correct it: the key, its scopes, or what the broker itself sent."""
        return self.upstream_status not in _CALLERS | {HTTPStatus.CONFLICT}


def read_refusal(status: int, content: bytes, *, sent: object) -> Refused:
    """Read an error of StackOne; whatever its bytes, this fails at nothing."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping):
        return Refused(status, error_code=None, message=None, genuine=False, is_object=False)
    code, message = body.get("errorCode"), body.get("message")
    return Refused(
        status,
        error_code=code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None,
        message=_cleaned(message, sent) if isinstance(message, str) else None,
        genuine=is_stackones_error(body, status),
        is_object=True,
    )


def mint_refusal(refused: Refused) -> AppError:
    """Say whose mistake a refused mint is: the operator's (502), the caller's (422), or a clash (409)."""
    # What a gateway or a firewall says for itself says nothing about the request. Its 404 may be JSON as well: the base
    # URL is wrong.
    is_stackones = refused.genuine if refused.upstream_status == HTTPStatus.NOT_FOUND else refused.is_object
    if refused.upstream_status == HTTPStatus.CONFLICT and is_stackones:
        message = "StackOne answered 409: this clashes with what is there already"
        return Conflict(message)
    if refused.upstream_status in _CALLERS and is_stackones:
        message = f"StackOne does not accept this request (it answered {refused.upstream_status})"
        return Unprocessable(message, errors=[FieldError("body", message)])
    return refused


def _cleaned(message: str, sent: object) -> str:
    for value in sorted(set(_texts(sent)), key=len, reverse=True):
        message = re.sub(re.escape(value), "[sent]", message, flags=re.IGNORECASE)
    return "".join(sign if sign.isprintable() else " " for sign in message[:_LONGEST_MESSAGE])


def _texts(value: object, *, with_names: bool = False) -> Iterator[str]:
    """Go through every text and number that was sent, names in metadata included."""
    if isinstance(value, str):
        yield from (part for part in {value, value.rsplit("/", 1)[-1]} if part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if with_names:
                yield from _texts(str(name))
            yield from _texts(inner, with_names=with_names or name == "metadata")
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner, with_names=with_names)
