"""Real keys, issuers that sign whatever they are asked to, and the web server where their keys are found.

Nothing here goes through the library that the broker verifies with, except for the bare signature of bytes: a token
is put together by hand, so that every forgery can be made.
"""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.settings import IssuerSettings, MachineIssuerSettings

Signer = Callable[[bytes], bytes]
_CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


class StoppedClock:
    """A clock that moves only when told to."""

    def __init__(self, now: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) -> None:
        """Stop at a moment; the monotonic side starts at an odd number, so that nobody takes it for an age."""
        self._now = now
        self._monotonic = 5_000.0

    def now(self) -> datetime:
        """Return the moment."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


@dataclass(frozen=True)
class SigningKey:
    """A private key, its name, and the algorithm it signs with."""

    kid: str
    algorithm: str
    private: Any

    def sign(self, message: bytes) -> bytes:
        """Sign bytes."""
        return jwt.get_algorithm_by_name(self.algorithm).sign(message, self.private)

    def using(self, algorithm: str) -> "SigningKey":
        """Return the same key for another algorithm of its family."""
        return SigningKey(self.kid, algorithm, self.private)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public half as an entry of a key set; a change to None leaves a member out."""
        public = json.loads(jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private.public_key()))
        members = {"kid": self.kid, "use": "sig", "alg": self.algorithm, **public, **changes}
        members.pop("key_ops", None) if "key_ops" not in changes else None
        return {name: value for name, value in members.items() if value is not None}

    def public_pem(self) -> bytes:
        """Return the public half as an attacker would find it."""
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem


@cache
def rsa_key(kid: str = "rsa-1", bits: int = 2048) -> SigningKey:
    """Return the RSA key of that name, made once per session."""
    return SigningKey(kid, "RS256", rsa.generate_private_key(public_exponent=65537, key_size=bits))


@cache
def ec_key(kid: str = "ec-1", algorithm: str = "ES256") -> SigningKey:
    """Return the elliptic-curve key of that name, made once per session."""
    return SigningKey(kid, algorithm, ec.generate_private_key(_CURVES[algorithm]()))


@cache
def ed_key(kid: str = "ed-1") -> SigningKey:
    """Return the Ed25519 key of that name, made once per session."""
    return SigningKey(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def hmac_signer(secret: bytes, digest: str = "sha256") -> Signer:
    """Sign with a secret, whatever that secret really is."""
    return lambda message: hmac.digest(secret, message, digest)


def segment(value: object) -> str:
    """Spell a part of a token: bytes as they are, everything else as JSON, in base64url without padding."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def compact(header: object, payload: object, sign: Signer) -> str:
    """Put a token together."""
    signed = f"{segment(header)}.{segment(payload)}"
    return f"{signed}.{segment(sign(signed.encode()))}"


class Issuer:
    """An identity provider: who it is, the keys it has published, and tokens to order."""

    def __init__(
        self,
        clock: StoppedClock,
        url: str = "https://login.example.test",
        *,
        audience: str = "connect-broker",
        key: SigningKey | None = None,
        secret: str | None = None,
    ) -> None:
        """Publish one key (RSA unless told otherwise), or share a secret and publish nothing."""
        self.url = url
        self.audience = audience
        self.secret = secret
        self.key = key or rsa_key()
        self.published: list[dict[str, Any]] = [] if secret else [self.key.jwk()]
        self._clock = clock

    @property
    def now(self) -> int:
        """Return the present as a NumericDate."""
        return int(self._clock.now().timestamp())

    def settings(self, **changes: Any) -> IssuerSettings:
        """Return settings that trust this issuer."""
        return IssuerSettings.model_validate(self._settings(changes))

    def machine_settings(self, **changes: Any) -> MachineIssuerSettings:
        """Return settings that trust this issuer with machine tokens."""
        return MachineIssuerSettings.model_validate(self._settings(changes))

    def _settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "audiences": [self.audience],
            "algorithms": ["HS256"] if self.secret else [self.key.algorithm],
            "secret": self.secret,
            "claims": {"owner_id": "org_id", "owner_name": "org_name", "username": "email"},
            **changes,
        }

    def claims(self, *without: str, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token, changed."""
        good = {
            "iss": self.url,
            "aud": self.audience,
            "sub": "user-1",
            "iat": self.now,
            "exp": self.now + 300,
            "org_id": "acme",
            "org_name": "Acme Inc.",
            "email": "ann@acme.example",
        }
        return {name: value for name, value in {**good, **changes}.items() if name not in without}

    def header(self, *without: str, **changes: Any) -> dict[str, Any]:
        """Return the header of a good token, changed."""
        good = {"alg": "HS256" if self.secret else self.key.algorithm, "kid": self.key.kid, "typ": "JWT"}
        return {name: value for name, value in {**good, **changes}.items() if name not in without}

    def token(self, *without: str, **changes: Any) -> str:
        """Return a good token whose claims were changed, and then honestly signed."""
        return compact(self.header(), self.claims(*without, **changes), self.sign)

    def token_with_header(self, *without: str, **changes: Any) -> str:
        """Return a good token whose header was changed, and then honestly signed."""
        return compact(self.header(*without, **changes), self.claims(), self.sign)

    def sign(self, message: bytes) -> bytes:
        """Sign with whatever this issuer signs with."""
        return hmac_signer(self.secret.encode())(message) if self.secret else self.key.sign(message)

    def rotate(self, key: SigningKey, *, keep_old: bool = False) -> None:
        """Publish and use another key."""
        self.key = key
        self.published = [*(self.published if keep_old else []), key.jwk()]


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class IssuerServer(httpx2.AsyncBaseTransport):
    """The web, as far as issuers are on it: discovery and keys, with a record of who asked for what.

    `away` refuses connections; `hold` keeps requests waiting until the event is set; `answers` puts a finished answer
    (status, headers, body in pieces) in the place of an address.
    """

    def __init__(self, *issuers: Issuer) -> None:
        """Serve these issuers."""
        self.issuers = list(issuers)
        self.requests: list[httpx2.Request] = []
        self.away = False
        self.hold: asyncio.Event | None = None
        self.arrived = asyncio.Event()
        self.answers: dict[str, tuple[int, dict[str, str], Iterable[bytes]]] = {}

    @property
    def urls(self) -> list[str]:
        """List what was asked for, in order."""
        return [str(request.url) for request in self.requests]

    @property
    def key_fetches(self) -> int:
        """Count the key sets handed out or refused."""
        return sum(not url.endswith("/openid-configuration") for url in self.urls)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer like an identity provider."""
        self.requests.append(request)
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.away:
            message = "refused"
            raise httpx2.ConnectError(message)
        url = str(request.url)
        status, headers, pieces = self.answers.get(url) or self._answer(url)
        return httpx2.Response(status, headers=headers, stream=_Pieces(pieces), request=request)

    def _answer(self, url: str) -> tuple[int, dict[str, str], Iterable[bytes]]:
        for issuer in self.issuers:
            home = issuer.url.rstrip("/")
            if url == f"{home}/.well-known/openid-configuration":
                return self.json({"issuer": issuer.url, "jwks_uri": f"{home}/keys"})
            if url == f"{home}/keys":
                return self.json({"keys": issuer.published})
        return 404, {}, [b"not here"]

    @staticmethod
    def json(value: object) -> tuple[int, dict[str, str], Iterable[bytes]]:
        """Make an entry for `answers`."""
        return 200, {"content-type": "application/json"}, [json.dumps(value).encode()]
