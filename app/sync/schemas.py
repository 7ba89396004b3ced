"""The JSON of sweeps."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.sync.runs import Sweep


class SweepRequest(BaseModel):
    """How to sweep."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    max_removal_percent: float | None = Field(
        default=None, ge=0, le=100, description="Let the removal limit allow this much, this once."
    )


class SweepOut(BaseModel):
    """One sweep."""

    id: int
    state: Literal["requested", "running", "done", "stopped", "failed"]
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    max_removal_percent: float | None = Field(
        description="Share of known accounts that it may remove; null: as BROKER_SYNC__SWEEP_MAX_REMOVAL_PERCENT says."
    )
    listed: int = Field(description="Accounts that StackOne has listed so far.")
    added: int = Field(description="Accounts that the store did not have.")
    changed: int = Field(description="Accounts that the store had otherwise.")
    removed: int = Field(description="Accounts that the store had and StackOne has no more.")
    suspects: int = Field(description="Accounts that the listing lacked; each was read by itself.")
    reason: str | None = Field(description="Why it stopped or failed, and what to do.")

    @classmethod
    def of(cls, sweep: Sweep) -> Self:
        """Show a sweep."""
        return cls.model_validate({name: getattr(sweep, name) for name in cls.model_fields})


class SweepAccepted(SweepOut):
    """The answer to a request for a sweep."""

    started: bool = Field(description="False where one was already waiting or running: this is that one.")


class SyncStatus(BaseModel):
    """How the store stands against StackOne."""

    state: Literal["idle", "requested", "running"]
    current: SweepOut | None = Field(description="The sweep that runs, was interrupted or waits.")
    last_runs: list[SweepOut]
    accounts: int = Field(description="Accounts in the store.")
    due: int = Field(description="Accounts waiting to be read again.")
    drift: int | None = Field(description="Accounts that the last finished sweep had to put right; null: none yet.")
