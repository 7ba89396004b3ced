"""Which credential of a request counts, and which verifier checks it.

One credential, one verifier: chosen by what the credential says about itself, never by trying one after the other. An
Authorization header decides alone: where there is one, good or bad, the cookie is not looked at (RFC 10017 section
6.1.3.3: a page of another origin can make a browser attach a cookie, but not that header). Without cookie settings,
cookies are ignored.
"""

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from app.clock import Clock
from app.db.database import Database
from app.errors import InvalidRequest, Unauthenticated
from app.identity.caller import EndUser, Service
from app.identity.cookie import check_same_site, find_cookie
from app.identity.refusal import Refused
from app.identity.service_keys.authenticate import ServiceKeys
from app.identity.service_keys.keys import KEY_PREFIX
from app.identity.tokens.end_users import UserIssuer
from app.identity.tokens.issuers import IssuerStatus, TrustedIssuers, open_issuers
from app.identity.tokens.machines import MachineIssuer
from app.identity.tokens.oidc import Transport
from app.identity.tokens.unverified import UnverifiedToken, peek
from app.settings import CookieSettings, HttpSettings, IdentitySettings, ServiceKeySettings

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
AnyIssuer = TypeVar("AnyIssuer", UserIssuer, MachineIssuer)


@dataclass(frozen=True)
class Credentials:
    """What a request carries that may prove who sent it, unchecked."""

    authorization: Sequence[str] = field(repr=False)
    cookies: Sequence[str] = field(repr=False)
    origin: str | None
    sec_fetch_site: str | None
    csrf_header: str | None
    """The value of the header that `CookieSettings.csrf_header` names."""


class Authenticator:
    """Turns credentials into callers. Every failure is the same 401, except what the caller can fix or wait for."""

    def __init__(
        self,
        issuers: TrustedIssuers,
        service_keys: ServiceKeys,
        *,
        cookie: CookieSettings | None,
        allowed_origins: Collection[str],
        max_token_length: int,
        clock: Clock,
    ) -> None:
        """Take over what `open_authenticator` has put together."""
        self._issuers = issuers
        self._service_keys = service_keys
        self._cookie = cookie
        self._allowed_origins = frozenset(allowed_origins)
        self._max_token_length = max_token_length
        self._clock = clock

    @property
    def csrf_header(self) -> str | None:
        """Name the header whose value goes into `Credentials.csrf_header`; None where cookies are not accepted."""
        return self._cookie.csrf_header if self._cookie else None

    async def end_user(self, credentials: Credentials) -> EndUser:
        """Return the user that a browser route is called by.

        Raises Unauthenticated, InvalidRequest (two credentials), CsrfRefused, or Unavailable (issuer away).
        """
        text = _bearer(credentials.authorization) or self._from_cookie(credentials)
        if text is None:
            reason = "no credential"
            raise Unauthenticated(reason, credential_sent=False)
        if text.startswith(KEY_PREFIX):
            reason = "a service key on a browser route"
            raise Refused(reason)
        token = self._peek(text)
        return await _trusted(self._issuers.users, token).end_user(token, now=self._clock.now().timestamp())

    async def service(self, credentials: Credentials) -> Service:
        """Return the service that a service route is called by; cookies do not count there.

        Raises Unauthenticated, InvalidRequest (two credentials), or Unavailable (store or issuer away).
        """
        text = _bearer(credentials.authorization)
        if text is None:
            reason = "no credential"
            raise Unauthenticated(reason, credential_sent=False)
        if text.startswith(KEY_PREFIX):
            return await self._service_keys.authenticate(text)
        token = self._peek(text)
        return await _trusted(self._issuers.machines, token).service(token, now=self._clock.now().timestamp())

    async def warm(self) -> None:
        """Fetch issuers' keys that are missing, within their cooldowns; never raises.

        Called at the start and by `broker doctor`.
        """
        await self._issuers.warm()

    def issuers_status(self) -> list[IssuerStatus]:
        """Say for each issuer with published keys whether we have them, and if not, why."""
        return self._issuers.status()

    def _peek(self, text: str) -> UnverifiedToken:
        if len(text) > self._max_token_length:
            reason = "the token is too long"
            raise Refused(reason)
        return peek(text)

    def _from_cookie(self, credentials: Credentials) -> str | None:
        if self._cookie is None:
            return None
        text = find_cookie(credentials.cookies, self._cookie.name)
        if text is not None:
            # Before the token is looked at: another site must not even learn whether the user is logged in.
            check_same_site(
                csrf_header=credentials.csrf_header,
                sec_fetch_site=credentials.sec_fetch_site,
                origin=credentials.origin,
                allowed_origins=self._allowed_origins,
            )
        return text


def _bearer(headers: Sequence[str]) -> str | None:
    """Return the token of the Authorization header (RFC 6750 section 2.1), or None if there is no such header."""
    if not headers:
        return None
    if len(headers) > 1:
        message = "more than one Authorization header"
        raise InvalidRequest(message)
    match = _BEARER.fullmatch(headers[0])
    if match is None:
        reason = "the Authorization header is not a well-formed Bearer"
        raise Refused(reason)
    return match[1]


def _trusted(issuers: Mapping[str, AnyIssuer], token: UnverifiedToken) -> AnyIssuer:
    """Look the issuer up by name; that is all an unverified token is good for."""
    issuer = issuers.get(token.issuer)
    if issuer is None:
        reason = "the token's issuer is not trusted on these routes"
        raise Refused(reason)
    return issuer


@asynccontextmanager
async def open_authenticator(
    settings: IdentitySettings,
    service_key_settings: ServiceKeySettings,
    http: HttpSettings,
    *,
    database: Database,
    clock: Clock,
    transport: Transport | None = None,
) -> AsyncIterator[Authenticator]:
    """Put an Authenticator together and own its HTTP client; no issuer is asked before a token (or `warm`) needs it.

    Raises SettingsError for a secret or key file that cannot be used.
    """
    secrets = (service_key_settings.pepper, *service_key_settings.previous_peppers)
    peppers = [secret.get_secret_value().encode() for secret in secrets]
    async with open_issuers(settings, clock=clock, transport=transport) as issuers:
        yield Authenticator(
            issuers,
            ServiceKeys(database, peppers, clock),
            cookie=settings.cookie,
            allowed_origins=http.allowed_origins,
            # A token cannot be longer than the head that carries it; groups and roles make some of 11 KB.
            max_token_length=http.max_header_bytes,
            clock=clock,
        )
