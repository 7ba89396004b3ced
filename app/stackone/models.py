"""What StackOne sends and takes, read tolerantly: its documentation, specification and SDKs disagree in places.

Accounts exist in two spellings (v1 `provider`, `origin_owner_id`; v2 `connector`, `owner_id`), lists in two envelopes
(a bare array, `{"data": []}`); ids may be numbers past 2^63 and are always text here. What an account cannot do without
must be right; the rest is as good as absent where it is of another kind than documented.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from app.inputs import addressable, storable

# What StackOne's statuses mean to a caller; an unknown status is kept as it is and counts as neither.
USABLE_STATUSES = frozenset({"active"})
REAUTH_STATUSES = frozenset({"error", "expired"})

# StackOne's ids are digits or nanoids. Anything else cannot exist, so it is not worth a call, and it never gets near
# the path of one.
_LONGEST_OWNER_ID = 255
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_LINK = re.compile(r"https?://[^\s\\]+")
# Provider and status stand in an index, whose rows PostgreSQL bounds.
_LONGEST_WORD: Final = 255
_LONGEST_TEXT: Final = 1000
_MOST_REASONS: Final = 20
_MOST_CATEGORIES: Final = 50


def possible_account_id(account_id: str) -> bool:
    """Tell whether StackOne could have given out this id."""
    return _ACCOUNT_ID.fullmatch(account_id) is not None


class AccountGone(Exception):
    """StackOne says that there is no such account."""


class Category(Enum):
    """Categories as they stand on the wire; the spec's examples show the enum's names instead, which are not valid."""

    ATS = "ats"
    HRIS = "hris"
    HRIS_LEGACY = "hris-legacy"
    CRM = "crm"
    IAM = "iam"
    MARKETING = "marketing"
    LMS = "lms"
    STACKONE = "stackone"
    DOCUMENTS = "documents"
    TICKETING = "ticketing"
    SCREENING = "screening"
    MESSAGING = "messaging"
    ACCOUNTING = "accounting"
    SCHEDULING = "scheduling"


class SessionType(Enum):
    """Whether a connection counts as production or test; lower case on the wire."""

    PRODUCTION = "production"
    TEST = "test"


def _text(value: object) -> object:
    """Numbers become text: ids are numeric in some answers and do not fit a 64-bit integer.

    Those with a fraction or an exponent do not: an id that was written so has lost digits, and would be another one's.
    """
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _utc(value: object) -> object:
    """Times without a zone are UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _clean(value: object) -> object:
    """Drop what PostgreSQL cannot store: a NUL or a lone surrogate in a label must not break a sweep."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
    return value


def _or_none(value: object, read: ValidatorFunctionWrapHandler) -> Any:
    """Take a value that can be done without as absent where it cannot be read."""
    try:
        return read(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _readable(values: object) -> object:
    """Leave out of a list of objects what is none; another thing than a list is no list."""
    if not isinstance(values, list):
        return None
    return [value for value in values if isinstance(value, Mapping)][:_MOST_REASONS]


def _texts(values: object) -> object:
    """Leave out of a list of texts what is none; another thing than a list has none."""
    if not isinstance(values, list):
        return ()
    return [value for value in values if isinstance(value, str) and len(value) <= _LONGEST_WORD][:_MOST_CATEGORIES]


def _possible(account_id: str) -> str:
    if not possible_account_id(account_id):
        message = "not an id of an account"
        raise ValueError(message)
    return account_id


def _printable(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().isprintable():
        message = "not printable"
        raise ValueError(message)
    return value


def _link(value: SecretStr) -> SecretStr:
    """Refuse what is no address of a page: people are sent there."""
    if _LINK.fullmatch(_printable(value).get_secret_value()) is None:
        message = "not a link"
        raise ValueError(message)
    return value


def _shortened(value: object, length: int) -> str | None:
    """Take what a provider says went wrong: one line of bounded length, or nothing if it is no text."""
    if not isinstance(value, str):
        return None
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())[:length] or None


def _storable(value: str) -> str:
    """Refuse what PostgreSQL cannot store: an id cannot be cleaned, or it would be another one."""
    if not value.isprintable():
        message = "not an id"
        raise ValueError(message)
    return value


def _comparable(value: object) -> object:
    """Take an owner id as it is, or not at all: cleaned, or read from a number, it would be somebody else's."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_OWNER_ID or value != value.strip():
        return None
    try:
        return addressable(storable(value))
    except ValueError:
        return None


ComparableOwner = Annotated[str | None, BeforeValidator(_comparable)]
Id = Annotated[str, BeforeValidator(_text), AfterValidator(_storable), Field(min_length=1, max_length=255)]
AccountId = Annotated[Id, AfterValidator(_possible)]
Text = Annotated[str, BeforeValidator(_clean)]
Word = Annotated[Text, Field(max_length=_LONGEST_WORD)]
Optionally = WrapValidator(_or_none)
ShortText = Annotated[
    Text | None, BeforeValidator(_text), AfterValidator(lambda value: value and value[:_LONGEST_TEXT]), Optionally
]
ShortReason = Annotated[str | None, BeforeValidator(partial(_shortened, length=255))]
Reason = Annotated[str | None, BeforeValidator(partial(_shortened, length=500))]
Instant = Annotated[datetime, BeforeValidator(_utc)]


class Received(BaseModel):
    """Something StackOne sent: unknown fields are ignored, since it may add some at any time."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, values: object) -> object:
        """Null is as good as absent; of two spellings of a field, the one that says something counts."""
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


class StatusReason(Received):
    """Why an account has its status."""

    code: ShortText = None
    description: ShortText = None
    timestamp: ShortText = None


class Account(Received):
    """A linked account. Its credentials and setup information are never read, let alone kept."""

    id: AccountId
    provider: Word = Field(validation_alias=AliasChoices("provider", "connector"))
    status: Word
    owner_id: ComparableOwner = Field(default=None, validation_alias=AliasChoices("origin_owner_id", "owner_id"))
    """As StackOne has it, or None where no verified caller can have such an id: the account is nobody's here."""
    owner_name: ShortText = Field(default=None, validation_alias=AliasChoices("origin_owner_name", "owner_name"))
    username: ShortText = Field(default=None, validation_alias=AliasChoices("origin_username", "username"))
    status_reasons: Annotated[tuple[StatusReason, ...] | None, BeforeValidator(_readable)] = None
    label: ShortText = None
    type: ShortText = None
    created_at: Annotated[Instant | None, Optionally] = None
    updated_at: Instant
    project_id: ShortText = None


@dataclass(frozen=True)
class AccountPage:
    """A page of a listing; rows that no sense could be made of are only counted."""

    accounts: Sequence[Account]
    unreadable: int = 0

    @property
    def rows(self) -> int:
        """How many rows the page had."""
        return len(self.accounts) + self.unreadable


class AuthConfig(Received):
    """A way to connect a provider in the project; StackOne also calls it connector profile or integration."""

    id: Id
    provider: Word = Field(validation_alias=AliasChoices("connector_key", "provider", "key"))
    label: ShortText = Field(default=None, validation_alias=AliasChoices("connector_label", "label"))
    name: ShortText = None
    logo_url: Annotated[Text | None, Optionally] = None
    categories: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    enabled: bool = Field(default=True, validation_alias=AliasChoices("active", "enabled"))
    default: bool = False


class ConnectSession(Received):
    """A minted connect session. There is no expiry in it: whoever asked computes it."""

    id: Id
    token: Annotated[SecretStr, Field(min_length=1), AfterValidator(_printable)]
    auth_link_url: Annotated[SecretStr, AfterValidator(_link)]
    origin_owner_id: Any = None
    account_id: Any = None
    provider: Any = None
    project_id: Any = None
    profile_id: Any = Field(
        default=None, validation_alias=AliasChoices("connector_profile_id", "integration_id"), repr=False
    )

    def echoes(self) -> dict[str, str | None]:
        """Return what StackOne says the session is for, by the names it was sent with; None where it says nothing."""
        values = {
            "origin_owner_id": self.origin_owner_id,
            "account_id": self.account_id,
            "connector_profile_id": self.profile_id,
        }
        return {name: None if value is None else str(_text(value)) for name, value in values.items()}

    def unechoed(self, sent: Mapping[str, Any]) -> list[str]:
        """Return which of the fields that were sent StackOne says nothing about, so that they cannot be compared."""
        return [name for name, echoed in self.echoes().items() if echoed is None and name in sent]


class ConnectionAttempt(Received):
    """The last OAuth attempt of a session."""

    status: ShortReason = None
    account_id: Annotated[Id | None, Optionally] = Field(
        default=None, validation_alias=AliasChoices("account_secure_id")
    )
    oauth_error_code: ShortReason | None = None
    oauth_error_description: Reason | None = None


class AuthenticatedSession(Received):
    """A session looked up by its token."""

    id: Id
    origin_owner_id: ComparableOwner = None
    latest_connection_attempt: Annotated[ConnectionAttempt | None, Optionally] = None
    external_trigger_token: Annotated[SecretStr | None, Optionally] = None


@dataclass(frozen=True)
class ConnectSessionRequest:
    """What a session is to be: everything StackOne documents for POST /connect_sessions but the owner.

    `provider_version` is deprecated there and can make the call fail; `integration_id` is an alias of
    `connector_profile_id`. Neither exists here, so neither can be sent.
    """

    provider: str | None = None
    categories: tuple[Category, ...] | None = None
    account_id: str | None = None
    multiple: bool | None = None
    expires_in: int | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    label: str | None = None
    type: SessionType | None = None
    shared: bool | None = None
    connector_profile_id: str | None = None


@dataclass(frozen=True)
class OwnedConnectSessionRequest:
    """A request that its owner has joined: only this can be sent."""

    origin_owner_id: str
    origin_owner_name: str
    origin_username: str | None
    request: ConnectSessionRequest

    def body(self) -> dict[str, Any]:
        """Return the JSON body; absent fields are left out rather than sent as null."""
        request = self.request
        values = {
            "origin_owner_id": self.origin_owner_id,
            "origin_owner_name": self.origin_owner_name,
            "origin_username": self.origin_username,
            "provider": request.provider,
            "categories": [category.value for category in request.categories] if request.categories else None,
            "account_id": request.account_id,
            "multiple": request.multiple,
            "expires_in": request.expires_in,
            "metadata": dict(request.metadata) if request.metadata is not None else None,
            "label": request.label,
            "type": request.type.value if request.type else None,
            "shared": request.shared,
            "connector_profile_id": request.connector_profile_id,
        }
        return {name: value for name, value in values.items() if value is not None}
