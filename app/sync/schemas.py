"""The JSON of sweeps."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.inputs import Body
from app.sync.inbox import Outcome
from app.sync.runs import Sweep
from app.sync.status import Status
from app.sync.tables import SweepState


class Receipt(BaseModel):
    """What became of a delivery; StackOne looks at the status only."""

    outcome: Outcome

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Show an outcome."""
        return cls(outcome=outcome)


class SweepRequest(Body):
    """How to sweep."""

    max_removal_percent: float | None = Field(
        default=None, ge=0, le=100, description="Let the removal limit allow this much, this once."
    )


class SweepOut(BaseModel):
    """One sweep."""

    id: int
    state: SweepState
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

    @classmethod
    def of_request(cls, sweep: Sweep, started: bool) -> Self:  # noqa: FBT001  the two that a request answers with
        """Show the sweep that a request led to."""
        return cls.model_validate({**SweepOut.of(sweep).model_dump(), "started": started})


class SyncStatus(BaseModel):
    """How the store stands against StackOne."""

    state: Literal["idle", "requested", "running"]
    current: SweepOut | None = Field(description="The sweep that runs, was interrupted or waits.")
    last_runs: list[SweepOut]
    accounts: int = Field(description="Accounts in the store.")
    due: int = Field(description="Accounts waiting to be read again.")
    drift: int | None = Field(description="Accounts that the last finished sweep had to put right; null: none yet.")
    first_fill: bool = Field(description="True until a second sweep has come to its end: what the first added was new.")

    @classmethod
    def of(cls, status: Status) -> Self:
        """Show how things stand."""
        return cls.model_validate(
            {
                "state": status.current.state.value if status.current else "idle",
                "current": SweepOut.of(status.current) if status.current else None,
                "last_runs": [SweepOut.of(sweep) for sweep in status.last_runs],
                "accounts": status.accounts,
                "due": status.due,
                "drift": status.last_runs[0].drift if status.last_runs else None,
                "first_fill": status.is_first_fill,
            }
        )
