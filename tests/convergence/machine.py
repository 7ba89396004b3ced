"""The play: anything that can happen between StackOne, the broker and its callers, in any order."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from app.errors import AppError
from app.sync.tables import SweepState
from tests.convergence.stage import Stage

OWNERS = {"alice": ("org_acme", "Acme Inc"), "bob": ("org_globex", "Globex")}
USERS = st.sampled_from(sorted(OWNERS))
STATUSES = st.sampled_from(["active", "error", "expired", "suspended", "inactive", "from_the_future"])
LISTINGS = st.sampled_from(
    [
        {},
        {"envelope": True, "names": "v2"},
        {"first_page": 0},
        {"repeat_rows": True},
        {"ignore_page": True},
        {"max_page_size": 2},
        {"end_early": 2},
        {"end_early": 0},
    ]
)
FAULTS = st.sampled_from(
    [
        {"status": 429, "headers": {"retry-after": "0"}},
        {"status": 500},
        {"status": 502, "body": "<html>bad gateway</html>"},
        {"status": 404, "body": "<html>not here</html>"},
        {"status": 404, "shape": "gateway"},
        {"status": 200, "body": "{"},
        {"cut": True},
        {"delay_ms": 30},
        {"hang": True},
    ]
)
# What StackOne says against its own state. One read that names another owner is not among them: it is believed, loudly.
LIES = st.sampled_from(
    [
        {"keep_deleted": True},
        {"account": {"id": "1"}},
        {"account": {"origin_owner_id": None}},
        {"account": {"status": None}, "listed": {"status": None}},
        {"account": {"updated_at": 1e300}, "listed": {"updated_at": "2026-13-45"}},
    ]
)


class Convergence(RuleBasedStateMachine):
    """One play. `stage` is set by whoever runs it."""

    stage: Stage
    accounts = Bundle("accounts")

    def __init__(self) -> None:
        """Begin with an empty stage."""
        super().__init__()
        self.run = self.stage.run
        self.run(self.stage.wipe())
        self.world = self.stage.world
        self.owned: defaultdict[str, set[str]] = defaultdict(set)
        self.was_lied_to = False
        self.denied: set[str] = set()

    # StackOne

    @initialize(target=accounts, users=st.lists(USERS, min_size=1, max_size=3), known=st.booleans())
    def begin_with_some(self, users: list[str], *, known: bool) -> Any:
        """Some accounts are there already, known to the store or to nobody."""
        linked = [self.link(user, "bamboohr", again=False) for user in users]
        if known:
            self.run(self.stage.sweep())
        return multiple(*linked)

    @rule(target=accounts, user=USERS, provider=st.sampled_from(["bamboohr", "salesforce"]), again=st.booleans())
    def link_one(self, user: str, provider: str, *, again: bool) -> str:
        """Somebody links an account, or links again what is there."""
        return self.link(user, provider, again=again)

    def link(self, user: str, provider: str, *, again: bool) -> str:
        """Link an account at StackOne."""
        owner_id, owner_name = OWNERS[user]
        fields = {"origin_owner_id": owner_id, "origin_owner_name": owner_name, "multiple": not again}
        account_id: str = self.run(self.world.link(user, provider, **fields))
        self.owned[owner_id].add(account_id)
        return account_id

    def _exists(self, account_id: str) -> bool:
        return self.world.project.accounts.find(account_id) is not None

    def _change(self, account_id: str, **changes: Any) -> None:
        # Not `assume`: that would throw the whole play away. What runs beside may delete it before the change arrives.
        if self._exists(account_id):
            with suppress(AssertionError):
                self.run(self.world.switch("PATCH", f"/accounts/{account_id}", changes))
                return
            assert not self._exists(account_id)

    @rule(account_id=accounts, status=STATUSES)
    def change_status(self, account_id: str, status: str) -> None:
        """An account breaks, is suspended, expires, or recovers."""
        self._change(account_id, status=status)

    @rule(account_id=accounts, label=st.sampled_from(["one", "two"]))
    def edit(self, account_id: str, label: str) -> None:
        """Somebody edits an account."""
        self._change(account_id, label=label)

    @rule(account_id=accounts)
    def move(self, account_id: str) -> None:
        """An account becomes another owner's."""
        account = self.world.project.accounts.find(account_id)
        user = "bob" if account and account.origin_owner_id == OWNERS["alice"][0] else "alice"
        owner_id, owner_name = OWNERS[user]
        if account is not None:
            self.owned[owner_id].add(account_id)
        self._change(account_id, origin_owner_id=owner_id, origin_owner_name=owner_name)

    @rule(account_id=accounts)
    def unlink(self, account_id: str) -> None:
        """Somebody unlinks an account elsewhere."""
        if self._exists(account_id):
            self.run(self.world.switch("DELETE", f"/accounts/{account_id}"))

    # Events

    @rule(mode=st.sampled_from(["deliver", "drop", "duplicate", "reorder", "delay"]))
    def deliver_webhooks(self, mode: str) -> None:
        """StackOne's deliveries get better or worse."""
        self.run(self.world.switch("POST", "/webhooks", {"mode": mode, "delay_ms": 20}))

    @rule(number=st.integers(1, 40))
    def replay(self, number: int) -> None:
        """Somebody who captured a delivery sends it once more."""
        if self.world.project.webhooks.log.get(number) is not None:
            self.run(self.world.project.webhooks.replay(number))

    @rule()
    def wait_for_webhooks(self) -> None:
        """Every delivery has had its answer."""
        self.run(self.world.project.webhooks.settle(2))

    # Callers

    @rule(user=USERS, account_id=accounts, aside=st.booleans())
    def confirm(self, user: str, account_id: str, *, aside: bool) -> None:
        """A page says that an account was linked, rightly or wrongly."""
        path = f"/v1/linked-accounts/{account_id}/confirm"
        if aside:
            self.run(self.stage.begin(self.stage.ask("POST", path, user)))
            return
        answer = self.run(self.stage.ask("POST", path, user))
        if answer.status_code == 200:
            assert answer.json()["owner_id"] == OWNERS[user][0]
            assert account_id in self.owned[OWNERS[user][0]]
        else:
            assert answer.status_code in {404, 502, 503}, answer.text

    @rule(
        who=st.sampled_from(["whose the store says it is", *sorted(OWNERS)]), account_id=accounts, aside=st.booleans()
    )
    def disconnect(self, who: str, account_id: str, *, aside: bool) -> None:
        """Somebody disconnects an account, rightly or wrongly."""
        user = who
        if who not in OWNERS:
            shown = self.run(self.stage.stored()).get(account_id)
            user = next((user for user, (owner_id, _) in OWNERS.items() if shown and owner_id == shown[0]), "alice")
        before = self.world.project.accounts.find(account_id)
        owner_id = before.origin_owner_id if before else None
        path = f"/v1/linked-accounts/{account_id}"
        if aside:
            self.run(self.stage.begin(self.stage.ask("DELETE", path, user)))
            return
        answer = self.run(self.stage.ask("DELETE", path, user))
        assert answer.status_code in {202, 204, 404, 503}, answer.text
        if owner_id is not None and owner_id != OWNERS[user][0]:
            assert self._exists(account_id), "somebody deleted another owner's account"
        # A deletion that was acknowledged and a read that denies the account are two witnesses, even if both lied.
        if answer.status_code == 204 and account_id not in self.denied:
            assert not self._exists(account_id)

    @rule(account_id=accounts)
    def lose_and_disconnect(self, account_id: str) -> None:
        """An owner disconnects an account just after it has become another's."""
        self.move(account_id)
        self.disconnect("whose the store says it is", account_id, aside=False)

    @rule(user=USERS, account_id=accounts)
    def confirm_while_it_is_unlinked(self, user: str, account_id: str) -> None:
        """An answer that shows an account arrives when it has been unlinked and swept away."""
        self.stage.gate.hold = "after"
        self.confirm(user, account_id, aside=True)
        self.run(_breathe())
        self.unlink(account_id)
        self.sweep({}, aside=False)
        self.release_calls()

    # The broker

    @rule(aside=st.booleans())
    def refresh(self, *, aside: bool) -> None:
        """The loop reads a batch of due accounts."""
        self.run(self.stage.begin(self.stage.refresh()) if aside else self._tolerated(self.stage.refresh()))

    @rule(aside=st.booleans(), listing=LISTINGS)
    def sweep(self, listing: dict[str, Any], *, aside: bool) -> None:
        """A sweep runs, over a listing of whatever shape."""
        self.run(self.world.switch("POST", "/listing", listing))
        if aside:
            self.run(self.stage.begin(self.stage.sweep()))
            return
        alive = set(self.stage.upstream())
        held = set(self.run(self.stage.stored()))
        self.run(self._tolerated(self.stage.sweep()))
        if not self.stage.tasks:
            # A listing that lacks an account and a read that denies it are two witnesses: that both lied shows later.
            lost = (held & alive) - set(self.run(self.stage.stored())) - self.denied
            assert not lost, "a sweep removed what StackOne has"

    async def _tolerated(self, work: Any) -> None:
        try:
            await work
        except AppError:
            return

    # Trouble

    @rule(fault=FAULTS, times=st.integers(1, 2), method=st.sampled_from(["GET", "DELETE", "*"]))
    def break_stackone(self, fault: dict[str, Any], times: int, method: str) -> None:
        """StackOne fails in one of its ways."""
        body = {"method": method, "path": "/accounts", "times": times, **fault}
        self.run(self.world.switch("POST", "/faults", body))

    @rule(lie=LIES)
    def lie(self, lie: dict[str, Any]) -> None:
        """StackOne says what is not so, until it says something else."""
        self.was_lied_to = True
        self.run(self.world.switch("POST", "/lies", lie))

    @rule(account_id=accounts, times=st.integers(1, 2))
    def deny(self, account_id: str, times: int) -> None:
        """StackOne says of one account, in its own shape, that there is none."""
        self.was_lied_to = True
        self.denied.add(account_id)
        body = {"method": "GET", "path": f"/accounts/{account_id}", "times": times, "status": 404}
        self.run(self.world.switch("POST", "/faults", body))

    @rule(account_id=accounts)
    def move_while_a_disconnect_is_tried_again(self, account_id: str) -> None:
        """The first DELETE fails, the account becomes another owner's, and the DELETE is tried again."""
        self.break_stackone({"status": 500}, 1, "DELETE")
        self.disconnect("whose the store says it is", account_id, aside=False)
        self.move(account_id)
        mover = self.world.project.accounts.find(account_id)
        self.run(self._tolerated(self.stage.refresh()))
        if mover is not None:
            assert self._exists(account_id), "somebody deleted another owner's account"

    @rule(where=st.sampled_from(["before", "after"]))
    def hold_next_call(self, where: str) -> None:
        """The next call is held up on its way there, or on its way back."""
        self.stage.gate.hold = where

    @rule()
    def release_calls(self) -> None:
        """What was held up goes on."""
        self.stage.gate.release()
        self.run(_breathe())

    @rule(hours=st.sampled_from([-48, -1, 0, 1, 48]))
    def jump(self, hours: int) -> None:
        """The clock of one replica is set."""
        self.stage.clock.offset = timedelta(hours=hours)

    @rule()
    def crash(self) -> None:
        """A replica ends in the middle of whatever it does."""
        self.run(self.stage.crash())

    # What must hold

    @invariant()
    def nobody_sees_anothers_account(self) -> None:
        """Each caller sees own accounts only, at every step."""
        for user, (owner_id, _name) in OWNERS.items():
            answer = self.run(self.stage.ask("GET", "/v1/linked-accounts", user))
            assert answer.status_code == 200, answer.text
            for account in answer.json()["data"]:
                assert account["owner_id"] == owner_id
                assert account["account_id"] in self.owned[owner_id]

    def teardown(self) -> None:
        """Once the trouble is over, refresh makes the store equal; after lost events or lies of StackOne, one sweep."""
        self.run(self._converge())

    async def _converge(self) -> None:
        stage = self.stage
        await stage.calm()
        states = {delivery.state for delivery in self.world.project.webhooks.log.after(0, 10_000)}
        were_lost = states & {"dropped", "failed"}
        await stage.drain()
        if not were_lost and not self.was_lied_to:
            assert await stage.stored() == stage.upstream(), "refresh alone must do when every event arrived"
        swept = await stage.sweep()
        if swept is not None and swept.state is SweepState.STOPPED:
            # It was one that a crash had interrupted in a listing with a hole.
            swept = await stage.sweep()
        assert swept is not None
        assert swept.state is SweepState.DONE
        await stage.drain()
        assert await stage.stored() == stage.upstream()


async def _breathe() -> None:
    """Give everything that runs beside a moment."""
    await asyncio.sleep(0.01)
