"""The JSON of owners: a name to pin, and the receipt of an erasure."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.inputs import Body, ShortText
from app.owners.erasure import Erasure
from app.owners.names import Pin


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
