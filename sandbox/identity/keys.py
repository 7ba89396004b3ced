"""Signing keys: made at the start, held in memory, rotated on request."""

import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Algorithm = Literal["RS256", "ES256"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_KEPT_KEYS = 10


@dataclass(frozen=True)
class SigningKey:
    """One private key, and its public half as it is published."""

    kid: str
    algorithm: Algorithm
    private: PrivateKey
    public_jwk: dict[str, object]


class KeyRing:
    """The keys that sign now, one for each algorithm, and every key that is still published."""

    def __init__(self) -> None:
        """Start with one key for each algorithm; RS256 is the default."""
        self.default: Algorithm = "RS256"
        self.published: list[SigningKey] = []
        self._signing: dict[Algorithm, SigningKey] = {}
        for algorithm in ALGORITHMS:
            self._add(_new_key(algorithm))

    def signing(self, algorithm: Algorithm | None = None) -> SigningKey:
        """Return the key that signs now."""
        return self._signing[algorithm or self.default]

    def rotate(self, algorithm: Algorithm, *, keep_old: bool) -> SigningKey:
        """Sign with a new key from now on; without `keep_old` the old ones are no longer published."""
        if not keep_old:
            self.published = [key for key in self.published if key.algorithm != algorithm]
        self.default = algorithm
        return self._add(_new_key(algorithm))

    def jwks(self) -> dict[str, object]:
        """Return the published keys as a JWK set, the newest first."""
        return {"keys": [key.public_jwk for key in reversed(self.published)]}

    def _add(self, key: SigningKey) -> SigningKey:
        self._signing[key.algorithm] = key
        self.published = [*self.published, key][-_KEPT_KEYS:]
        return key


def _new_key(algorithm: Algorithm) -> SigningKey:
    private: PrivateKey
    if algorithm == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
        public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    kid = f"{algorithm.lower()}-{secrets.token_hex(6)}"
    return SigningKey(kid, algorithm, private, {**public, "kid": kid, "alg": algorithm, "use": "sig"})
