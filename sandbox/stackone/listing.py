"""Lists of accounts: the documented shape, and the shapes that the documents leave open."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from sandbox.bodies import Rule, checked
from sandbox.stackone.accounts import Account

_RULES = {
    "envelope": Rule(kind="boolean"),
    "names": Rule(one_of=frozenset({"v1", "v2"})),
    "first_page": Rule(kind="integer", at_least=0),
    "ignore_page": Rule(kind="boolean"),
    "repeat_rows": Rule(kind="boolean"),
    "end_early": Rule(kind="integer", at_least=0),
    "max_page_size": Rule(kind="integer", at_least=1),
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """How GET /accounts answers.

    envelope       `{"data": [...]}` in place of the bare array
    names          v2: connector, owner_id, owner_name
    first_page     the number of the first page
    ignore_page    every page is the first one
    repeat_rows    each page begins with the last row of the page before
    end_early      the list stops after so many rows, and says nothing
    max_page_size  larger pages are silently cut to this size
    """

    envelope: bool = False
    names: str = "v1"
    first_page: int = 1
    ignore_page: bool = False
    repeat_rows: bool = False
    end_early: int | None = None
    max_page_size: int | None = None

    @classmethod
    def wished(cls, wish: dict[str, object]) -> Self:
        """Return the listing that the switch asks for; what it does not name has its default."""
        given = {name: value for name, value in checked(wish, _RULES).items() if value is not None}
        return cls(**given)  # type: ignore[arg-type]  # the rules have checked the types

    def page(self, rows: Sequence[Account], page: int, page_size: int) -> Sequence[Account]:
        """Cut one page out of all rows."""
        if self.end_early is not None:
            rows = rows[: self.end_early]
        size = min(page_size, self.max_page_size or page_size)
        index = 0 if self.ignore_page else max(0, page - self.first_page)
        # A page of one row that repeats the row before would never get anywhere.
        step = size - 1 if self.repeat_rows and size > 1 else size
        return rows[index * step : index * step + size]


@dataclass(frozen=True, kw_only=True)
class AccountFilter:
    """The filters of GET /accounts; an empty one lets everything through."""

    providers: frozenset[str] = field(default_factory=frozenset)
    owner_ids: frozenset[str] = field(default_factory=frozenset)
    account_ids: frozenset[str] = field(default_factory=frozenset)
    statuses: frozenset[str] = field(default_factory=frozenset)
    connector_profile_ids: frozenset[str] = field(default_factory=frozenset)

    def matching(self, accounts: Iterable[Account]) -> list[Account]:
        """Return the accounts that pass, in their order."""
        return [account for account in accounts if self._passes(account)]

    def _passes(self, account: Account) -> bool:
        asked = (
            (self.providers, account.provider),
            (self.owner_ids, account.origin_owner_id),
            (self.account_ids, account.id),
            (self.statuses, account.status),
            (self.connector_profile_ids, account.connector_profile_id),
        )
        return all(not wanted or value in wanted for wanted, value in asked)
