"""The configured issuers, each with its verifier; those that share a key set share the fetching of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from app.clock import Clock
from app.errors import SettingsError
from app.identity.tokens.end_users import UserIssuer
from app.identity.tokens.key_ring import FetchKeys, KeyRing, KeyRingTimes, KeysUnreachable
from app.identity.tokens.machines import MachineIssuer
from app.identity.tokens.oidc import KeyFetcher, Transport, open_client
from app.identity.tokens.shared_secret import SharedSecretVerifier
from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import Expected, PublicKeyVerifier, TokenVerifier
from app.metrics import Metrics
from app.settings import IdentitySettings, IssuerSettings, MachineIssuerSettings
from app.settings.identity import PLACEHOLDER

_Verifiers = dict[tuple[str, frozenset[str]], TokenVerifier]
AnyIssuer = TypeVar("AnyIssuer", UserIssuer, MachineIssuer)
# What may stand in the place of a {claim}: a tenant's id or name, and nothing that could lead out of the URL's part.
_TENANT = "[A-Za-z0-9_-]{1,64}"
# Supabase and Clerk let the browser write these: an owner read from there would be one that the user chose.
_WRITTEN_BY_USERS = frozenset({"user_metadata", "unsafe_metadata"})


@dataclass(frozen=True)
class IssuerStatus:
    """Whether one issuer's keys are known."""

    issuer: str
    has_keys: bool
    problem: str | None
    """Why the last fetch failed; None if it did not fail."""
    left_out: Sequence[str] = ()
    """Which of its keys are not used, and why."""


class Issuers(Generic[AnyIssuer]):
    """Issuers by the exact text of `iss`, and then by the family of algorithms."""

    def __init__(self, listed: Sequence[tuple[IssuerSettings, AnyIssuer]]) -> None:
        """Index them."""
        self._exact: dict[str, list[tuple[IssuerSettings, AnyIssuer]]] = {}
        self._templates: list[tuple[re.Pattern[str], IssuerSettings, AnyIssuer]] = []
        for settings, issuer in listed:
            placeholder = PLACEHOLDER.search(settings.issuer)
            if placeholder is None:
                self._exact.setdefault(settings.issuer, []).append((settings, issuer))
                continue
            before, after = (re.escape(part) for part in settings.issuer.split(placeholder[0]))
            self._templates.append((re.compile(f"{before}{_TENANT}{after}"), settings, issuer))

    @property
    def names(self) -> frozenset[str]:
        """The issuers as the settings spell them."""
        return frozenset({*self._exact, *(settings.issuer for _, settings, _ in self._templates)})

    def find(self, token: UnverifiedToken) -> tuple[IssuerSettings, AnyIssuer] | None:
        """Look the issuer of a token up by what the token says: that is all an unverified token is good for.

        One that is listed by its own name goes before a {claim} that fits it, too.
        """
        fitting = self._exact.get(token.issuer) or [
            (settings, issuer) for pattern, settings, issuer in self._templates if pattern.fullmatch(token.issuer)
        ]
        of_family = (found for found in fitting if token.algorithm in found[0].family)
        return next(of_family, fitting[0] if fitting else None)


class TrustedIssuers:
    """The issuers of users' tokens, and those of machines' tokens."""

    def __init__(
        self, users: Issuers[UserIssuer], machines: Issuers[MachineIssuer], rings: tuple[KeyRing, ...]
    ) -> None:
        """Take the issuers, and the key sets behind them."""
        self.users = users
        self.machines = machines
        self._rings = rings

    async def warm(self) -> None:
        """Fetch keys that are missing, of all issuers at once; never raises."""
        await asyncio.gather(*(ring.warm() for ring in self._rings))

    async def warm_until_known(self) -> None:
        """Fetch the keys of each issuer until it has given some for the first time."""
        await asyncio.gather(*(ring.warm_until_known() for ring in self._rings))

    def status(self) -> list[IssuerStatus]:
        """Say for each key set whether it is known; shared secrets always are, and are not listed."""
        return [IssuerStatus(ring.issuer, ring.has_keys, ring.problem, ring.left_out) for ring in self._rings]


class _Rings:
    """Makes one KeyRing per key source."""

    def __init__(self, settings: IdentitySettings, fetcher: KeyFetcher, clock: Clock, metrics: Metrics | None) -> None:
        self._times = KeyRingTimes(
            cooldown=settings.jwks_cooldown_seconds,
            fresh=settings.jwks_fresh_seconds,
            stale=settings.jwks_stale_seconds,
        )
        self._fetcher = fetcher
        self._clock = clock
        self._metrics = metrics
        self.made: dict[tuple[object, ...], KeyRing] = {}

    def ring(self, issuer: IssuerSettings) -> KeyRing:
        source = (issuer.issuer, issuer.jwks_uri, issuer.jwks_file, frozenset(issuer.algorithms))
        if source not in self.made:
            self.made[source] = KeyRing(
                self._fetch(issuer),
                issuer=issuer.issuer,
                algorithms=issuer.algorithms,
                times=self._times,
                clock=self._clock,
                metrics=self._metrics,
            )
        return self.made[source]

    def _fetch(self, issuer: IssuerSettings) -> FetchKeys:
        if issuer.jwks_file is not None:
            return partial(_read_file, issuer.jwks_file)
        if issuer.jwks_uri is not None:
            return partial(self._fetcher.keys_at, issuer.jwks_uri)
        return partial(self._fetcher.discovered_keys, issuer.issuer)


async def _read_file(path: Path) -> bytes:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        message = f"the key file cannot be read ({type(error).__name__})"
        raise KeysUnreachable(message) from error


def _verifier(issuer: IssuerSettings, rings: _Rings) -> TokenVerifier:
    if issuer.shared_secrets:
        secrets = [secret.get_secret_value().encode() for secret in issuer.shared_secrets]
        return SharedSecretVerifier(secrets, Expected.of(issuer))
    return PublicKeyVerifier(rings.ring(issuer), Expected.of(issuer))


async def _verifiers(name: str, listed: Sequence[IssuerSettings], rings: _Rings, mistakes: list[str]) -> _Verifiers:
    """Make the verifier of each issuer; what cannot be used is added to the mistakes."""
    verifiers: _Verifiers = {}
    for number, issuer in enumerate(listed):
        chosen_by = issuer.claims.owner_id_chosen_by
        paths = (issuer.claims.owner_id, *((chosen_by,) if chosen_by is not None else ()))
        if any(_first_name(path) in _WRITTEN_BY_USERS for path in paths):
            mistakes.append(f"BROKER_IDENTITY__{name}[{number}]: claims: users write that owner_id themselves")
        try:
            verifiers[issuer.issuer, issuer.family] = _verifier(issuer, rings)
        except ValueError as error:
            mistakes.append(f"BROKER_IDENTITY__{name}[{number}]: {error}")
            continue
        if issuer.jwks_file is not None:
            # A file is read at once: an issuer that is away comes back by itself, a file with a mistake does not.
            await rings.ring(issuer).warm()
            if problem := rings.ring(issuer).problem:
                mistakes.append(f"BROKER_IDENTITY__{name}[{number}]: jwks_file: {problem}")
    return verifiers


async def _build(settings: IdentitySettings, rings: _Rings) -> TrustedIssuers:
    mistakes: list[str] = []
    for_users = await _verifiers("ISSUERS", settings.issuers, rings, mistakes)
    for_machines = await _verifiers("MACHINE_ISSUERS", settings.machine_issuers, rings, mistakes)
    if mistakes:
        raise SettingsError(mistakes)
    users = [
        (
            issuer,
            UserIssuer(
                issuer,
                for_users[issuer.issuer, issuer.family],
                machine_marks=_machine_marks(issuer, settings.machine_issuers),
            ),
        )
        for issuer in settings.issuers
    ]
    machines = [
        (issuer, MachineIssuer(issuer, for_machines[issuer.issuer, issuer.family]))
        for issuer in settings.machine_issuers
    ]
    return TrustedIssuers(Issuers(users), Issuers(machines), tuple(rings.made.values()))


def _first_name(path: str | tuple[str, ...]) -> str:
    return path.partition(".")[0] if isinstance(path, str) else next(iter(path), "")


def _machine_marks(
    issuer: IssuerSettings, machines: Sequence[MachineIssuerSettings]
) -> Mapping[str, str | tuple[str, ...]]:
    """Return the claims that only machine tokens have, where nothing but these tells them from users' tokens."""
    for machine in machines:
        if machine.issuer == issuer.issuer and set(machine.audiences) & set(issuer.audiences):
            return machine.required_claims
    return {}


@asynccontextmanager
async def open_issuers(
    settings: IdentitySettings, *, clock: Clock, transport: Transport | None = None, metrics: Metrics | None = None
) -> AsyncIterator[TrustedIssuers]:
    """Make every issuer's verifier and own the HTTP client they share. Raises SettingsError."""
    async with open_client(settings.timeout_seconds, transport) as client:
        rings = _Rings(settings, KeyFetcher(client, timeout_seconds=settings.timeout_seconds), clock, metrics)
        try:
            yield await _build(settings, rings)
        finally:
            await asyncio.gather(*(ring.close() for ring in rings.made.values()))
