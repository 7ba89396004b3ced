"""Verifying what the broker pushes (Standard Webhooks 1.0)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from connect_broker_client.errors import PushRefused
from connect_broker_client.models import Event, PushMessage

_PREFIX = "whsec_"
_VERSION = "v1"


class Push:
    """Verifies push messages with any of several secrets: while one is rotated, both count."""

    def __init__(
        self, secrets: str | Sequence[str], *, tolerance_seconds: float = 300, now: Callable[[], float] = time.time
    ) -> None:
        """`tolerance_seconds` is how old, or how far ahead of this clock, a message may be."""
        given = [secrets] if isinstance(secrets, str) else list(secrets)
        if not given:
            raise ValueError("at least one secret is needed")
        self._keys = [_key(secret) for secret in given]
        self._tolerance = tolerance_seconds
        self._now = now

    def verify(self, body: bytes, headers: Mapping[str, str]) -> PushMessage:
        """Return the message, or raise PushRefused. `body` is the raw body: parsed and written anew it differs."""
        given = {name.lower(): value for name, value in headers.items()}
        try:
            message_id, sent_at = given["webhook-id"], given["webhook-timestamp"]
            signatures = given["webhook-signature"]
        except KeyError as error:
            raise PushRefused(f"the header {error.args[0]} is missing") from None
        if not (sent_at.isascii() and sent_at.isdecimal()) or len(sent_at) > len("9999999999"):
            raise PushRefused("webhook-timestamp is no time")
        if abs(self._now() - int(sent_at)) > self._tolerance:
            raise PushRefused("the message is too old, or this machine's clock is wrong")
        signed = b".".join((message_id.encode(), sent_at.encode(), body))
        wanted = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in self._keys]
        # Every pair is compared, so that the time says nothing about which one matched.
        matches = [
            hmac.compare_digest(signature.encode(), one)
            for version, _, signature in (part.partition(",") for part in signatures.split())
            if version == _VERSION
            for one in wanted
        ]
        if not any(matches):
            raise PushRefused("no signature matches")
        return _message(message_id, body)

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Push({len(self._keys)} secrets)"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("a secret is whsec_ and base64, as in the broker's settings")
    return key


def _message(message_id: str, body: bytes) -> PushMessage:
    try:
        told = json.loads(body)
        message = PushMessage.model_validate({**told, "id": message_id, "event": None})
        if not message.type.startswith("account."):
            return message
        return message.model_copy(update={"event": Event.model_validate(message.data)})
    except (ValidationError, ValueError, TypeError):
        raise PushRefused("it is signed and makes no sense: this client may be too old for the broker") from None
