"""The JSON of connect sessions."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.connect_sessions.ledger import Session
from app.connect_sessions.mint import Minted
from app.inputs import LONGEST_LIFE, SHORTEST_LIFE, AccountIdText, Body, Metadata, ProviderKey, ShortText, storable
from app.stackone.models import Category, ConnectSessionRequest, SessionType


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
    integration_id: ShortText | None = Field(
        default=None, description="Deprecated alias of connector_profile_id.", json_schema_extra={"deprecated": True}
    )

    @model_validator(mode="before")
    @classmethod
    def _no_provider_version(cls, values: object) -> object:
        if isinstance(values, dict) and "provider_version" in values:
            message = (
                "provider_version is deprecated at StackOne: it selects nothing and can make the session fail;"
                " leave it out and use connector_profile_id to choose a version"
            )
            raise ValueError(message)
        return values

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
    owner_name: str

    @classmethod
    def of(cls, minted: Minted) -> Self:
        """Show a minted session."""
        return cls.model_validate(_shown(minted, cls.model_fields))


class SessionStatus(BaseModel):
    """How a session stands."""

    id: str
    status: Literal["pending", "linked", "expired", "failed"]
    mode: Literal["create", "edit"]
    provider: str | None
    account_id: str | None = Field(description="The account it linked, or the one an edit session is about.")
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, session: Session) -> Self:
        """Show a resolved session."""
        return cls.model_validate(
            {
                **_shown(session, SessionStatus.model_fields),
                "account_id": session.linked_account_id or session.account_id,
            }
        )


def _storable_secret(secret: SecretStr) -> SecretStr:
    storable(secret.get_secret_value())
    return secret


class SessionPoll(BaseModel):
    """The session's own token, as minting returned it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token: Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_storable_secret)]


class PolledSession(SessionStatus):
    """How a session stands, and how its OAuth attempt went according to StackOne."""

    attempt: str | None = Field(
        description="pending, authenticated, error, cancelled or expired; null where there was no OAuth attempt."
    )

    @classmethod
    def of_poll(cls, session: Session, attempt: str | None) -> Self:
        """Show a session as a poll found it."""
        return cls(**SessionStatus.of(session).model_dump(), attempt=attempt)


def _shown(value: object, names: Iterable[str]) -> dict[str, Any]:
    """Return attributes as the text that JSON shows; an answer is the one place where a token is spelled out."""
    shown = {name: getattr(value, name) for name in names}
    return {
        name: item.value if isinstance(item, Enum) else item.get_secret_value() if isinstance(item, SecretStr) else item
        for name, item in shown.items()
    }
