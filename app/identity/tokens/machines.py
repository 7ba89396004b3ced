"""A genuine machine token (OAuth client credentials) -> the Service it is for."""

from collections.abc import Mapping
from typing import Any

from app.identity.caller import CredentialKind, Scope, Service
from app.identity.refusal import Refused
from app.identity.remembered import Verified
from app.identity.tokens.claims import (
    check_claims,
    check_tenant,
    find_claim,
    optional_text_claim,
    text_claim,
    text_list_claim,
)
from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import TokenVerifier, still_trusted
from app.settings import MachineIssuerSettings

_KNOWN_SCOPES = {scope.value: scope for scope in Scope}


class MachineIssuer:
    """One issuer of machine tokens."""

    def __init__(self, settings: MachineIssuerSettings, verifier: TokenVerifier) -> None:
        """Pair an issuer's settings with its verifier."""
        self._settings = settings
        self._verifier = verifier

    async def verified(self, token: UnverifiedToken, *, now: float) -> Verified[Service]:
        """Return the service a token is for. Raises Refused, or Unavailable if the issuer's keys cannot be fetched."""
        payload = await self._verifier.verify(token)
        holds = still_trusted(self._verifier)
        check_tenant(token, payload, self._settings)
        until = check_claims(token, payload, self._settings, now=now)
        subject = text_claim(payload, ("sub",), "the subject")
        if subject is None:
            reason = "the token names no subject"
            raise Refused(reason)
        name_path = self._settings.claims.username
        name = optional_text_claim(payload, name_path) if name_path else None
        service = Service(
            credential_id=subject,
            name=name or subject,
            scopes=_scopes(find_claim(payload, self._settings.scope_claim)),
            owner_ids=self._owner_ids(payload),
            kind=CredentialKind.MACHINE_TOKEN,
        )
        return Verified(service, until, holds)

    def _owner_ids(self, payload: Mapping[str, Any]) -> frozenset[str] | None:
        if self._settings.owners_claim is None:
            return None
        owner_ids = text_list_claim(payload, self._settings.owners_claim, "the machine's owners")
        if owner_ids is None:
            # Absent must not mean "all": a machine whose claim was forgotten would see every customer.
            reason = (
                f"the token has no {self._settings.owners_claim}, which says the owners that the machine is limited to"
            )
            raise Refused(reason)
        return frozenset(owner_ids)


def _scopes(value: object) -> frozenset[Scope]:
    """Read scopes as RFC 6749 section 3.3 or a list spells them; unknown ones belong to other services."""
    names = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(_KNOWN_SCOPES[name] for name in names if isinstance(name, str) and name in _KNOWN_SCOPES)
