"""Which published keys may verify what."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.identity.tokens.jwks import KeySet, UnusableKeySet, parse_key_set
from tests.support.tokens import SigningKey, ec_key, ed_key, rsa_key, segment


def key_set(*keys: object, algorithms: tuple[str, ...] = ("RS256",)) -> KeySet:
    return parse_key_set(json.dumps({"keys": keys}).encode(), algorithms)


def _private() -> dict[str, Any]:
    numbers = rsa_key().private.private_numbers()
    length = (numbers.d.bit_length() + 7) // 8
    return rsa_key().jwk(d=segment(numbers.d.to_bytes(length, "big")))


REFUSED: dict[str, Any] = {
    "symmetric": {"kty": "oct", "kid": "rsa-1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"},
    "symmetric-claiming-rs256": {"kty": "oct", "kid": "rsa-1", "k": "c2VjcmV0", "alg": "RS256"},
    "elliptic-curve": ec_key().jwk(),
    "elliptic-curve-claiming-rs256": ec_key().jwk(alg="RS256"),
    "edwards": ed_key().jwk(),
    "for-encryption": rsa_key().jwk(use="enc"),
    "use-null-byte": rsa_key().jwk(use="sig\x00"),
    "key-ops-sign-only": rsa_key().jwk(key_ops=["sign"]),
    "key-ops-text": rsa_key().jwk(key_ops="verify"),
    "other-algorithm": rsa_key().jwk(alg="RS512"),
    "encryption-algorithm": rsa_key().jwk(alg="RSA-OAEP"),
    "alg-number": rsa_key().jwk(alg=1),
    "private": _private,
    "1024-bits": lambda: rsa_key("weak", 1024).jwk(),
    "no-modulus": rsa_key().jwk(n=None),
    "modulus-number": rsa_key().jwk(n=5),
    "modulus-zero": rsa_key().jwk(n="AA"),
    "exponent-even": rsa_key().jwk(e="Ag"),
    "kid-number": rsa_key().jwk(kid=1),
    "kid-too-long": rsa_key().jwk(kid="k" * 257),
    "kty-list": rsa_key().jwk(kty=["RSA"]),
    "kty-missing": rsa_key().jwk(kty=None),
}


@pytest.mark.parametrize("jwk", REFUSED.values(), ids=REFUSED.keys())
def test_a_key_that_may_not_verify_is_left_out(jwk: Any) -> None:
    jwk = jwk() if callable(jwk) else jwk
    with pytest.raises(UnusableKeySet, match="no usable key"):
        key_set(jwk)
    beside_a_good_one = key_set(jwk, rsa_key("good").jwk())

    assert beside_a_good_one.find("good", "RS256")
    assert not beside_a_good_one.find(jwk["kid"] if isinstance(jwk.get("kid"), str) else "rsa-1", "RS256")


ACCEPTED: dict[str, tuple[SigningKey, str]] = {
    "RS256": (rsa_key(), "RS256"),
    "RS384": (rsa_key(), "RS384"),
    "RS512": (rsa_key(), "RS512"),
    "PS256": (rsa_key(), "PS256"),
    "PS512": (rsa_key(), "PS512"),
    "ES256": (ec_key(), "ES256"),
    "ES384": (ec_key("ec-384", "ES384"), "ES384"),
    "ES512": (ec_key("ec-512", "ES512"), "ES512"),
    "EdDSA": (ed_key(), "EdDSA"),
    "Ed25519": (ed_key(), "Ed25519"),
}


@pytest.mark.parametrize("declared", [True, False], ids=["alg-declared", "alg-left-out"])
@pytest.mark.parametrize(("key", "algorithm"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_every_algorithm_finds_its_key(key: SigningKey, algorithm: str, *, declared: bool) -> None:
    keys = key_set(key.jwk(alg=algorithm if declared else None, use=None), algorithms=(algorithm,))

    [found] = keys.find(key.kid, algorithm)

    assert found.algorithm_name == algorithm
    assert keys.find(None, algorithm) == [found]


def test_a_key_is_bound_to_the_algorithm_it_declares() -> None:
    keys = key_set(rsa_key().jwk(alg="PS256"), rsa_key("free").jwk(alg=None), algorithms=("RS256", "PS256"))

    assert not keys.find("rsa-1", "RS256")
    assert keys.find("rsa-1", "PS256")
    assert keys.find("free", "RS256")
    assert keys.find("free", "PS256")
    assert not keys.find("free", "RS512")


@pytest.mark.parametrize(
    "jwk",
    [
        ec_key("ec-384", "ES384").jwk(alg=None),
        ec_key().jwk(crv="P-384"),
        ec_key().jwk(crv=["P-256"]),
        ec_key().jwk(x="AA"),
    ],
    ids=["other-curve", "curve-misnamed", "curve-list", "short-coordinate"],
)
def test_a_curve_that_does_not_fit_is_left_out(jwk: dict[str, Any]) -> None:
    with pytest.raises(UnusableKeySet):
        key_set(jwk, algorithms=("ES256",))


def test_a_point_off_the_curve_is_left_out() -> None:
    """An invalid curve point can leak or fake what is computed with it."""
    with pytest.raises(UnusableKeySet):
        key_set(ec_key().jwk(y=ec_key("ec-other").jwk()["y"]), algorithms=("ES256",))


def test_the_coin_curve_is_not_p256() -> None:
    coin = SigningKey("coin", "ES256K", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(UnusableKeySet):
        key_set(coin.jwk(alg=None), algorithms=("ES256",))


def test_two_keys_of_one_name_are_both_left_out() -> None:
    keys = key_set(rsa_key().jwk(), rsa_key("rsa-2").jwk(kid="rsa-1"), rsa_key("rsa-3").jwk())

    assert not keys.find("rsa-1", "RS256")
    assert keys.find("rsa-3", "RS256")


def test_without_kid_only_an_only_key_is_meant() -> None:
    assert key_set(rsa_key().jwk(kid=None)).find(None, "RS256")
    assert not key_set(rsa_key().jwk(), rsa_key("rsa-2").jwk()).find(None, "RS256")
    assert key_set(rsa_key().jwk(), ec_key().jwk()).find(None, "RS256")


def test_a_key_without_a_name_answers_to_none() -> None:
    assert not key_set(rsa_key().jwk(kid=None)).find("rsa-1", "RS256")
    assert len(key_set(rsa_key().jwk(kid=None), rsa_key("rsa-2").jwk(kid=None)).find(None, "RS256")) == 2


@pytest.mark.parametrize("nothing", [None, "", []], ids=["null", "empty", "empty-list"])
def test_a_member_that_says_nothing_is_absent(nothing: object) -> None:
    silent = dict.fromkeys(("use", "key_ops", "alg", "x5c", "x5t", "d", "crv"), nothing)
    assert key_set({**rsa_key().jwk(), **silent}).find("rsa-1", "RS256")
    assert key_set({**rsa_key().jwk(), **silent, "kid": nothing}).find(None, "RS256")


def test_one_key_published_often_is_one_key() -> None:
    keys = key_set(
        rsa_key().jwk(),
        rsa_key().jwk(),
        rsa_key().jwk(alg="RS384"),
        rsa_key().jwk(alg="RS512", kid="other-name"),
        algorithms=("RS256", "RS384", "RS512"),
    )
    for key_id in ("rsa-1", "other-name", None):
        for algorithm in ("RS256", "RS384", "RS512"):
            assert [key.algorithm_name for key in keys.find(key_id, algorithm)] == [algorithm]
    assert keys.left_out == ()


def test_one_key_written_in_several_ways_is_one_key() -> None:
    jwk = rsa_key().jwk()
    raw = base64.urlsafe_b64decode(jwk["n"] + "==")
    spellings = [
        base64.urlsafe_b64encode(raw).decode(),
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(b"\0" + raw).decode().rstrip("="),
    ]
    keys = key_set(jwk, *({**jwk, "n": spelling} for spelling in spellings))
    assert len(keys.find("rsa-1", "RS256")) == 1
    assert len(keys.find(None, "RS256")) == 1
    assert keys.left_out == ()


def test_what_is_left_out_is_told_with_the_reason() -> None:
    keys = key_set(
        rsa_key().jwk(),
        rsa_key("rsa-2").jwk(kid="enc\x1b", use="enc"),
        rsa_key("rsa-3").jwk(kid="oaep", alg="RSA-OAEP"),
        rsa_key("rsa-4").jwk(kid="twice"),
        rsa_key("rsa-5").jwk(kid="twice"),
        "no object",
    )
    assert keys.left_out == (
        "key enc?: it is not for signatures",
        "key oaep: it is not for RS256",
        "key 5: it is not for RS256",
        "key twice: another key has the same kid",
    )


def test_a_byte_order_mark_is_no_part_of_the_keys() -> None:
    body = json.dumps({"keys": [rsa_key().jwk()]}).encode("utf-8-sig")
    assert parse_key_set(body, ("RS256",)).find("rsa-1", "RS256")
