"""Whether the broker can serve: the database answers, and its schema fits this version."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from app.db.standing import look
from app.runtime import Runtime

_DEADLINE_SECONDS = 3.0
_OK = "ok"


class Standing(Enum):
    """How a process stands."""

    OK = "ok"
    UNAVAILABLE = "unavailable"
    STOPPING = "stopping"


@dataclass(frozen=True)
class Readiness:
    """What was found; each check is "ok" or says what to do."""

    is_ready: bool
    checks: Mapping[str, str]
    is_stopping: bool = False
    reason: str | None = None
    """Why it cannot serve."""
    remedy: str | None = None

    @property
    def standing(self) -> Standing:
        """In one word."""
        if self.is_stopping:
            return Standing.STOPPING
        return Standing.OK if self.is_ready else Standing.UNAVAILABLE


async def check_readiness(runtime: Runtime) -> Readiness:
    """Look at everything that serving needs."""
    if runtime.stopping.is_set():
        # Load balancers send nothing more, while what they still send is served.
        return Readiness(
            is_ready=False, checks={}, is_stopping=True, reason="it was told to stop", remedy="none: it drains"
        )
    checks = {"identity": _identity(runtime), **_keys_left_out(runtime)}
    standing = await look(runtime.database, within=_DEADLINE_SECONDS)
    if standing.fit is None:
        failure = standing.failure
        detail, remedy = (failure.detail, failure.remedy) if failure is not None else ("unknown", None)
        checks = {"database": detail, "schema": "unknown", **checks}
        return Readiness(is_ready=False, checks=checks, reason=detail, remedy=remedy)
    checks = {"database": _OK, "schema": standing.fit.value, **checks}
    if standing.fit.serves:
        return Readiness(is_ready=True, checks=checks)
    reason, _, remedy = standing.fit.value.partition("; ")
    return Readiness(is_ready=False, checks=checks, reason=f"the schema: {reason}", remedy=remedy)


def _identity(runtime: Runtime) -> str:
    issuers = runtime.authenticator.issuers_status()
    if issuers and not any(issuer.has_keys for issuer in issuers):
        # No reason to be taken out of rotation: the webhook and the service routes work without any issuer.
        return "no issuer has given its keys yet; they are asked for again, half a minute later at most"
    return _OK


def _keys_left_out(runtime: Runtime) -> Mapping[str, str]:
    """Say which published keys are not used, and why; nothing where all of them are."""
    told = {issuer.issuer: "; ".join(issuer.left_out) for issuer in runtime.authenticator.issuers_status()}
    return {f"keys left out of {issuer}": left_out for issuer, left_out in told.items() if left_out}
