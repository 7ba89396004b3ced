"""Linked accounts, and the one function that decides whether linking makes a new one."""

import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from sandbox.bodies import JsonObject
from sandbox.clock import Ticker, iso
from sandbox.errors import ApiError
from sandbox.stackone.connectors import connector_for

AccountEvent = Literal["account.created", "account.updated", "account.deleted"]

_NANOID_ALPHABET = string.ascii_letters + string.digits + "_-"
_NANOID_LENGTH = 21
_TWENTY_DIGITS = 10**19


class Account(BaseModel):
    """One linked account. The last three fields never leave through the accounts API."""

    id: str
    provider: str
    status: str = "active"
    origin_owner_id: str | None
    origin_owner_name: str | None
    created_at: str
    updated_at: str
    provider_name: str | None = None
    status_reasons: list[JsonObject] = Field(default_factory=list)
    origin_username: str | None = None
    credentials: JsonObject = Field(default_factory=dict)
    setup_information: JsonObject = Field(default_factory=dict)
    label: Any = None
    type: str = "production"
    shared: bool = True

    secrets: JsonObject = Field(default_factory=dict)
    metadata: JsonObject = Field(default_factory=dict)
    connector_profile_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class LinkOrder:
    """What is to be linked: from the Hub's form, from the OAuth popup, or from a switch."""

    provider: str
    origin_owner_id: str | None
    origin_owner_name: str | None
    account_id: str | None = None
    multiple: bool = False
    changes: Mapping[str, object] = field(default_factory=dict)
    fixed_id: str | None = None


class Accounts:
    """Every linked account of the project, in the order in which they were made."""

    def __init__(self, ticker: Ticker, on_change: Callable[[AccountEvent, Account], None]) -> None:
        """Start empty; `on_change` is called after every change."""
        self._by_id: dict[str, Account] = {}
        self._ticker = ticker
        self._on_change = on_change
        self._made = 0

    def __iter__(self) -> Iterator[Account]:
        """Go through the accounts, oldest first."""
        return iter(list(self._by_id.values()))

    def get(self, account_id: str) -> Account:
        """Return the account. Raises ApiError 404."""
        account = self._by_id.get(account_id)
        if account is None:
            raise ApiError(404, "Account not found")
        return account

    def find(self, account_id: str | None) -> Account | None:
        """Return the account if there is one."""
        return self._by_id.get(account_id or "")

    def existing(self, origin_owner_id: str | None, origin_owner_name: str | None, provider: str) -> Account | None:
        """Return the account that the documented create-vs-update key already names."""
        key = (origin_owner_id, origin_owner_name, provider)
        return next((a for a in self if (a.origin_owner_id, a.origin_owner_name, a.provider) == key), None)

    def link(self, order: LinkOrder) -> Account:
        """Link: edit the account the order names, else the one its key names unless `multiple`, else make one."""
        if order.account_id is not None:
            return self.change(order.account_id, order.changes)
        known = self.existing(order.origin_owner_id, order.origin_owner_name, order.provider)
        if known is None or order.multiple or order.fixed_id is not None:
            return self._create(order)
        return self.change(known.id, order.changes)

    def change(self, account_id: str, changes: Mapping[str, object]) -> Account:
        """Change fields of an account; updated_at moves on unless the change sets it."""
        account = self.get(account_id)
        account.updated_at = iso(self._ticker())
        for name, value in changes.items():
            setattr(account, name, value)
        self._on_change("account.updated", account)
        return account

    def delete(self, account_id: str) -> Account:
        """Unlink, and return what was there."""
        account = self.get(account_id)
        del self._by_id[account_id]
        account.updated_at = iso(self._ticker())
        self._on_change("account.deleted", account)
        return account

    def clear(self) -> None:
        """Forget every account; no event is sent."""
        self._by_id.clear()
        self._made = 0

    def dump(self) -> list[JsonObject]:
        """Return every account as plain data."""
        return [account.model_dump() for account in self]

    def restore(self, saved: list[JsonObject]) -> None:
        """Take back what `dump` returned; no event is sent."""
        for entry in saved:
            account = Account.model_validate(entry)
            self._by_id[account.id] = account

    def _create(self, order: LinkOrder) -> Account:
        account_id = order.fixed_id or self._new_id()
        if account_id in self._by_id:
            raise ApiError(409, "An account with this id exists")
        now = iso(self._ticker())
        connector = connector_for(order.provider)
        account = Account(
            id=account_id,
            provider=order.provider,
            provider_name=connector.name if connector else None,
            origin_owner_id=order.origin_owner_id,
            origin_owner_name=order.origin_owner_name,
            created_at=now,
            updated_at=now,
        ).model_copy(update=dict(order.changes))
        self._by_id[account_id] = account
        self._on_change("account.created", account)
        return account

    def _new_id(self) -> str:
        # StackOne has two kinds of ids, and neither fits an integer column. They alternate: every test meets both.
        self._made += 1
        return nanoid() if self._made % 2 else str(_TWENTY_DIGITS + secrets.randbelow(8 * _TWENTY_DIGITS))


def nanoid() -> str:
    """Return a short random id of 21 url-safe characters."""
    return "".join(secrets.choice(_NANOID_ALPHABET) for _ in range(_NANOID_LENGTH))
