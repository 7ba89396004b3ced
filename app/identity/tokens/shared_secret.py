"""Verification of HS* tokens: a home-made login signs them with a secret that the broker was given too."""

from collections.abc import Sequence
from typing import Any

import jwt

from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import Expected, verified_payload

# RFC 7518 section 3.2: an HMAC key has at least the size of the hash.
_MINIMUM_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}


class SharedSecretVerifier:
    """Verifies tokens of one issuer with the secrets shared with it, any of them; `kid` means nothing here."""

    def __init__(self, secrets: Sequence[bytes], expected: Expected) -> None:
        """Take the secrets. Raises ValueError if one is too short for one of the algorithms, or is no secret."""
        for secret in secrets:
            _check(secret, expected.algorithms)
        self._secrets = tuple(secrets)
        self._expected = expected

    async def verify(self, token: UnverifiedToken) -> dict[str, Any]:
        """Return the claims of a genuine token. Raises Refused."""
        return verified_payload(token, self._expected, keys=self._secrets)

    def trusted(self) -> object | None:
        """Return something that never changes: secrets change with a restart."""
        return self


def _check(secret: bytes, algorithms: Sequence[str]) -> None:
    for algorithm in algorithms:
        if len(secret) < _MINIMUM_BYTES[algorithm]:
            message = f"the secret must have at least {_MINIMUM_BYTES[algorithm]} bytes for {algorithm}"
            raise ValueError(message)
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.PyJWTError as error:
        message = "the secret looks like a public key or certificate; anyone who has that could sign tokens"
        raise ValueError(message) from error
