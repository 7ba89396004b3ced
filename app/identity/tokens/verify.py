"""The signature check, with every option written out, and the verifier of issuers with public keys."""

from collections.abc import Sequence
from typing import Any, Protocol

import jwt

from app.identity.refusal import Refused
from app.identity.tokens.key_ring import KeyRing
from app.identity.tokens.unverified import UnverifiedToken


class TokenVerifier(Protocol):
    """What stands between an unverified token and its claims."""

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return the claims of a genuine token. Raises Refused, or Unavailable if the keys cannot be fetched."""
        ...


def verified_payload(
    token: UnverifiedToken,
    *,
    keys: Sequence[jwt.PyJWK] | Sequence[bytes],
    algorithms: Sequence[str],
    issuer: str,
    audiences: Sequence[str],
) -> dict[str, Any]:
    """Check signature, issuer and audience, and return the claims (RFC 7519 section 7.2). Raises Refused.

    A PyJWK carries its algorithm: the token's `alg` must be that one, so that an RSA public key can never serve as
    an HMAC secret (RFC 8725 section 3.1). Of several keys each is tried: only the signature says which one it was.
    """
    failure: jwt.PyJWTError | None = None
    for key in keys:
        try:
            return _payload(token.text, key, algorithms, issuer, audiences)
        except jwt.InvalidSignatureError as error:
            failure = error
        except jwt.PyJWTError as error:
            failure = error
            break
    reason = f"the token fails its check: {type(failure).__name__}"
    raise Refused(reason) from failure


def _payload(
    text: str, key: jwt.PyJWK | bytes, algorithms: Sequence[str], issuer: str, audiences: Sequence[str]
) -> dict[str, Any]:
    return jwt.decode(
        text,
        key=key,
        algorithms=list(algorithms),
        issuer=issuer,
        audience=list(audiences),
        options={
            "verify_signature": True,
            "require": ["exp", "iss", "aud", "sub"],
            "verify_iss": True,
            "verify_aud": True,
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

    def __init__(self, key_ring: KeyRing, *, algorithms: Sequence[str], issuer: str, audiences: Sequence[str]) -> None:
        """`algorithms` are of one family and come from settings, never from a token."""
        self._key_ring = key_ring
        self._algorithms = tuple(algorithms)
        self._issuer = issuer
        self._audiences = tuple(audiences)

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return the claims of a genuine token. Raises Refused, or Unavailable if the keys cannot be fetched."""
        if token.algorithm not in self._algorithms:
            # Before the keys are asked for: a forger's `alg` must not cost an outbound request.
            reason = "the token's alg is not one of this issuer's"
            raise Refused(reason)
        keys = await self._key_ring.find(token.key_id, token.algorithm)
        return verified_payload(
            token, keys=keys, algorithms=self._algorithms, issuer=self._issuer, audiences=self._audiences
        )
