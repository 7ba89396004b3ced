"""The JSON of connect sessions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.connect_sessions.connectors import Connector
from app.connect_sessions.ledger import Session
from app.connect_sessions.mint import Minted
from app.connect_sessions.queries import cursor_at
from app.inputs import (
    LONGEST_LIFE,
    SHORTEST_LIFE,
    AccountIdText,
    Body,
    Metadata,
    ProviderKey,
    ShortText,
    storable_secret,
)
from app.linked_accounts.queries import encode_cursor
from app.stackone.models import AuthenticatedSession, Category, ConnectSessionRequest, SessionType


def _refused_fields(why: Mapping[str, str]) -> Any:
    """Refuse fields that StackOne documents and the broker does not pass on, each at its place with the reason."""

    def refuse(values: object) -> object:
        refused = [name for name in why if isinstance(values, dict) and name in values]
        if refused:
            mistakes = [
                InitErrorDetails(
                    type=PydanticCustomError("refused_field", f"not taken: {why[name]}"), loc=(name,), input=None
                )
                for name in refused
            ]
            raise ValidationError.from_exception_data("refused", mistakes)
        return values

    return model_validator(mode="before")(refuse)


_UNDESCRIBED = "StackOne shows it without saying what it does; leave it out"
_NEVER_TAKEN = {
    "provider_version": "it is deprecated at StackOne, selects nothing and can make the session fail; choose a version"
    " with connector_profile_id",
    "relink": f"{_UNDESCRIBED} and give account_id to re-authenticate an account",
    "scopes": _UNDESCRIBED,
    "latest_connection_attempt": "it is part of StackOne's answer; the poll route tells it",
}
_NAME_PINNED = (
    "Whether another name was given than the one that is pinned for the owner: `owner_name` counts, and"
    " PUT /v1/owners/{owner_id}/name pins another one."
)
_NOT_FROM_A_PAGE = "only a backend may say it, on POST /v1/owners/{owner_id}/connect-sessions"


class SessionRequest(Body):
    """What a page may ask for. Whose session it is does not stand here: that comes from the token."""

    provider: ProviderKey | None = Field(default=None, description="Open this provider; without it the user picks one.")
    categories: list[Category] | None = Field(
        default=None, min_length=1, max_length=20, description="Offer only providers of these categories."
    )
    account_id: AccountIdText | None = Field(default=None, description="Re-authenticate this account of yours.")
    multiple: bool = Field(default=False, description="Link a further account although one exists for the provider.")
    label: ShortText | None = Field(default=None, description="Free text kept on the account.")
    connector_profile_id: ShortText | None = Field(default=None, description="StackOne connector profile to use.")

    _refuse = _refused_fields(
        {
            **_NEVER_TAKEN,
            "origin_owner_id": "the owner comes from your token",
            "origin_owner_name": "the owner's name comes from your token",
            "origin_username": "the user comes from your token",
            **dict.fromkeys(("expires_in", "metadata", "type", "shared"), _NOT_FROM_A_PAGE),
            "integration_id": "it is an old name; use connector_profile_id",
        }
    )

    def request(self) -> ConnectSessionRequest:
        """Return what is requested; the owner joins it later."""
        return ConnectSessionRequest(
            provider=self.provider,
            categories=tuple(self.categories) if self.categories else None,
            account_id=self.account_id,
            multiple=self.multiple,
            label=self.label,
            connector_profile_id=self.connector_profile_id,
        )


class OwnerSessionRequest(SessionRequest):
    """What a backend may ask for: everything that StackOne documents."""

    origin_owner_name: ShortText | None = Field(
        default=None, description="The owner's display name; counts only until one is pinned for the owner."
    )
    origin_username: ShortText | None = Field(default=None, description="The person who will link.")
    expires_in: int | None = Field(
        default=None, ge=SHORTEST_LIFE, le=LONGEST_LIFE, description="Seconds the session is valid."
    )
    metadata: Metadata | None = Field(default=None, description="Kept by StackOne on the connection.")
    type: SessionType | None = Field(default=None, description="production or test.")
    shared: bool | None = Field(
        default=None, description="Whether the account is the whole owner's, or the linking person's own (false)."
    )
    integration_id: ShortText | None = Field(
        default=None, description="Deprecated alias of connector_profile_id.", json_schema_extra={"deprecated": True}
    )

    _refuse = _refused_fields({**_NEVER_TAKEN, "origin_owner_id": "the owner stands in the path"})

    @model_validator(mode="after")
    def _one_profile(self) -> Self:
        given = {self.integration_id, self.connector_profile_id} - {None}
        if len(given) > 1:
            message = "integration_id is an alias of connector_profile_id; they differ"
            raise ValueError(message)
        return self

    def request(self) -> ConnectSessionRequest:
        """Return what is requested; the owner joins it later."""
        return replace(
            super().request(),
            expires_in=self.expires_in,
            metadata=self.metadata,
            type=self.type,
            shared=self.shared,
            connector_profile_id=self.connector_profile_id or self.integration_id,
        )


class SessionToken(BaseModel):
    """A minted session. The token opens the Hub; it is shown here once and kept nowhere."""

    id: str = Field(description="The broker's id of the session, for GET /v1/connect-sessions/{id}.")
    token: str
    expires_at: datetime
    expires_in: int = Field(description="Seconds from the answer to `expires_at`: a page's own clock may be wrong.")
    mode: Literal["create", "edit"]
    account_id: str | None = Field(description="The account that an edit session is about.")
    provider: str | None

    @classmethod
    def of(cls, minted: Minted) -> Self:
        """Show a minted session."""
        return cls.model_validate(_shown(minted, cls.model_fields))


class OwnerSessionToken(SessionToken):
    """A minted session as a backend gets it."""

    owner_id: str
    owner_name: str = Field(description="The pinned name that was sent to StackOne.")
    name_pinned: bool = Field(description=_NAME_PINNED)
    auth_link_url: str


class AuthLink(BaseModel):
    """A link to send to a person: whoever opens it can link an account for the owner until it expires."""

    id: str
    auth_link_url: str
    expires_at: datetime
    expires_in: int = Field(description="Seconds from the answer to `expires_at`: a page's own clock may be wrong.")
    mode: Literal["create", "edit"]
    account_id: str | None
    provider: str | None
    owner_id: str
    owner_name: str = Field(description="The pinned name that was sent to StackOne.")
    name_pinned: bool = Field(description=_NAME_PINNED)

    @classmethod
    def of(cls, minted: Minted) -> Self:
        """Show a minted session."""
        return cls.model_validate(_shown(minted, cls.model_fields))


class SessionStatus(BaseModel):
    """How a session stands."""

    id: str
    status: Literal["pending", "linked", "expired", "failed", "unknown", "ended"] = Field(
        description="`failed`: the last OAuth attempt went wrong, or StackOne refused the session. `unknown`: it has"
        " expired, and an account that was linked or edited meanwhile may be its work or another session's. `ended`:"
        " it was ended before it linked an account."
    )
    mode: Literal["create", "edit"]
    provider: str | None
    account_id: str | None = Field(description="The account it linked, or the one an edit session is about.")
    was_new: bool | None = Field(
        description="Whether the linked account was made; false: one that was there was edited. Null until linked."
    )
    created_at: datetime
    expires_at: datetime
    oauth_error_code: str | None = Field(description="Why the last OAuth attempt failed, as StackOne tells it.")
    oauth_error_description: str | None
    attempt: str | None = Field(
        default=None,
        description="pending, authenticated, error, cancelled or expired: how StackOne says that the last OAuth attempt"
        " went. Only a poll asks; null where there was no attempt.",
    )

    @classmethod
    def of(cls, session: Session, upstream: AuthenticatedSession | None = None) -> Self:
        """Show a resolved session, with what StackOne said of it where it was asked."""
        return cls.model_validate(_status(session, upstream))


class OwnerSessionStatus(SessionStatus):
    """How a session of an owner stands, as a backend gets it."""

    owner_id: str
    channel: Literal["browser", "service", "auth_link"]
    requested_by: str = Field(description="user:<subject>@<issuer>, or service:<credential>.")
    opens_until: datetime | None = Field(
        description="Until when the Hub still opens with its token or link, ended or not: StackOne revokes none."
        " Null once that is over."
    )
    external_trigger_token: str | None = Field(
        default=None, description="As StackOne sends it in answer to a poll; kept nowhere."
    )

    @classmethod
    def of_owner(cls, session: Session, now: datetime, upstream: AuthenticatedSession | None = None) -> Self:
        """Show a resolved session, with what StackOne said of it where it was asked."""
        token = upstream.external_trigger_token if upstream else None
        return cls.model_validate(
            {
                **_status(session, upstream),
                "owner_id": session.owner_id,
                "channel": session.channel.value,
                "requested_by": session.requested_by,
                "opens_until": session.expires_at if session.expires_at > now else None,
                "external_trigger_token": token.get_secret_value() if token else None,
            }
        )


class SessionPage(BaseModel):
    """A page of sessions, the newest first; `next_cursor` is null on the last one."""

    data: list[OwnerSessionStatus]
    next_cursor: str | None

    @classmethod
    def of(cls, sessions: Sequence[Session], now: datetime, *, has_more: bool) -> Self:
        """Show a page."""
        return cls(
            data=[OwnerSessionStatus.of_owner(session, now) for session in sessions],
            next_cursor=cursor_at(sessions[-1]) if has_more else None,
        )


class ConnectorOut(BaseModel):
    """A provider that you may link."""

    key: str = Field(description="Give it as `provider` to open a session for it.")
    label: str
    logo_url: str | None = Field(description="An https: or data: URL of an image.")
    categories: list[str]
    linked: bool = Field(description="Whether the owner has an account of it: a session for it re-authenticates that.")
    picker_only: bool = Field(
        description="Policy allows it by category only: open a session without a provider, and the user picks it."
    )

    @classmethod
    def of(cls, connector: Connector) -> Self:
        """Show a connector."""
        return cls.model_validate(_shown(connector, ConnectorOut.model_fields))


class ConnectorPage(BaseModel):
    """A page of connectors in the order of their keys; `next_cursor` is null on the last one."""

    data: list[ConnectorOut]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[Connector], *, has_more: bool) -> Self:
        """Show a page."""
        cursor = encode_cursor(found[-1].key) if has_more else None
        return cls(data=[ConnectorOut.of(connector) for connector in found], next_cursor=cursor)


class ConnectorProfile(BaseModel):
    """A way to connect a provider; StackOne also calls it auth config or integration."""

    id: str = Field(description="Give it as `connector_profile_id`.")
    name: str | None
    default: bool


class OwnerConnector(ConnectorOut):
    """A provider that may be linked for an owner."""

    connector_profiles: list[ConnectorProfile]

    @classmethod
    def of(cls, connector: Connector) -> Self:
        """Show a connector with its profiles."""
        profiles = [_shown(profile, ConnectorProfile.model_fields) for profile in connector.profiles]
        return cls.model_validate({**_shown(connector, ConnectorOut.model_fields), "connector_profiles": profiles})


class OwnerConnectorPage(BaseModel):
    """A page of connectors in the order of their keys; `next_cursor` is null on the last one."""

    data: list[OwnerConnector]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[Connector], *, has_more: bool) -> Self:
        """Show a page."""
        cursor = encode_cursor(found[-1].key) if has_more else None
        return cls(data=[OwnerConnector.of(connector) for connector in found], next_cursor=cursor)


class SessionPoll(BaseModel):
    """The session's own token, as minting returned it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(storable_secret)]


def _status(session: Session, upstream: AuthenticatedSession | None) -> dict[str, Any]:
    attempt = upstream.latest_connection_attempt if upstream else None
    names = SessionStatus.model_fields.keys() - {"account_id", "attempt"}
    return {
        **_shown(session, names),
        "account_id": session.linked_account_id or session.account_id,
        "attempt": attempt.status if attempt else None,
    }


def _shown(value: object, names: Iterable[str]) -> dict[str, Any]:
    """Return attributes as the text that JSON shows; an answer is the one place where a token is spelled out."""
    shown = {name: getattr(value, name) for name in names}
    return {
        name: item.value if isinstance(item, Enum) else item.get_secret_value() if isinstance(item, SecretStr) else item
        for name, item in shown.items()
    }
