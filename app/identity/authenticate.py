"""Which credential of a request counts, and which verifier checks it.

One credential, one verifier: chosen by what the credential says about itself, never by trying one after the other. An
Authorization header decides alone: where there is one, good or bad, the cookie is not looked at (RFC 10017 section
6.1.3.3: a page of another origin can make a browser attach a cookie, but not that header). Without cookie settings,
cookies are ignored.
"""

import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.clock import Clock
from app.db.database import Database
from app.errors import InvalidRequest, Unauthenticated
from app.identity.caller import EndUser, Service
from app.identity.cookie import check_same_site, find_cookie
from app.identity.explain import Explanation, explain_token
from app.identity.refusal import Refused
from app.identity.remembered import Remembered
from app.identity.service_keys.authenticate import ServiceKeys
from app.identity.service_keys.keys import KEY_PREFIX
from app.identity.tokens.issuers import AnyIssuer, Issuers, IssuerStatus, TrustedIssuers, open_issuers
from app.identity.tokens.oidc import Transport
from app.identity.tokens.unverified import UnverifiedToken, peek
from app.identity.user_tokens.revocations import Revocations
from app.identity.user_tokens.tokens import ISSUER, OwnUserTokens
from app.metrics import Metrics
from app.settings import CookieSettings, HttpSettings, IdentitySettings, ServiceKeySettings, UserTokenSettings
from app.settings.reach import Places

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
_NO_USER_TOKENS = UserTokenSettings()


@dataclass(frozen=True)
class Credentials:
    """What a request carries that may prove who sent it, unchecked."""

    authorization: Sequence[str] = field(repr=False)
    cookies: Sequence[str] = field(repr=False)
    origin: str | None
    sec_fetch_site: str | None
    csrf_header: str | None
    """The value of the header that `CookieSettings.csrf_header` names."""
    proxied: Sequence[tuple[str, str]] = field(default=(), repr=False)
    """Headers, in lower case, in which a proxy may pass a token, with their values."""
    peer: str | None = None
    """The address that the request came from directly, whatever it forwards."""


class Authenticator:
    """Turns credentials into callers. Every failure is the same 401, except what the caller can fix or wait for."""

    def __init__(
        self,
        issuers: TrustedIssuers,
        service_keys: ServiceKeys,
        *,
        user_tokens: OwnUserTokens | None,
        cookie: CookieSettings | None,
        csrf_header: str | None,
        proxy_headers: Collection[str],
        trusted_proxies: Places,
        allowed_origins: Collection[str],
        max_token_length: int,
        clock: Clock,
    ) -> None:
        """Take over what `open_authenticator` has put together."""
        self._issuers = issuers
        self._service_keys = service_keys
        self._user_tokens = user_tokens
        self._cookie = cookie
        self._csrf_header = csrf_header
        self._proxy_headers = frozenset(header.lower().encode() for header in proxy_headers)
        self._proxies = trusted_proxies
        self._allowed_origins = frozenset(allowed_origins)
        self._max_token_length = max_token_length
        self._clock = clock
        self.remembered = Remembered()
        """Whose credentials were verified a moment ago; who revokes one forgets it here."""

    @property
    def csrf_header(self) -> str | None:
        """Name the header whose value goes into `Credentials.csrf_header`; None where no cookie counts."""
        return self._csrf_header

    @property
    def proxy_headers(self) -> frozenset[bytes]:
        """Name the headers, in lower case, in which proxies pass tokens."""
        return self._proxy_headers

    async def end_user(self, credentials: Credentials) -> EndUser:
        """Return the user that a browser route is called by.

        Raises Unauthenticated, InvalidRequest (two credentials), CsrfRefused, or Unavailable (issuer away).
        """
        header: str | None = None
        text = _bearer(credentials.authorization)
        if text is None and (proxied := self._from_proxy(credentials)) is not None:
            header, text = proxied
        text = text or self._from_cookie(credentials)
        if text is None:
            reason = "no credential"
            raise Unauthenticated(reason, credential_sent=False)
        if text.startswith(KEY_PREFIX):
            reason = "a service key on a browser route"
            raise Refused(reason)
        now = self._clock.now().timestamp()
        # A token counts where its issuer's tokens are accepted: what came through a proxy is no Bearer.
        known_as = f"{header}:{text}" if header else text
        user = self.remembered.recall(EndUser, known_as, now)
        if user is not None and user.issuer == ISSUER and self._user_tokens is not None:
            # What is remembered may have been revoked by another process.
            await self._user_tokens.refresh()
            user = self.remembered.recall(EndUser, known_as, now)
        if user is None:
            token = self._peek(text)
            own = self._user_tokens if token.issuer == ISSUER and header is None else None
            verified = await (own or _trusted(self._issuers.users, token, header)).verified(token, now=now)
            self.remembered.remember(known_as, verified)
            user = verified.caller
        return user

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
        now = self._clock.now().timestamp()
        service = self.remembered.recall(Service, text, now)
        if service is None:
            token = self._peek(text)
            verified = await _trusted(self._issuers.machines, token).verified(token, now=now)
            self.remembered.remember(text, verified)
            service = verified.caller
        return service

    def look_for_revocations(self) -> None:
        """Read revocations of user tokens anew before the next one counts."""
        if self._user_tokens is not None:
            self._user_tokens.look_again()

    async def warm(self) -> None:
        """Fetch issuers' keys that are missing, within their cooldowns; never raises.

        Called by `broker doctor`.
        """
        await self._issuers.warm()

    async def warm_until_known(self) -> None:
        """Fetch the keys of every issuer, again and again until each has given some; called at the start."""
        await self._issuers.warm_until_known()

    async def explain(self, text: str) -> Explanation:
        """Say what becomes of a token, and why."""
        now = self._clock.now().timestamp()
        return await explain_token(self._issuers, self._user_tokens, text, longest=self._max_token_length, now=now)

    def issuers_status(self) -> list[IssuerStatus]:
        """Say for each issuer with published keys whether we have them, and if not, why."""
        return self._issuers.status()

    def _peek(self, text: str) -> UnverifiedToken:
        if len(text) > self._max_token_length:
            reason = "the token is too long"
            raise Refused(reason)
        return peek(text)

    def _from_proxy(self, credentials: Credentials) -> tuple[str, str] | None:
        """Return a token that a trusted proxy passes on, with its header.

        The proxy's own session is a cookie, which a page of another site can make a browser send: so the same checks
        as for a cookie of ours. From anybody else the header says nothing.
        """
        if not credentials.proxied or not self._proxies.hold(credentials.peer or ""):
            return None
        if len(credentials.proxied) > 1:
            reason = "several tokens of proxies"
            raise Refused(reason)
        check_same_site(
            csrf_header=credentials.csrf_header,
            sec_fetch_site=credentials.sec_fetch_site,
            origin=credentials.origin,
            allowed_origins=self._allowed_origins,
        )
        return credentials.proxied[0]

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


def _trusted(issuers: Issuers[AnyIssuer], token: UnverifiedToken, header: str | None = None) -> AnyIssuer:
    """Return the issuer of a token, where it is one whose tokens come this way. Raises Refused."""
    found = issuers.find(token)
    if found is None:
        reason = "the token's issuer (iss) is not trusted on these routes"
        raise Refused(reason)
    settings, issuer = found
    if (settings.header or "").lower() != (header or ""):
        where = f"in the header {settings.header}, from a trusted proxy" if settings.header else "as a Bearer"
        reason = f"tokens of this issuer are accepted only {where}"
        raise Refused(reason)
    return issuer


@asynccontextmanager
async def open_authenticator(
    settings: IdentitySettings,
    service_key_settings: ServiceKeySettings,
    http: HttpSettings,
    *,
    user_tokens: UserTokenSettings = _NO_USER_TOKENS,
    database: Database,
    clock: Clock,
    transport: Transport | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Authenticator]:
    """Put an Authenticator together and own its HTTP client; no issuer is asked before a token (or `warm`) needs it.

    Raises SettingsError for a secret or key file that cannot be used.
    """
    secrets = (service_key_settings.pepper, *service_key_settings.previous_peppers)
    peppers = [secret.get_secret_value().encode() for secret in secrets]
    async with open_issuers(settings, clock=clock, transport=transport, metrics=metrics) as issuers:
        yield Authenticator(
            issuers,
            ServiceKeys(database, peppers, clock),
            user_tokens=OwnUserTokens(user_tokens, Revocations(database, clock)) if user_tokens.secrets else None,
            cookie=settings.cookie,
            csrf_header=settings.csrf_header,
            proxy_headers=[issuer.header for issuer in settings.issuers if issuer.header],
            trusted_proxies=http.proxies,
            allowed_origins=http.allowed_origins,
            # A token cannot be longer than the head that carries it; groups and roles make some of 11 KB.
            max_token_length=http.max_header_bytes,
            clock=clock,
        )
