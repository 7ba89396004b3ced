"""Why a token is accepted or not, in the words of the log: for whoever sets a login up, never for whoever sends it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.errors import Unavailable
from app.identity.caller import EndUser, Service
from app.identity.refusal import Refused
from app.identity.tokens.end_users import UserIssuer
from app.identity.tokens.issuers import TrustedIssuers
from app.identity.tokens.machines import MachineIssuer
from app.identity.tokens.unverified import UnverifiedToken, claim_names, peek
from app.identity.user_tokens.tokens import ISSUER, OwnUserTokens


@dataclass(frozen=True)
class Explanation:
    """What becomes of a token."""

    accepted: bool
    reason: str
    """Why it is refused, or by which issuer's settings it is accepted."""
    issuer: str | None = None
    """The `iss` of the token."""
    matched: str | None = None
    """The `issuer` of the settings that fit it; None if none does."""
    routes: str | None = None
    """browser or service."""
    header: str | None = None
    """The only header that it counts in, and there from trusted proxies only; None for a Bearer or the cookie."""
    owner_id: str | None = None
    owner_name: str | None = None
    username: str | None = None
    scopes: Sequence[str] = ()
    expires_at: datetime | None = None
    claims: Sequence[str] = ()
    """The names of the token's claims, as it says itself."""


async def explain_token(
    issuers: TrustedIssuers, own: OwnUserTokens | None, text: str, *, longest: int, now: float
) -> Explanation:
    """Say whether a token would be accepted, by which issuer, for whom; or which check it fails, by the claim's name.

    Keys are fetched where they have to be. Never raises for what a token holds.
    """
    if len(text) > longest:
        return Explanation(accepted=False, reason="the token is too long")
    try:
        token = peek(text)
    except Refused as refused:
        return Explanation(accepted=False, reason=refused.reason)
    names = claim_names(text)
    if token.issuer == ISSUER and own is not None:
        return await _asked(own, token, ISSUER, "browser", names, now=now)
    found: list[Explanation] = []
    if (user := issuers.users.find(token)) is not None:
        explained = await _asked(user[1], token, user[0].issuer, "browser", names, now=now)
        found.append(replace(explained, header=user[0].header))
    if (machine := issuers.machines.find(token)) is not None:
        found.append(await _asked(machine[1], token, machine[0].issuer, "service", names, now=now))
    if found:
        # A provider may make users' tokens and machines': what one kind of route refuses the other may accept.
        accepted = next((explained for explained in found if explained.accepted), None)
        both = "; ".join(f"on {explained.routes} routes, {explained.reason}" for explained in found)
        return accepted or (found[0] if len(found) == 1 else replace(found[0], reason=both, routes="browser, service"))
    trusted = ", ".join(sorted({*issuers.users.names, *issuers.machines.names}))
    reason = f"its iss is no issuer that is trusted; those are: {trusted}"
    return Explanation(accepted=False, reason=reason, issuer=token.issuer, claims=names)


async def _asked(
    verifier: UserIssuer | MachineIssuer | OwnUserTokens,
    token: UnverifiedToken,
    matched: str,
    routes: str,
    names: Sequence[str],
    *,
    now: float,
) -> Explanation:
    """Have a token verified as a route would, and say what came of it."""
    try:
        verified = await verifier.verified(token, now=now)
    except Refused as refused:
        reason = refused.reason
    except Unavailable as error:
        reason = f"what it is verified with cannot be read: {error.detail}"
    else:
        return _accepted(verified.caller, verified.until, token.issuer, matched, routes, names)
    return Explanation(False, reason, token.issuer, matched, routes, claims=names)


def _accepted(
    caller: EndUser | Service, until: float, issuer: str, matched: str, routes: str, names: Sequence[str]
) -> Explanation:
    expires_at = datetime.fromtimestamp(until, UTC)
    if isinstance(caller, EndUser):
        return Explanation(
            accepted=True,
            reason="every check holds",
            issuer=issuer,
            matched=matched,
            routes=routes,
            owner_id=caller.owner_id,
            owner_name=caller.owner_name,
            username=caller.username,
            expires_at=expires_at,
            claims=names,
        )
    return Explanation(
        accepted=True,
        reason="every check holds",
        issuer=issuer,
        matched=matched,
        routes=routes,
        owner_id=", ".join(sorted(caller.owner_ids)) if caller.owner_ids is not None else None,
        username=caller.name,
        scopes=sorted(scope.value for scope in caller.scopes),
        expires_at=expires_at,
        claims=names,
    )
