"""The JSON of owners: a name to pin, and the receipt of an erasure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from app.identity.user_tokens.tokens import UserToken, UserTokenRequest
from app.inputs import SHORTEST_LIFE, Body, Metadata, ShortText
from app.linked_accounts.queries import encode_cursor
from app.owners.erasure import Erasure
from app.owners.listing import OwnerSummary
from app.owners.names import Pin
from app.owners.user_tokens import Revocation
from app.settings.user_tokens import LONGEST_USER_TOKEN


class OwnerName(Body):
    """A name to pin."""

    name: ShortText = Field(description="The name that StackOne shall know the owner by.")
    dry_run: bool = Field(default=False, description="Only say what it would do.")


class NamedAccount(BaseModel):
    """An account and the name it was linked under."""

    account_id: str
    provider: str | None
    owner_name: str | None


class PinnedName(BaseModel):
    """What pinning a name did, or would do."""

    owner_id: str
    owner_name: str
    previous_name: str | None
    changed: bool = Field(description="Whether this is another name than before; in a dry run, whether it would be.")
    dry_run: bool
    effects: list[str] = Field(description="What it means for accounts and sessions that exist, in words.")
    accounts_with_other_names: list[NamedAccount]

    @classmethod
    def of(cls, pin: Pin) -> Self:
        """Show a Pin."""
        return cls(
            owner_id=pin.owner_id,
            owner_name=pin.name,
            previous_name=pin.previous_name,
            changed=pin.changes,
            dry_run=pin.dry_run,
            effects=list(pin.effects()),
            accounts_with_other_names=[
                NamedAccount(account_id=account.account_id, provider=account.provider, owner_name=account.owner_name)
                for account in pin.accounts_with_other_names
            ],
        )


class ErasureReceipt(BaseModel):
    """What became of an erasure. Keep its id: it stands for the owner in what remains."""

    id: str
    state: Literal["pending", "complete"] = Field(description="pending until StackOne has nothing of the owner left.")
    requested_by: str
    requested_at: datetime
    completed_at: datetime | None
    accounts: int = Field(description="Accounts whose rows were cleared; each was deleted at StackOne.")
    sessions: int = Field(description="Connect sessions that were removed.")
    events: int = Field(description="Entries of the history that were cleared.")

    @classmethod
    def of(cls, erasure: Erasure) -> Self:
        """Show a receipt."""
        values = {name: getattr(erasure, name) for name in cls.model_fields}
        return cls.model_validate({**values, "state": erasure.state.value})


class OwnerOut(BaseModel):
    """An owner: everybody who has an account or a pinned name."""

    owner_id: str
    owner_name: str | None = Field(description="The pinned name, or else the one on its accounts.")
    accounts: int
    needs_reauth: int = Field(description="How many of them somebody has to sign in for anew.")
    by_status: dict[str, int] = Field(description="How many accounts have each of StackOne's statuses.")
    last_change_at: datetime | None = Field(description="When the feed last had a change of this owner's.")

    @classmethod
    def of(cls, owner: OwnerSummary) -> Self:
        """Show an owner."""
        return cls.model_validate({name: getattr(owner, name) for name in cls.model_fields})


class OwnerPage(BaseModel):
    """A page of owners in the order of their ids; `next_cursor` is null on the last one."""

    data: list[OwnerOut]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[OwnerSummary], *, has_more: bool) -> Self:
        """Show a page."""
        cursor = encode_cursor(found[-1].owner_id) if has_more else None
        return cls(data=[OwnerOut.of(owner) for owner in found], next_cursor=cursor)


def _not_registered(claims: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(_REGISTERED & claims.keys()):
        message = f"the broker itself says {', '.join(taken)}"
        raise ValueError(message)
    return claims


# RFC 7519 section 4.1: what is not for policy, but says what kind of token it is and whose.
_REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})


class UserTokenBody(Body):
    """For which user, whom your backend has signed in, a token is wanted."""

    user: ShortText = Field(description="Your own id or name of the user: `username` on what they link.")
    owner_name: ShortText | None = Field(
        default=None, description="The owner's display name; counts only until one is pinned for the owner."
    )
    expires_in: int | None = Field(
        default=None, ge=SHORTEST_LIFE, le=LONGEST_USER_TOKEN, description="Seconds for which it is valid."
    )
    claims: Annotated[Metadata, AfterValidator(_not_registered)] = Field(
        default={}, description="Claims that rules of the policy file may ask for, such as roles."
    )

    def request(self) -> UserTokenRequest:
        """Return what is requested."""
        return UserTokenRequest(self.user, self.owner_name, self.expires_in, self.claims)


class UserTokenOut(BaseModel):
    """A token for the browser, as a Bearer token on browser routes. It is shown here once and kept nowhere."""

    id: str
    token: str
    expires_at: datetime
    expires_in: int = Field(description="Seconds from the answer to `expires_at`: a page's own clock may be wrong.")

    @classmethod
    def of(cls, made: UserToken) -> Self:
        """Show a token; this answer is the one place where it is spelled out."""
        return cls(
            id=made.id, token=made.token.get_secret_value(), expires_at=made.expires_at, expires_in=made.expires_in
        )


class RevocationOut(BaseModel):
    """Which user tokens have ended; every replica knows within 5 seconds."""

    owner_id: str
    user: str | None
    not_before: datetime = Field(description="Tokens that were made before this have ended.")

    @classmethod
    def of(cls, revocation: Revocation) -> Self:
        """Show a revocation."""
        return cls(owner_id=revocation.owner_id, user=revocation.user, not_before=revocation.not_before)
