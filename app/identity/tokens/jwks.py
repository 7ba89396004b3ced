"""A JSON Web Key Set (RFC 7517) cut down to the keys that may verify a token of one issuer."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from app.identity.tokens.unverified import MAXIMUM_KEY_ID_LENGTH

MAXIMUM_KEYS = 50
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class UnusableKeySet(Exception):
    """Keys were answered, but none that may be used; the text is ours and fit for a log."""


@dataclass(frozen=True)
class UsableKey:
    """One published key, ready for each algorithm it may be used with."""

    key_id: str | None
    by_algorithm: Mapping[str, jwt.PyJWK]


class KeySet:
    """The usable keys of one issuer; a token's `kid` is only looked up among them."""

    def __init__(self, keys: Sequence[UsableKey]) -> None:
        """Index the keys. Two keys with one id are both left out: which of them counts would be a guess."""
        seen = Counter(key.key_id for key in keys)
        self._named = {key.key_id: key for key in keys if key.key_id is not None and seen[key.key_id] == 1}
        self._only = keys[0] if len(keys) == 1 else None
        if not self._named and self._only is None:
            message = "the key set has no usable key"
            raise UnusableKeySet(message)

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token; one that names no key is accepted only where there is exactly one."""
        key = self._only if key_id is None else self._named.get(key_id)
        return None if key is None else key.by_algorithm.get(algorithm)


def parse_key_set(body: bytes, algorithms: Sequence[str]) -> KeySet:
    """Read a JWKS, keeping keys for signatures by the given algorithms. Raises UnusableKeySet."""
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        message = "the key set is not JSON"
        raise UnusableKeySet(message) from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAXIMUM_KEYS:
        message = f"the key set has no list of keys, or more than {MAXIMUM_KEYS}"
        raise UnusableKeySet(message)
    usable = [_usable(jwk, algorithms) for jwk in listed if isinstance(jwk, dict)]
    return KeySet([key for key in usable if key is not None])


def _usable(jwk: dict[str, Any], algorithms: Sequence[str]) -> UsableKey | None:
    key_id = jwk.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > MAXIMUM_KEY_ID_LENGTH):
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in _listed(jwk.get("key_ops", ["verify"])):
        return None
    if "d" in jwk:
        # The private half is published: everybody can sign with this key.
        return None
    ready = {algorithm: key for algorithm in algorithms if (key := _ready(jwk, algorithm)) is not None}
    return UsableKey(key_id, ready) if ready else None


def _ready(jwk: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """Bind a key to an algorithm, if it is of the right type, curve and size and does not declare another one."""
    # Key type and algorithm are matched here rather than taken from the key: a symmetric ("oct") key in a public set
    # must never verify anything, and without `alg` the library would guess RS256 for a PS256 key.
    right_type = jwk.get("kty") == _KEY_TYPES[algorithm[:2]]
    right_curve = algorithm not in _CURVES or jwk.get("crv") == _CURVES[algorithm]
    if not right_type or not right_curve or jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        # RFC 9864 calls the same signature Ed25519 that the library only knows as EdDSA.
        key = jwt.PyJWK(jwk, algorithm="EdDSA" if algorithm == "Ed25519" else algorithm)
    except jwt.PyJWTError:
        return None
    key.algorithm_name = algorithm
    return None if key.Algorithm.check_key_length(key.key) else key


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
