"""Lists of accounts: the documented shape, and the shapes that the documents leave open."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from sandbox.bodies import Body
from sandbox.stackone.accounts import Account

_NotNegative = Annotated[int, Field(ge=0)]


class Listing(Body):
    """How GET /accounts answers; what the switch leaves out has its default."""

    envelope: bool = Field(default=False, description='`{"data": [...]}` in place of the bare array')
    names: Literal["v1", "v2"] = Field(default="v1", description="v2: connector, owner_id, owner_name")
    first_page: _NotNegative = Field(default=1, description="the number of the first page")
    ignore_page: bool = Field(default=False, description="every page is the first one")
    repeat_rows: bool = Field(default=False, description="each page begins with the last row of the page before")
    end_early: _NotNegative | None = Field(default=None, description="the list stops after so many rows")
    max_page_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="larger pages are cut to this size"
    )

    def page(self, rows: Sequence[Account], page: int, page_size: int) -> Sequence[Account]:
        """Cut one page out of all rows."""
        if self.end_early is not None:
            rows = rows[: self.end_early]
        size = min(page_size, self.max_page_size or page_size)
        index = 0 if self.ignore_page else max(0, page - self.first_page)
        # A page of one row that repeats the row before would never get anywhere.
        step = size - 1 if self.repeat_rows and size > 1 else size
        return rows[index * step : index * step + size]


def matching(
    accounts: Iterable[Account], filters: Mapping[str, str], query: Iterable[tuple[str, str]]
) -> list[Account]:
    """Return the accounts that a query asks for; values for one field are alternatives, and every field must fit."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for name, value in query:
        if name in filters:
            wanted[filters[name]].add(value)
    return [account for account in accounts if all(getattr(account, name) in wanted[name] for name in wanted)]
