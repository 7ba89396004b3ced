"""The JSON of invitations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from app.connect_sessions.schemas import SessionToken
from app.identity.invitation_codes import LONGEST, link
from app.inputs import SHORTEST_LIFE, AccountIdText, Body, ProviderKey, ShortText, storable_secret
from app.invitations.choose import Answer
from app.invitations.invite import InvitationRequest
from app.invitations.open import Opened
from app.invitations.store import LIVE, Invitation
from app.invitations.use import Use
from app.linked_accounts.queries import encode_cursor
from app.settings import InvitationSettings
from app.settings.invitations import LONGEST_INVITATION

_URL_LENGTH = 2048


class InvitationBody(Body):
    """Whom a backend invites to link what."""

    provider: ProviderKey | None = Field(default=None, description="Open this provider; without it the user picks one.")
    account_id: AccountIdText | None = Field(default=None, description="Have this account re-authenticated.")
    username: ShortText | None = Field(
        default=None,
        alias="for",
        description="The user who alone may open it, as their token names them, in any case; without it every user of"
        " the owner may.",
    )
    expires_in: int | None = Field(
        default=None, ge=SHORTEST_LIFE, le=LONGEST_INVITATION, description="Seconds for which it can be opened."
    )
    return_url: Annotated[str, Field(max_length=_URL_LENGTH)] | None = Field(
        default=None, description="Where your page goes afterwards: on an origin of BROKER_HTTP__ALLOWED_ORIGINS."
    )

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if self.provider is not None and self.account_id is not None:
            message = "an account has its provider; give one of provider and account_id"
            raise ValueError(message)
        return self

    def request(self) -> InvitationRequest:
        """Return what is requested."""
        return InvitationRequest(self.provider, self.account_id, self.username, self.expires_in, self.return_url)


class InvitationOut(BaseModel):
    """An invitation: a link that opens a connect session for the invited user only."""

    id: str
    url: str | None = Field(description="The link to send; null once it opens nothing any more.")
    owner_id: str
    status: Literal["invited", "opened", "linked", "ended", "expired"]
    provider: str | None
    account_id: str | None = Field(description="The account to re-authenticate, or null.")
    username: str | None = Field(alias="for", description="Who alone may open it.")
    return_url: str | None
    created_at: datetime
    requested_by: str
    expires_at: datetime
    opened_at: datetime | None = Field(description="When it was last opened.")
    opened_by: str | None
    linked_at: datetime | None
    linked_by: str | None
    linked_account_id: str | None
    ended_at: datetime | None
    ended_by: str | None

    @classmethod
    def of(cls, invitation: Invitation, settings: InvitationSettings, now: datetime) -> Self:
        """Show an invitation."""
        standing = invitation.standing(now)
        values = {name: getattr(invitation, name) for name in cls.model_fields if name not in {"url", "status"}}
        url = link(settings, invitation.id) if standing in LIVE else None
        values["for"] = values.pop("username")
        return cls.model_validate({**values, "url": url, "status": standing.value})


class InvitationPage(BaseModel):
    """A page of invitations, the newest first; `next_cursor` is null on the last one."""

    data: list[InvitationOut]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[Invitation], settings: InvitationSettings, now: datetime, *, has_more: bool) -> Self:
        """Show a page."""
        return cls(
            data=[InvitationOut.of(invitation, settings, now) for invitation in found],
            next_cursor=encode_cursor(str(found[-1].position)) if has_more else None,
        )


class InvitationCode(Body):
    """What stands behind the # of an invitation's link."""

    code: Annotated[SecretStr, Field(min_length=1, max_length=LONGEST), AfterValidator(storable_secret)]


class OpenedInvitation(SessionToken):
    """The session that an invitation opened. The token opens the Hub; it is shown here once and kept nowhere."""

    return_url: str | None = Field(description="Where to go afterwards, if the inviting backend said so.")

    @classmethod
    def of_opened(cls, opened: Opened) -> Self:
        """Show an opened invitation."""
        session = SessionToken.of(opened.minted)
        return cls.model_validate({**session.model_dump(), "return_url": opened.invitation.return_url})


class Candidate(BaseModel):
    """One of several accounts to choose from."""

    account_id: str
    label: str | None
    username: str | None = Field(description="The person who linked it.")
    status: str
    usable: bool
    created_at: datetime | None


class Elicitation(BaseModel):
    """The parameters of an MCP elicitation in URL mode, ready to be sent to the user's client."""

    mode: Literal["url"] = "url"
    elicitationId: str  # noqa: N815  as the protocol spells it
    url: str
    message: str


class UseOut(BaseModel):
    """Which account of a provider to work with, or what somebody has to do first."""

    status: Literal["ready", "connect", "repair", "choose", "refused"] = Field(
        description="`ready`: work with `account_id`. `connect`: nothing is linked. `repair`: somebody has to sign in"
        " to the provider anew. `choose`: there are several, or the pinned one is gone; PUT pins one. `refused`: policy"
        " allows no session for it."
    )
    provider: str
    message: str = Field(description="A sentence for the person who has to do something.")
    account_id: str | None = Field(description="The account that is ready, or the one to repair.")
    verified_at: datetime | None = Field(description="When StackOne last confirmed it.")
    stale: bool = Field(description="Whether that is longer ago than was asked for: StackOne is away.")
    url: str | None = Field(
        description="For `connect` and `repair`: an invitation to send to the person. Null where the broker has no page"
        " for invitations."
    )
    candidates: list[Candidate] = Field(description="For `choose`: the accounts there are.")
    rule: str | None = Field(description="For `refused`: the rule of the policy file that decides.")
    elicitation: Elicitation | None

    @classmethod
    def of(cls, use: Use) -> Self:
        """Show an answer."""
        message = _MESSAGES[use.answer].format(label=use.label)
        elicitation = None
        if use.invitation is not None and use.url is not None:
            elicitation = Elicitation(elicitationId=use.invitation.id, url=use.url, message=message)
        return cls(
            status=use.answer.value,
            provider=use.provider,
            message=message,
            account_id=use.account.account_id if use.account else None,
            verified_at=use.account.verified_at if use.account else None,
            stale=use.stale,
            url=use.url,
            candidates=[
                Candidate.model_validate({name: getattr(account, name) for name in Candidate.model_fields})
                for account in use.candidates
            ],
            rule=use.rule,
            elicitation=elicitation,
        )


_MESSAGES = {
    Answer.READY: "{label} is connected.",
    Answer.CONNECT: "{label} is not connected yet. Open the link to connect it.",
    Answer.REPAIR: "{label} needs you to sign in again. Open the link to reconnect it.",
    Answer.CHOOSE: "There are several {label} accounts. Say which one to use.",
    Answer.REFUSED: "{label} may not be connected here. Ask whoever administers your account.",
}


class Pin(Body):
    """Which account of the provider is to be used from now on."""

    account_id: AccountIdText | None = Field(description="One of the owner's accounts of the provider; null: no pin.")


class OwnerPin(Pin):
    """Which account of the provider is to be used from now on, and for whom."""

    user: ShortText | None = Field(default=None, description="For this user only; without it for the whole owner.")
