"""What is kept of each webhook: the bytes that were sent, and the answers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from sandbox.clock import Clock, iso
from sandbox.stackone.signing import sign

DeliveryState = Literal["pending", "delivered", "failed", "dropped"]
Mode = Literal["deliver", "drop", "duplicate", "reorder", "delay"]

_FIRST_SERVER_ERROR = 500
_WORTH_ANOTHER_TRY = frozenset({408, 429})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one try ended: with a status, or with the name of what went wrong."""

    at: str
    status: int | None = None
    error: str | None = None

    @property
    def accepted(self) -> bool:
        """Tell whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - the 2xx class

    @property
    def is_worth_another_try(self) -> bool:
        """Tell whether sending again may help: silence, overload and server errors, never a refusal."""
        return self.status is None or self.status >= _FIRST_SERVER_ERROR or self.status in _WORTH_ANOTHER_TRY


@dataclass(kw_only=True)
class Delivery:
    """One event on its way."""

    n: int
    payload: Mapping[str, object]
    mode: Mode
    state: DeliveryState = "pending"
    replay_of: int | None = None
    raw: bytes | None = None
    signature: str | None = None
    answers: list[Answer] = field(default_factory=list)

    def seal(self, secret: str, clock: Clock) -> None:
        """Write and sign the bytes that leave now; `sent_at` says so, on a repetition too (inferred)."""
        body = {**self.payload, "sent_at": iso(clock())}
        self.raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        self.signature = sign(self.raw, secret)

    def to_json(self) -> dict[str, object]:
        """Write the delivery out as the switch shows it."""
        last = self.answers[-1] if self.answers else None
        return {
            "n": self.n,
            "event": self.payload["event"],
            "account_id": self.payload["account_id"],
            "mode": self.mode,
            "state": self.state,
            "replay_of": self.replay_of,
            "body": None if self.raw is None else self.raw.decode(),
            "signature": self.signature,
            "status": last.status if last else None,
            "answers": [asdict(answer) for answer in self.answers],
        }
