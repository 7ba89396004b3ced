"""The configured issuers, each with its verifier; those that share a key set share the fetching of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.clock import Clock
from app.identity.tokens.end_users import UserIssuer
from app.identity.tokens.key_ring import FetchKeys, KeyRing, KeyRingTimes, KeysUnreachable
from app.identity.tokens.machines import MachineIssuer
from app.identity.tokens.oidc import KeyFetcher, Transport, open_client
from app.identity.tokens.shared_secret import SharedSecretVerifier
from app.identity.tokens.verify import PublicKeyVerifier, TokenVerifier
from app.settings import IdentitySettings, IssuerSettings, MachineIssuerSettings, SettingsError

_Verifiers = dict[str, TokenVerifier]
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


class TrustedIssuers:
    """The issuers of users' tokens, and those of machines' tokens."""

    def __init__(
        self, users: Mapping[str, UserIssuer], machines: Mapping[str, MachineIssuer], rings: tuple[KeyRing, ...]
    ) -> None:
        """Index issuers by the exact text of `iss`."""
        self.users = users
        self.machines = machines
        self._rings = rings

    async def warm(self) -> None:
        """Fetch keys that are missing, of all issuers at once; never raises."""
        await asyncio.gather(*(ring.warm() for ring in self._rings))

    def status(self) -> list[IssuerStatus]:
        """Say for each key set whether it is known; shared secrets always are, and are not listed."""
        return [IssuerStatus(ring.issuer, ring.has_keys, ring.problem, ring.left_out) for ring in self._rings]


class _Rings:
    """Makes one KeyRing per key source."""

    def __init__(self, settings: IdentitySettings, fetcher: KeyFetcher, clock: Clock) -> None:
        self._times = KeyRingTimes(
            cooldown=settings.jwks_cooldown_seconds,
            fresh=settings.jwks_fresh_seconds,
            stale=settings.jwks_stale_seconds,
        )
        self._fetcher = fetcher
        self._clock = clock
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
        return SharedSecretVerifier(
            secrets, algorithms=issuer.algorithms, issuer=issuer.issuer, audiences=issuer.audiences
        )
    return PublicKeyVerifier(
        rings.ring(issuer), algorithms=issuer.algorithms, issuer=issuer.issuer, audiences=issuer.audiences
    )


async def _verifiers(name: str, listed: Sequence[IssuerSettings], rings: _Rings, mistakes: list[str]) -> _Verifiers:
    """Make the verifier of each issuer; what cannot be used is added to the mistakes."""
    verifiers: _Verifiers = {}
    for number, issuer in enumerate(listed):
        if _first_name(issuer.claims.owner_id) in _WRITTEN_BY_USERS:
            mistakes.append(f"BROKER_IDENTITY__{name}[{number}]: claims: users write that owner_id themselves")
        try:
            verifiers[issuer.issuer] = _verifier(issuer, rings)
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
    users = {
        issuer.issuer: UserIssuer(
            issuer, for_users[issuer.issuer], machine_marks=_machine_marks(issuer, settings.machine_issuers)
        )
        for issuer in settings.issuers
    }
    machines = {
        issuer.issuer: MachineIssuer(issuer, for_machines[issuer.issuer]) for issuer in settings.machine_issuers
    }
    return TrustedIssuers(users, machines, tuple(rings.made.values()))


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
    settings: IdentitySettings, *, clock: Clock, transport: Transport | None = None
) -> AsyncIterator[TrustedIssuers]:
    """Make every issuer's verifier and own the HTTP client they share. Raises SettingsError."""
    async with open_client(settings.timeout_seconds, transport) as client:
        rings = _Rings(settings, KeyFetcher(client, timeout_seconds=settings.timeout_seconds), clock)
        try:
            yield await _build(settings, rings)
        finally:
            await asyncio.gather(*(ring.close() for ring in rings.made.values()))
