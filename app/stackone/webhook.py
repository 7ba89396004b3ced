"""Webhook deliveries: verify the raw bytes, and only then parse them.

StackOne signs the raw body with HMAC-SHA-256 under the webhook's signing secret (used as UTF-8 text) and sends the
digest in `x-stackone-signature` as base64url, unpadded as Node's `digest("base64url")` writes it.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AliasChoices, Field, ValidationError

from app.errors import Unauthenticated, Unprocessable
from app.stackone.models import Id, Optionally, Received, ShortText, Text, Word

SIGNATURE_HEADER = "x-stackone-signature"
# 32 bytes as base64url: 43 characters, and one more where it is padded.
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}=?", re.ASCII)


class AccountEvent(Received):
    """A verified account event. It says where to look; whose the account is and how it stands, StackOne is asked."""

    event: Text = Field(max_length=128)
    account_id: Id
    project_id: ShortText = None
    provider: Annotated[Word | None, Optionally] = Field(
        default=None, validation_alias=AliasChoices("provider", "connector")
    )


@dataclass(frozen=True)
class Delivery:
    """A delivery whose signature holds."""

    digest: bytes
    secret_position: int
    event: AccountEvent | None
    """None where the event is not about an account."""


def require_signature(signatures: Sequence[str]) -> None:
    """Raise Unauthenticated for headers that cannot hold a signature: the body is then not worth being read."""
    if len(signatures) != 1 or not _SIGNATURE.fullmatch(signatures[0]):
        reason = "the webhook's signature header is missing, repeated or malformed"
        raise Unauthenticated(reason, credential_sent=bool(signatures))


def matching_secret(body: bytes, signatures: Sequence[str], secrets: Sequence[bytes]) -> int | None:
    """Return the position of the secret that signed `body`, or None.

    Compares text as bytes in constant time: decoding first would accept junk characters and changed last ones, and
    comparing `str` raises on non-ASCII. Every secret is tried, so that time does not tell which one matched.
    """
    if len(signatures) != 1 or not _SIGNATURE.fullmatch(signatures[0]):
        return None
    given = signatures[0].removesuffix("=").encode("utf-8", "replace")
    found: int | None = None
    for position, secret in enumerate(secrets):
        digest = hmac.new(secret, body, hashlib.sha256).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
        # An empty secret is a secret that everybody knows.
        if hmac.compare_digest(expected, given) and secret and found is None:
            found = position
    return found


def unwrap(body: bytes, signatures: Sequence[str], secrets: Sequence[bytes]) -> Delivery:
    """Verify a delivery, then parse it.

    Raises Unauthenticated when no secret made the signature, Unprocessable when the body is genuine but not an event.
    """
    position = matching_secret(body, signatures, secrets)
    if position is None:
        reason = "webhook signature does not match"
        raise Unauthenticated(reason, credential_sent=bool(signatures))
    try:
        payload: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        message = "the delivery is signed but is not JSON"
        raise Unprocessable(message) from error
    name = payload.get("event") if isinstance(payload, dict) else None
    if not isinstance(name, str):
        message = "the delivery is signed but names no event"
        raise Unprocessable(message)
    digest = hashlib.sha256(body).digest()
    if not name.startswith("account."):
        return Delivery(digest, position, None)
    # Some events name the account only as the record they are about.
    if payload.get("account_id") is None and payload.get("record_type") == "account":
        payload = {**payload, "account_id": payload.get("record_id")}
    try:
        return Delivery(digest, position, AccountEvent.model_validate(payload))
    except (ValidationError, ValueError, OverflowError) as error:
        message = "the delivery is signed but is not an account event"
        raise Unprocessable(message) from error
