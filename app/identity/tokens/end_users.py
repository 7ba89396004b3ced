"""A genuine token of a trusted issuer -> the EndUser it is about."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from app.identity.caller import EndUser
from app.identity.refusal import Refused
from app.identity.remembered import Verified
from app.identity.tokens.claims import (
    check_claims,
    check_tenant,
    claim_name,
    in_entry,
    meets,
    optional_text_claim,
    owner_claim,
    text_claim,
)
from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import TokenVerifier, still_trusted
from app.inputs import addressable, fits_any
from app.settings import IssuerSettings


class UserIssuer:
    """One issuer of end users' tokens."""

    def __init__(
        self,
        settings: IssuerSettings,
        verifier: TokenVerifier,
        *,
        machine_marks: Mapping[str, str | tuple[str, ...]],
    ) -> None:
        """`machine_marks` are claims by which this issuer's machine tokens are known; empty if it makes none."""
        self._settings = settings
        self._verifier = verifier
        self._machine_marks = machine_marks

    async def verified(self, token: UnverifiedToken, *, now: float) -> Verified[EndUser]:
        """Return whom a token is about. Raises Refused, or Unavailable if the issuer's keys cannot be fetched."""
        payload = await self._verifier.verify(token)
        holds = still_trusted(self._verifier)
        check_tenant(token, payload, self._settings)
        until = check_claims(token, payload, self._settings, now=now)
        if self._machine_marks and meets(payload, self._machine_marks):
            # A machine token is refused here, as a user's token is on service routes.
            reason = f"a machine token on a browser route, by its {', '.join(sorted(self._machine_marks))}"
            raise Refused(reason)
        return Verified(self._read(payload), until, holds)

    def _read(self, payload: Mapping[str, Any]) -> EndUser:
        paths = self._settings.claims
        subject = text_claim(payload, ("sub",), "the subject")
        owner = owner_claim(payload, paths)
        if subject is None or owner is None:
            # Never a default: users without an organization would all become one owner.
            what = (
                "subject: it has no claim sub" if subject is None else f"owner: no claim {claim_name(paths.owner_id)}"
            )
            reason = f"the token names no {what}"
            raise Refused(reason)
        owner_id = owner.owner_id
        if owner_id != owner_id.strip():
            # Another system may trim it, and then two owners are one.
            reason = f"the owner id in {claim_name(paths.owner_id)} begins or ends with white space"
            raise Refused(reason)
        try:
            addressable(owner_id)
        except ValueError as error:
            # Service routes name the owner in the path: this one could never be listed there, nor erased.
            reason = f"the owner id in {claim_name(paths.owner_id)} has a slash or backslash, or is . or .."
            raise Refused(reason) from error
        if self._settings.owners is not None and not fits_any(self._settings.owners, owner_id):
            reason = f"the issuer may not vouch for the owner in {claim_name(paths.owner_id)}: see its owners setting"
            raise Refused(reason)
        name_path = in_entry(paths.owner_name, owner.entry) if paths.owner_name else None
        owner_name = optional_text_claim(payload, name_path) if name_path else None
        username = optional_text_claim(payload, paths.username) if paths.username else None
        return EndUser(
            issuer=str(payload["iss"]),
            subject=subject,
            owner_id=owner_id,
            owner_name=owner_name or owner_id,
            username=username,
            claims=MappingProxyType(dict(payload)),
        )
