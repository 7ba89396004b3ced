"""Whether the broker can serve: the database answers, and its schema fits this version."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.db.standing import look
from app.runtime import Runtime

_DEADLINE_SECONDS = 3.0
_OK = "ok"


@dataclass(frozen=True)
class Readiness:
    """What was found; each check is "ok" or says what to do."""

    is_ready: bool
    checks: Mapping[str, str]
    is_stopping: bool = False

    @property
    def status(self) -> str:
        """In one word."""
        if self.is_stopping:
            return "stopping"
        return "ok" if self.is_ready else "unavailable"


async def check_readiness(runtime: Runtime) -> Readiness:
    """Look at everything that serving needs."""
    if runtime.stopping.is_set():
        # Load balancers send nothing more, while what they still send is served.
        return Readiness(is_ready=False, checks={}, is_stopping=True)
    checks = {"identity": _identity(runtime), **_keys_left_out(runtime)}
    standing = await look(runtime.database, within=_DEADLINE_SECONDS)
    if standing.fit is None:
        detail = standing.failure.detail if standing.failure is not None else "unknown"
        return Readiness(is_ready=False, checks={"database": detail, "schema": "unknown", **checks})
    return Readiness(standing.fit.serves, {"database": _OK, "schema": standing.fit.value, **checks})


def _identity(runtime: Runtime) -> str:
    issuers = runtime.authenticator.issuers_status()
    if issuers and not any(issuer.has_keys for issuer in issuers):
        # No reason to be taken out of rotation: the webhook and the service routes work without any issuer.
        return "no issuer has given its keys yet; they are fetched at the next sign-in"
    return _OK


def _keys_left_out(runtime: Runtime) -> Mapping[str, str]:
    """Say which published keys are not used, and why; nothing where all of them are."""
    told = {issuer.issuer: "; ".join(issuer.left_out) for issuer in runtime.authenticator.issuers_status()}
    return {f"keys left out of {issuer}": left_out for issuer, left_out in told.items() if left_out}
