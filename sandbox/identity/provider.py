"""Users, and the access tokens that identify them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import jwt

from sandbox.clock import Clock, system_clock
from sandbox.faults import Faults
from sandbox.identity.keys import Algorithm, KeyRing
from sandbox.recording import RequestLog

TOKEN_LIFETIME = 3600


@dataclass(frozen=True)
class User:
    """Somebody who can sign in, and the organisation whose data it is."""

    name: str
    org_id: str
    org_name: str
    email: str


USERS: Mapping[str, User] = {
    user.name: user
    for user in (
        User("alice", "org_acme", "Acme Inc", "alice@acme.example"),
        User("carol", "org_acme", "Acme Inc", "carol@acme.example"),
        User("bob", "org_globex", "Globex Corp", "bob@globex.example"),
    )
}


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Where the provider listens, and the addresses that its page is told."""

    own_url: str = "http://127.0.0.1:8200"
    broker_url: str = "http://127.0.0.1:8000"
    stackone_url: str = "http://127.0.0.1:8100"
    audience: str = "connect-broker"
    sandbox_key: str
    page_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TokenOrder:
    """A token to make; a claim of None is left out."""

    user: User
    claims: Mapping[str, object] = field(default_factory=dict)
    expires_in: float = TOKEN_LIFETIME
    algorithm: Algorithm | None = None


class IdentityProvider:
    """The state behind every route of the provider."""

    def __init__(self, config: IdentityConfig, *, clock: Clock = system_clock, keys: KeyRing | None = None) -> None:
        self.config = config
        self.clock = clock
        self.keys = keys or KeyRing()
        self.faults = Faults()
        self.sandbox_key = config.sandbox_key
        self.requests = RequestLog()
        self.service_key: str | None = None

    def mint(self, order: TokenOrder) -> str:
        """Return a signed access token."""
        now = self.clock()
        claims: dict[str, object] = {
            "iss": self.config.own_url,
            "aud": self.config.audience,
            "sub": order.user.name,
            "client_id": "connect-demo",
            "jti": secrets.token_hex(8),
            "org_id": order.user.org_id,
            "org_name": order.user.org_name,
            "email": order.user.email,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=order.expires_in)).timestamp()),
            **order.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.keys.signing(order.algorithm)
        # RFC 9068: an access token says that it is one, so that an ID token cannot pass for it.
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.kid, "typ": "at+jwt"})

    def user_of(self, token: str) -> User | None:
        """Return whom an access token of this provider names, or None."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = next(key for key in self.keys.published if key.kid == kid)
            public = key.private.public_key()
            claims = jwt.decode(token, public, algorithms=[key.algorithm], audience=self.config.audience)
        except (jwt.PyJWTError, StopIteration):
            return None
        return USERS.get(str(claims["sub"]))

    def reset(self) -> None:
        """Start over, with new keys."""
        self.keys = KeyRing()
        self.faults.clear()
        self.requests.entries.clear()
