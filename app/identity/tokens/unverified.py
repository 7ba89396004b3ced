"""Read an unverified token, as far as needed to choose the one verifier for it.

Everything here is bounded before it is parsed: sending a bad token costs an attacker nothing. Headers that
name or carry keys (`jku`, `x5u`, `jwk`, `x5c`) are never even read: a forger would point them at a key of their own
(RFC 8725 section 3.10).
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from app.identity.refusal import Refused

MAXIMUM_KEY_ID_LENGTH = 256
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class UnverifiedToken:
    """What a token says about itself; used to choose a verifier, and for nothing else."""

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    type: str | None
    issuer: str


def peek(text: str) -> UnverifiedToken:
    """Read the header and the issuer of a compact JWS (RFC 7515 section 7.1). Raises Refused for anything else.

    How long it may be is for the caller to say.
    """
    segments = _COMPACT.fullmatch(text)
    if segments is None:
        reason = "the token is not three base64url segments"
        raise Refused(reason)
    header = _json_object(segments[1])
    if "crit" in header:
        # "You must understand this" (RFC 7515 section 4.1.11): we understand none of the extensions.
        reason = "the token has a crit header"
        raise Refused(reason)
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or not isinstance(kind, (str, type(None))):
        reason = "the token's header has no usable alg or typ"
        raise Refused(reason)
    if "kid" in header and (not isinstance(key_id, str) or len(key_id) > MAXIMUM_KEY_ID_LENGTH):
        reason = "the token's kid is no text, or too long"
        raise Refused(reason)
    issuer = _json_object(segments[2]).get("iss")
    if not isinstance(issuer, str):
        reason = "the token names no issuer: it has no claim iss with text"
        raise Refused(reason)
    return UnverifiedToken(text=text, algorithm=algorithm, key_id=key_id, type=kind, issuer=issuer)


def claim_names(text: str) -> Sequence[str]:
    """Return the names of a token's claims, as it says itself; what `peek` accepts has some."""
    return sorted(_json_object(text.split(".")[1]))


def _json_object(segment: str) -> dict[str, Any]:
    try:
        text = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "a segment of the token is not strict JSON"
        raise Refused(reason) from error
    if not isinstance(value, dict):
        reason = "a segment of the token is not a JSON object"
        raise Refused(reason)
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # {"org": "mine", "org": "theirs"}: parsers disagree on which one counts, so two readers of one signed token could
    # see two owners (RFC 7519 section 4).
    value = dict(pairs)
    if len(value) != len(pairs):
        message = "repeated name"
        raise ValueError(message)
    return value


def _refuse_constant(name: str) -> NoReturn:
    # Python's parser takes NaN and Infinity, which are no JSON; every comparison with NaN is false, so a check written
    # as "refuse if expired" lets it pass.
    raise ValueError(name)
