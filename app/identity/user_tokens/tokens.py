"""Making and verifying user tokens: JWTs that this broker signs, and accepts on browser routes only."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import jwt
from pydantic import SecretStr

from app.identity.caller import EndUser
from app.identity.refusal import Refused
from app.identity.remembered import Verified
from app.identity.tokens.claims import is_decent_text
from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import Expected, verified_payload
from app.identity.user_tokens.revocations import Revocations
from app.settings import UserTokenSettings
from app.settings.user_tokens import LONGEST_USER_TOKEN

ISSUER: Final = "urn:connect-broker:user-tokens"
_ALGORITHM: Final = "HS256"
# RFC 8725 section 3.11: nothing else that was signed with the same secret can be taken for one of these.
_TYPE: Final = "connect-broker-user+jwt"
_LEEWAY_SECONDS: Final = 30.0


@dataclass(frozen=True)
class UserTokenRequest:
    """For whom a backend wants a token."""

    user: str
    owner_name: str | None = None
    expires_in: int | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What policy may look at."""


@dataclass(frozen=True)
class UserToken:
    """A token for the browser."""

    id: str
    token: SecretStr
    expires_at: datetime
    expires_in: int


def make_user_token(
    settings: UserTokenSettings,
    owner_id: str,
    request: UserTokenRequest,
    *,
    token_id: str,
    as_of: int,
    now: datetime,
) -> UserToken:
    """Sign a token for a user of an owner; `as_of` is how many revocations there have been. There is a secret."""
    secret = settings.secrets[0].get_secret_value().encode()
    expires_in = request.expires_in or settings.expires_in_seconds
    expires_at = now + timedelta(seconds=expires_in)
    payload = {
        "iss": ISSUER,
        "aud": settings.audience,
        "sub": request.user,
        "iat": int(now.timestamp()),
        "exp": int(expires_at.timestamp()),
        "jti": token_id,
        "owner_id": owner_id,
        "owner_name": request.owner_name or owner_id,
        "as_of": as_of,
        "claims": dict(request.claims),
    }
    headers = {"typ": _TYPE, "kid": _key_id(secret)}
    text = jwt.encode(payload, secret, algorithm=_ALGORITHM, headers=headers)
    return UserToken(token_id, SecretStr(text), expires_at, expires_in)


class OwnUserTokens:
    """Verifies user tokens of this broker's own."""

    def __init__(self, settings: UserTokenSettings, revocations: Revocations) -> None:
        """Accept what any of the secrets has signed."""
        self._secrets: Sequence[bytes] = [secret.get_secret_value().encode() for secret in settings.secrets]
        self._expected = Expected((_ALGORITHM,), ISSUER, (settings.audience,))
        self._revocations = revocations

    async def verified(self, token: UnverifiedToken, *, now: float) -> Verified[EndUser]:
        """Return whom a token is about. Raises Refused, or DatabaseUnavailable while revocations cannot be read."""
        if token.algorithm != _ALGORITHM or token.type != _TYPE:
            reason = "the token names this broker as its issuer, and is of another type"
            raise Refused(reason)
        payload = verified_payload(token, self._expected, keys=self._secrets)
        user, until, as_of = _read(payload, now)

        def holds() -> bool:
            return not self._revocations.ended(user.owner_id, user.subject, as_of)

        await self._revocations.refresh()
        if not holds():
            reason = "the user token was revoked"
            raise Refused(reason)
        return Verified(user, until, holds)

    def look_again(self) -> None:
        """Read revocations anew at the next token."""
        self._revocations.look_again()

    async def refresh(self) -> None:
        """Learn what was revoked meanwhile, before a remembered token counts."""
        await self._revocations.refresh()


def _read(payload: Mapping[str, Any], now: float) -> tuple[EndUser, float, int]:
    """Return whom a genuine token is about, until when, and after how many revocations it was made."""
    owner_id, owner_name, subject = payload.get("owner_id"), payload.get("owner_name"), payload.get("sub")
    issued_at, expires_at, as_of = payload.get("iat"), payload.get("exp"), payload.get("as_of")
    claims = payload.get("claims")
    is_whole = all(isinstance(number, int) for number in (issued_at, expires_at, as_of)) and isinstance(claims, dict)
    if not is_whole or not all(is_decent_text(text) for text in (owner_id, owner_name, subject)):
        reason = "the user token is not one that this broker makes"
        raise Refused(reason)
    assert isinstance(issued_at, int) and isinstance(expires_at, int)  # noqa: S101, PT018  so says `is_whole`
    if expires_at <= now:
        reason = "the token has expired"
        raise Refused(reason)
    if issued_at > now + _LEEWAY_SECONDS or expires_at - issued_at > LONGEST_USER_TOKEN:
        reason = "the token is not valid yet, or lives longer than user tokens may"
        raise Refused(reason)
    user = EndUser(
        issuer=ISSUER,
        subject=str(subject),
        owner_id=str(owner_id),
        owner_name=str(owner_name),
        username=str(subject),
        claims=MappingProxyType({**(claims or {}), "sub": subject}),
    )
    return user, float(expires_at), int(as_of or 0)


def _key_id(secret: bytes) -> str:
    """Name a secret in tokens, so that a person can tell which one signed; nothing can be learned from it."""
    return hashlib.sha256(b"connect-broker user token key\0" + secret).hexdigest()[:8]
