"""The JSON of connect sessions."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.connect_sessions.ledger import Session
from app.connect_sessions.owner_names import Pin
from app.inputs import AccountIdText, ProviderKey, ShortText, storable
from app.stackone.models import Category, SessionType

_LARGEST_METADATA_BYTES = 4096
SHORTEST_LIFE, LONGEST_LIFE = 60, 2_592_000


def _bounded_metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        message = "must be plain JSON"
        raise ValueError(message) from None
    # What JSON has escapes for (NUL is one) is spelled with them here; all else stands as it is.
    storable(text)
    if "\\u0000" in text or len(text.encode()) > _LARGEST_METADATA_BYTES:
        message = f"must be at most {_LARGEST_METADATA_BYTES} bytes of JSON without NUL"
        raise ValueError(message)
    return value


Metadata = Annotated[dict[str, Any], AfterValidator(_bounded_metadata)]


class Body(BaseModel):
    """What may come in."""

    # Unknown fields are refused, not dropped: whoever sends origin_owner_id must learn that it counts for nothing.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


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


class OwnerSessionRequest(SessionRequest):
    """What a backend may ask for: everything that StackOne documents."""

    origin_owner_name: ShortText | None = Field(
        default=None, description="The owner's display name; counts only until one is pinned for the owner."
    )
    origin_username: ShortText | None = Field(default=None, description="The person who will link.")
    expires_in: int | None = Field(
        default=None, ge=SHORTEST_LIFE, le=LONGEST_LIFE, description="Seconds the session lives."
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


class SessionToken(BaseModel):
    """A minted session. The token opens the Hub; it is shown here once and kept nowhere."""

    id: str = Field(description="The broker's id of the session, for GET /v1/connect-sessions/{id}.")
    token: str
    expires_at: datetime
    expires_in: int = Field(description="Seconds from the answer to `expires_at`: a page's own clock may be wrong.")
    mode: Literal["create", "edit"]
    account_id: str | None = Field(description="The account that an edit session is about.")
    provider: str | None


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
        """Show a settled session."""
        return cls.model_validate(
            {
                **{name: getattr(session, name) for name in cls.model_fields},
                "account_id": session.linked_account_id or session.account_id,
            }
        )


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
