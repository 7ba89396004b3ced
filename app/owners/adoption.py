"""Adoption: a table of owners that a team kept before the broker becomes pinned names, and accounts to look at.

The table is believed for names only. Whose an account is, and how it stands, is StackOne's word: its id is marked as
due, and the refresh reads it.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock
from app.connect_sessions.tables import owners
from app.db.database import Database
from app.db.repeats import await_standby
from app.db.tables import upsert
from app.inputs import Body, OwnerId, ShortText
from app.linked_accounts.due import mark_due
from app.linked_accounts.tables import linked_accounts
from app.stackone.models import possible_account_id

_BATCH = 100
_MISTAKES_TOLD = 50
_ACCOUNTS_OF_ONE_ROW = 10_000
_COLUMNS = "owner_id, name, account_ids"
_A = linked_accounts.c


class FileMistakesError(Exception):
    """The file cannot be used. `mistakes` says why, line by line; nothing was done."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        """Take the mistakes."""
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = mistakes


def _listed(value: object) -> object:
    """Take a cell of a table: ids between blanks, commas, semicolons or bars."""
    if isinstance(value, str):
        return [part for part in value.replace(";", " ").replace(",", " ").replace("|", " ").split() if part]
    return [] if value is None else value


def _possible(account_id: str) -> str:
    if not possible_account_id(account_id):
        message = "no account of StackOne has such an id"
        raise ValueError(message)
    return account_id


class AdoptedOwner(Body):
    """One row of the table."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    owner_id: OwnerId
    name: Annotated[ShortText | None, BeforeValidator(lambda value: value or None)] = None
    account_ids: Annotated[
        tuple[Annotated[str, AfterValidator(_possible)], ...],
        BeforeValidator(_listed),
        Field(max_length=_ACCOUNTS_OF_ONE_ROW),
    ] = ()


@dataclass
class Adopted:
    """What an import did, or would do."""

    dry_run: bool
    owners: int = 0
    pinned: int = 0
    marked: int = 0
    known: int = 0
    """Accounts that the store has already, read from StackOne."""
    other_names: list[tuple[str, str, str]] = field(default_factory=list)
    """Owners that have another name pinned, which stays: id, name in the file, pinned name."""
    other_owners: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Accounts that are another owner's at StackOne: id, owner in the file, owner there."""


def read_table(text: str) -> list[AdoptedOwner]:
    """Read CSV with a header line, or JSON lines. Raises FileMistakesError with every mistake and its line."""
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    mistakes: list[str] = []
    rows: list[AdoptedOwner] = []
    names: dict[str, tuple[str, int]] = {}
    reading = _json_lines(text) if text.lstrip().startswith("{") else _csv_lines(text)
    for line, values in reading:
        if isinstance(values, str):
            mistakes.append(f"line {line}: {values}")
            continue
        try:
            row = AdoptedOwner.model_validate(values)
        except ValidationError as error:
            for item in error.errors(include_input=False, include_url=False):
                place = ".".join(str(part) for part in item["loc"])
                mistakes.append(f"line {line}: {place}: {item['msg'].removeprefix('Value error, ')}")
            continue
        if row.name is not None:
            name, before = names.setdefault(row.owner_id, (row.name, line))
            if name != row.name:
                mistakes.append(f"line {line}: name: line {before} gives the same owner another name")
        rows.append(row)
    if not rows and not mistakes:
        mistakes.append("line 1: there are no rows")
    if mistakes:
        raise FileMistakesError(mistakes[:_MISTAKES_TOLD])
    return rows


def _json_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            values = json.loads(written)
        except (ValueError, RecursionError):
            values = None
        yield line, values if isinstance(values, dict) else "not a JSON object"


def _csv_lines(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if "owner_id" not in header or not set(header) <= {"owner_id", "name", "account_ids"}:
            yield 1, f"the first line must name the columns: {_COLUMNS}"
            return
        reader.fieldnames = header
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, "has another number of cells than the first line"
            else:
                yield reader.line_num, dict(row)
    except csv.Error as error:
        yield reader.line_num, f"is no CSV: {error}"


async def adopt(
    database: Database,
    rows: Sequence[AdoptedOwner],
    *,
    clock: Clock,
    actor: str,
    dry_run: bool,
    told: Callable[[int], None],
) -> Adopted:
    """Pin the names and mark the accounts of a table, in batches; once more does nothing more.

    `told` hears how many rows are done. What an interrupted import has done stays done.
    """
    result = Adopted(dry_run=dry_run)
    seen: set[str] = set()
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        async with database.transaction() as connection:
            for row in batch:
                result.owners += row.owner_id not in seen
                seen.add(row.owner_id)
                await _pin(connection, row, result, clock=clock, actor=actor)
                await _mark(connection, row, result, clock=clock)
            if not dry_run:
                ids = [account_id for row in batch for account_id in row.account_ids][:_BATCH]
                await await_standby(connection, owners, owners.c.owner_id.in_([row.owner_id for row in batch]))
                await await_standby(connection, linked_accounts, _A.account_id.in_(ids))
        told(start + len(batch))
    return result


async def _pin(connection: AsyncConnection, row: AdoptedOwner, result: Adopted, *, clock: Clock, actor: str) -> None:
    if row.name is None:
        return
    pinned = await connection.scalar(sa.select(owners.c.owner_name).where(owners.c.owner_id == row.owner_id))
    if pinned is not None:
        if pinned != row.name:
            result.other_names.append((row.owner_id, row.name, pinned))
        return
    result.pinned += 1
    if not result.dry_run:
        values = {
            "owner_id": row.owner_id,
            "owner_name": row.name,
            "pinned_at": clock.now(),
            "pinned_by": actor,
        }
        statement = upsert(connection, owners, values)
        await connection.execute(statement.on_conflict_do_nothing(index_elements=[owners.c.owner_id]))


async def _mark(connection: AsyncConnection, row: AdoptedOwner, result: Adopted, *, clock: Clock) -> None:
    for start in range(0, len(row.account_ids), _BATCH):
        ids = row.account_ids[start : start + _BATCH]
        query = sa.select(_A.account_id, _A.owner_id, _A.verified_at, _A.refresh_due_at).where(_A.account_id.in_(ids))
        stored = {found.account_id: found for found in await connection.execute(query)}
        for account_id in ids:
            found = stored.get(account_id)
            if found is not None and found.verified_at is not None:
                result.known += 1
                if found.owner_id != row.owner_id:
                    result.other_owners.append((account_id, row.owner_id, found.owner_id))
            elif found is None or found.refresh_due_at is None:
                result.marked += 1
                if not result.dry_run:
                    await mark_due(connection, account_id, now=clock.now())
