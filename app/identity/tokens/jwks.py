"""A JSON Web Key Set (RFC 7517) cut down to the keys that may verify a token of one issuer."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from app.identity.tokens.unverified import MAXIMUM_KEY_ID_LENGTH

MAXIMUM_KEYS = 50
_SHOWN_KEY_ID_LENGTH = 64
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_BASE64URL = str.maketrans("+/", "-_")
# What makes two entries one key (RFC 7638 section 3.2).
_MATERIAL = ("kty", "crv", "x", "y", "n", "e")


class UnusableKeySet(Exception):
    """Keys were answered, but none that may be used; the text is ours and fit for a log."""


class _LeftOut(Exception):
    """An entry that may not verify anything here, as most key sets have some; the text says why."""


@dataclass(frozen=True)
class _UsableKey:
    """One entry, ready for each algorithm it may be used with."""

    key_id: str | None
    material: tuple[str, ...]
    by_algorithm: Mapping[str, jwt.PyJWK]


class KeySet:
    """The usable keys of one issuer; a token's `kid` is only looked up among them."""

    def __init__(self, keys: Sequence[_UsableKey], left_out: Sequence[str] = ()) -> None:
        """Index the keys. Two different keys with one id are both left out: which of them counts would be a guess."""
        self._keys: dict[tuple[str, ...], dict[str, jwt.PyJWK]] = {}
        names: dict[str | None, set[tuple[str, ...]]] = {}
        for key in keys:
            # The same key again, or once per algorithm, is one key.
            self._keys.setdefault(key.material, {}).update(key.by_algorithm)
            names.setdefault(key.key_id, set()).add(key.material)
        self._unnamed = names.pop(None, set())
        self._named = {name: next(iter(materials)) for name, materials in names.items() if len(materials) == 1}
        twice = [_shown(name) for name, materials in names.items() if len(materials) > 1]
        self.left_out = (*left_out, *(f"{name}: another key has the same kid" for name in twice))
        """What the issuer published and is not used, and why; fit for a log."""
        if not self._named and not self._unnamed:
            message = "the key set has no usable key"
            if self.left_out:
                message += f" ({'; '.join(self.left_out[:3])})"
            raise UnusableKeySet(message)

    def find(self, key_id: str | None, algorithm: str) -> Sequence[jwt.PyJWK]:
        """Return the keys that may have signed a token.

        One that names no key may be signed with any key without a name, or with the only key that there is.
        """
        if key_id is not None:
            found = {self._named[key_id]} if key_id in self._named else set()
        else:
            found = self._unnamed or (set(self._keys) if len(self._keys) == 1 else set())
        keys = (self._keys[material].get(algorithm) for material in found)
        return [key for key in keys if key is not None]


def parse_key_set(body: bytes, algorithms: Sequence[str], *, of_many: bool = False) -> KeySet:
    """Read a JWKS, keeping keys for signatures by the given algorithms. Raises UnusableKeySet.

    A set that serves many tenants (`of_many`) may have keys that are for one of them only.
    """
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        message = "the key set is not JSON"
        raise UnusableKeySet(message) from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAXIMUM_KEYS:
        message = f"the key set has no list of keys, or more than {MAXIMUM_KEYS}"
        raise UnusableKeySet(message)
    usable: list[_UsableKey] = []
    left_out: list[str] = []
    for number, entry in enumerate(listed):
        # Some libraries publish every member there is: null and empty ones say nothing.
        jwk = (
            {name: value for name, value in entry.items() if value not in (None, "", [])}
            if isinstance(entry, dict)
            else {}
        )
        try:
            usable.append(_usable(jwk, algorithms, of_many=of_many))
        except _LeftOut as reason:
            left_out.append(f"{_shown(jwk.get('kid', number))}: {reason}")
    return KeySet(usable, left_out)


def _shown(key_id: object) -> str:
    """Write a key's id, or its place in the list; the issuer chose the text."""
    text = str(key_id) if isinstance(key_id, (str, int)) else "?"
    return "key " + "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:_SHOWN_KEY_ID_LENGTH])


def _usable(jwk: dict[str, Any], algorithms: Sequence[str], *, of_many: bool) -> _UsableKey:
    """Return a key for the algorithms that it may be used with. Raises _LeftOut."""
    if of_many and "{" not in str(jwk.get("issuer", "{")):
        # Microsoft's sets name the issuer that a key is for: whoever holds this one could sign others' tokens.
        raise _LeftOut("it is for one tenant only")
    key_id = jwk.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or len(key_id) > MAXIMUM_KEY_ID_LENGTH):
        raise _LeftOut("its kid is no text, or too long")
    if jwk.get("use", "sig") != "sig" or "verify" not in _listed(jwk.get("key_ops", ["verify"])):
        raise _LeftOut("it is not for signatures")
    if "d" in jwk:
        # Everybody can sign with this key.
        raise _LeftOut("its private half is published")
    ready: dict[str, jwt.PyJWK] = {}
    reasons: list[str] = []
    for algorithm in algorithms:
        try:
            ready[algorithm] = _ready(jwk, algorithm)
        except _LeftOut as reason:
            reasons.append(str(reason))
    if not ready:
        raise _LeftOut(reasons[0])
    return _UsableKey(key_id, tuple(_written_alike(str(jwk.get(name))) for name in _MATERIAL), ready)


def _written_alike(member: str) -> str:
    """Write a number as RFC 7518 has it: some publish it padded, in the other base64, or with Java's zero before it."""
    plain = member.rstrip("=").translate(_BASE64URL)
    try:
        raw = base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return member
    return base64.urlsafe_b64encode(raw.lstrip(b"\0")).decode()


def _ready(jwk: dict[str, Any], algorithm: str) -> jwt.PyJWK:
    """Bind a key to an algorithm. Raises _LeftOut unless it is of that type, curve and size and declares no other."""
    # Key type and algorithm are matched here rather than taken from the key: a symmetric ("oct") key in a public set
    # must never verify anything, and without `alg` the library would guess RS256 for a PS256 key.
    right_type = jwk.get("kty") == _KEY_TYPES[algorithm[:2]]
    right_curve = algorithm not in _CURVES or jwk.get("crv") == _CURVES[algorithm]
    if not right_type or not right_curve or jwk.get("alg", algorithm) != algorithm:
        raise _LeftOut(f"it is not for {algorithm}")
    try:
        # RFC 9864 calls the same signature Ed25519 that the library only knows as EdDSA.
        key = jwt.PyJWK(jwk, algorithm="EdDSA" if algorithm == "Ed25519" else algorithm)
    except jwt.PyJWTError:
        raise _LeftOut("it is malformed") from None
    key.algorithm_name = algorithm
    if key.Algorithm.check_key_length(key.key):
        raise _LeftOut("it is too short to be safe")
    return key


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
