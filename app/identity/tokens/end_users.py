"""A genuine token of a trusted issuer -> the EndUser it is about."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from app.identity.caller import EndUser
from app.identity.refusal import Refused
from app.identity.tokens.claims import check_claims, meets, optional_text_claim, text_claim
from app.identity.tokens.unverified import UnverifiedToken
from app.identity.tokens.verify import TokenVerifier
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

    async def end_user(self, token: UnverifiedToken, *, now: float) -> EndUser:
        """Return whom a token is about. Raises Refused, or Unavailable if the issuer's keys cannot be fetched."""
        payload = await self._verifier.verify(token)
        check_claims(token, payload, self._settings, now=now)
        if self._machine_marks and meets(payload, self._machine_marks):
            # A machine token is refused here, as a user's token is on service routes.
            reason = "a machine token on a browser route"
            raise Refused(reason)
        return self._read(payload)

    def _read(self, payload: Mapping[str, Any]) -> EndUser:
        paths = self._settings.claims
        subject = text_claim(payload, ("sub",), "the subject")
        owner_id = text_claim(payload, paths.owner_id, "the owner id")
        if subject is None or owner_id is None:
            # Never a default: users without an organization would all become one owner.
            reason = "the token names no owner, or no subject"
            raise Refused(reason)
        if owner_id != owner_id.strip():
            # Another system may trim it, and then two owners are one.
            reason = "the owner id begins or ends with white space"
            raise Refused(reason)
        owner_name = optional_text_claim(payload, paths.owner_name) if paths.owner_name else None
        username = optional_text_claim(payload, paths.username) if paths.username else None
        return EndUser(
            issuer=self._settings.issuer,
            subject=subject,
            owner_id=owner_id,
            owner_name=owner_name or owner_id,
            username=username,
            claims=MappingProxyType(dict(payload)),
        )
