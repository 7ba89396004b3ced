"""The signature check, with every option written out, and the verifier of issuers with public keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from app.identity.refusal import Refused
from app.identity.tokens.key_ring import KeyRing
from app.identity.tokens.unverified import UnverifiedToken
from app.settings import IssuerSettings
from app.settings.identity import PLACEHOLDER


class TokenVerifier(Protocol):
    """What stands between an unverified token and its claims."""

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return the claims of a genuine token. Raises Refused, or Unavailable if the keys cannot be fetched."""
        ...

    def trusted(self) -> object | None:
        """Return what tokens are verified with: the same object for as long as each would come out the same.

        None while that cannot be said without asking the issuer.
        """
        ...


def still_trusted(verifier: TokenVerifier) -> Callable[[], bool]:
    """Return what says whether that which has just verified a token is still what tokens are verified with."""
    trusted = verifier.trusted()
    return lambda: trusted is not None and verifier.trusted() is trusted


@dataclass(frozen=True)
class Expected:
    """What every token of an issuer must have been signed with, and for whom."""

    algorithms: tuple[str, ...]
    issuer: str
    audiences: tuple[str, ...]
    audience_claim: str = "aud"

    @classmethod
    def of(cls, settings: IssuerSettings) -> Self:
        """Take it from an issuer's settings."""
        return cls(settings.algorithms, settings.issuer, settings.audiences, settings.audience_claim)

    def issuer_of(self, token: UnverifiedToken) -> str:
        """Return what `iss` must be: with a {claim} in the settings' it is what the token was chosen by."""
        return token.issuer if PLACEHOLDER.search(self.issuer) else self.issuer


def verified_payload(
    token: UnverifiedToken, expected: Expected, *, keys: Sequence[jwt.PyJWK] | Sequence[bytes]
) -> dict[str, Any]:
    """Check signature, issuer and audience, and return the claims (RFC 7519 section 7.2). Raises Refused.

    A PyJWK carries its algorithm: the token's `alg` must be that one, so that an RSA public key can never serve as
    an HMAC secret (RFC 8725 section 3.1). Of several keys each is tried: only the signature says which one it was.
    """
    failure: jwt.PyJWTError | None = None
    for key in keys:
        try:
            payload = _payload(token, key, expected)
        except jwt.InvalidSignatureError as error:
            failure = error
        except jwt.PyJWTError as error:
            failure = error
            break
        else:
            _check_audience_claim(payload, expected)
            return payload
    raise Refused(_why(failure, expected)) from failure


_WHY: Mapping[type[jwt.PyJWTError], str] = {
    jwt.InvalidSignatureError: "the token's signature is by none of the issuer's keys or secrets",
    jwt.InvalidAudienceError: "the token's aud is none of the issuer's audiences",
    jwt.InvalidIssuerError: "the token's iss is another than its issuer's",
    InvalidSubjectError: "the token's sub is no text",
    InvalidJTIError: "the token's jti is no text",
}


def _why(failure: jwt.PyJWTError | None, expected: Expected) -> str:
    """Say which check a token fails, by the name of the claim."""
    if isinstance(failure, jwt.MissingRequiredClaimError) and failure.claim in _REQUIRED:
        hint = "; name the claim that it has instead as audience_claim" if failure.claim == "aud" else ""
        return f"the token has no {failure.claim}{hint}"
    if isinstance(failure, jwt.InvalidAlgorithmError):
        return f"the token's alg is not that of the key, or none of {', '.join(expected.algorithms)}"
    return _WHY.get(type(failure), f"the token fails its check: {type(failure).__name__}")  # type: ignore[arg-type]


def _check_audience_claim(payload: Mapping[str, Any], expected: Expected) -> None:
    """Compare the claim that stands in for `aud`, where one does."""
    name = expected.audience_claim
    if name == "aud":
        return
    value = payload.get(name)
    if not isinstance(value, str) or value not in expected.audiences:
        what = "has no" if value is None else "is for another audience by its"
        reason = f"the token {what} {name}"
        raise Refused(reason)


_REQUIRED = ("exp", "iss", "aud", "sub")


def _payload(token: UnverifiedToken, key: jwt.PyJWK | bytes, expected: Expected) -> dict[str, Any]:
    has_aud = expected.audience_claim == "aud"
    return jwt.decode(
        token.text,
        key=key,
        algorithms=list(expected.algorithms),
        issuer=expected.issuer_of(token),
        audience=list(expected.audiences) if has_aud else None,
        options={
            "verify_signature": True,
            "require": [name for name in _REQUIRED if has_aud or name != "aud"],
            "verify_iss": True,
            "verify_aud": has_aud,
            "strict_aud": False,  # a token may name several audiences, of which we are one (RFC 7519 section 4.1.3)
            "verify_sub": True,
            "verify_jti": True,
            "enforce_minimum_key_length": True,
            # The times are checked in claims.py, on the clock we are given: this library would read its own, and
            # take exp="123" and exp=1e400 for times.
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        },
    )


class PublicKeyVerifier:
    """Verifies tokens of one issuer with the keys it publishes."""

    def __init__(self, key_ring: KeyRing, expected: Expected) -> None:
        """Algorithms are of one family and come from settings, never from a token."""
        self._key_ring = key_ring
        self._expected = expected

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return the claims of a genuine token. Raises Refused, or Unavailable if the keys cannot be fetched."""
        if token.algorithm not in self._expected.algorithms:
            # Before the keys are asked for: a forger's `alg` must not cost an outbound request.
            reason = "the token's alg is not one of this issuer's"
            raise Refused(reason)
        keys = await self._key_ring.find(token.key_id, token.algorithm)
        return verified_payload(token, self._expected, keys=keys)

    def trusted(self) -> object | None:
        """Return the key set, while it is fresh."""
        return self._key_ring.fresh
