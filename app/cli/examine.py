"""What doctor looks at. Each examination says how something stands and, where that is not well, how to fix it."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import sqlalchemy as sa

from app.connect_sessions.mint import UNECHOED
from app.db.counters import counter_values
from app.db.failures import DatabaseUnavailable
from app.db.schema_version import expected_revision, known_revisions, stored_schema
from app.db.standing import look
from app.errors import AppError, Unavailable
from app.identity.service_keys.expiry import EndingKey, ending_keys
from app.linked_accounts.apply import REMOVALS_PAUSED, removals_paused
from app.linked_accounts.store import count_unowned
from app.policy.rules import unknown_names
from app.push import outbox
from app.push.deliver import send_test
from app.push.sender import NotDelivered, Sender
from app.runtime import Runtime
from app.stackone.models import AccountGone
from app.stackone.refusals import Refused
from app.stackone.webhook import SIGNATURE_HEADER
from app.sync import runs
from app.sync.suspects import last_hint_at, oldest_due_at
from app.sync.tables import SweepState

_PATIENCE_SECONDS = 10.0
_MOST_SKEW = timedelta(seconds=5)
_MOST_DUE_AGE = timedelta(minutes=10)


class State(Enum):
    """How something stands."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """What one examination found."""

    subject: str
    state: State
    detail: str
    remedy: str | None = None


async def examine(runtime: Runtime, webhook_url: str) -> AsyncIterator[Finding]:
    """Look at everything the broker needs, one thing after the other."""
    try:
        async for finding in _database(runtime):
            yield finding
    except DatabaseUnavailable as error:
        yield Finding("database", State.BROKEN, error.failure.detail, error.failure.remedy)
    async for finding in _stackone(runtime):
        yield finding
    yield await _webhook(runtime, webhook_url)
    async for finding in _issuers(runtime):
        yield finding
    for destination in runtime.settings.push.destinations:
        yield await _push(runtime, destination.name)


async def _database(runtime: Runtime) -> AsyncIterator[Finding]:
    standing = await look(runtime.database, within=_PATIENCE_SECONDS)
    if standing.failure is not None:
        raise DatabaseUnavailable(standing.failure)
    async with runtime.database.reading() as connection:
        schema = await connection.run_sync(stored_schema)
        now = datetime.now(UTC)
        theirs = await connection.scalar(sa.select(sa.func.current_timestamp()))
    yield Finding("database", State.OK, f"reached ({runtime.database.dialect})")
    fit = schema.fit(known_revisions())
    if not fit.serves:
        detail = f"is at {schema.revision or 'nothing'}, this version needs {expected_revision()}"
        yield Finding("schema", State.BROKEN, detail, fit.value)
        return
    yield Finding("schema", State.OK, f"is at {schema.revision}")
    if isinstance(theirs, datetime):
        yield _skew("database clock", theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC), now)
    async with runtime.database.reading() as connection:
        last_event, oldest_due = await last_hint_at(connection), await oldest_due_at(connection)
        sweeps = await runs.past(connection)
        backlogs = await outbox.backlogs(connection)
        are_paused = await removals_paused(connection, runtime.settings.sync, now)
        unowned = await count_unowned(connection)
        unechoed = await counter_values(connection, UNECHOED)
        ending = await ending_keys(connection, now)
    if are_paused:
        yield Finding("removals", State.BROKEN, "paused: unusually many accounts are missing", REMOVALS_PAUSED)
    if unowned:
        remedy = "correct origin_owner_id at StackOne: it is no text that a verified token could name"
        yield Finding("owner ids", State.WARNING, f"{unowned} accounts are shown to nobody", remedy)
    for finding in (*_unechoed(unechoed, now), *(_ending(key, now) for key in ending)):
        yield finding
    yield _last_event(last_event, now)
    yield _due(oldest_due, now)
    yield _sweeps(runtime, sweeps.last, now)
    if sweeps.last is not None:
        yield _drift(sweeps.last, is_first_fill=sweeps.is_first_fill)
    for backlog in backlogs:
        if backlog.dead:
            remedy = f"fix the destination, then run: broker push replay {backlog.destination}"
            yield Finding(f"push {backlog.destination}", State.WARNING, f"{backlog.dead} dead deliveries", remedy)


def _ending(key: EndingKey, now: datetime) -> Finding:
    remedy = f"run: broker service-keys rotate {key.key_id}; or its service stops then"
    return Finding(f"service key {key.name}", State.WARNING, f"ends in {(key.expires_at - now).days} days", remedy)


def _unechoed(unechoed: Mapping[str, int], now: datetime) -> Iterator[Finding]:
    for name, hour in sorted(unechoed.items()):
        age = _age(datetime.fromtimestamp(hour * 3600, UTC), now)
        detail = f"a mint's answer did not say {name.removeprefix(UNECHOED)} (last {age} ago)"
        remedy = "what a session was opened with cannot be compared there; ask StackOne whether its answer has changed"
        yield Finding("mint", State.WARNING, detail, remedy)


def _skew(subject: str, theirs: datetime, ours: datetime) -> Finding:
    skew = abs(theirs - ours)
    if skew > _MOST_SKEW:
        return Finding(
            subject,
            State.WARNING,
            f"{skew.total_seconds():.0f} s apart from this machine's",
            "run NTP on both machines",
        )
    return Finding(subject, State.OK, "agrees with this machine's")


def _last_event(at: datetime | None, now: datetime) -> Finding:
    if at is None:
        remedy = "at StackOne, tick the account events on the webhook (not on a profile) and check its URL"
        return Finding("last event", State.WARNING, "none was ever received", remedy)
    return Finding("last event", State.OK, f"{_age(at, now)} ago")


def _due(at: datetime | None, now: datetime) -> Finding:
    if at is not None and now - at > _MOST_DUE_AGE:
        remedy = (
            "check that a `broker serve` with BROKER_SYNC__ENABLED is running, and look into its log for"
            " account_refresh_failed"
        )
        return Finding("due accounts", State.WARNING, f"one has been waiting for {_age(at, now)}", remedy)
    return Finding("due accounts", State.OK, "none has been waiting long")


def _sweeps(runtime: Runtime, last: runs.Sweep | None, now: datetime) -> Finding:
    interval = runtime.settings.sync.sweep_interval_seconds
    if last is None or last.finished_at is None:
        return Finding("last sweep", State.WARNING, "there was none yet", "run: broker sync")
    detail = f"{last.state.value}, {_age(last.finished_at, now)} ago"
    if last.state is not SweepState.DONE:
        return Finding("last sweep", State.BROKEN, detail, last.reason or "run: broker sync")
    if interval and now - last.finished_at > timedelta(seconds=2 * interval):
        return Finding(
            "last sweep", State.WARNING, detail, "check that a `broker serve` is running; or run: broker sync"
        )
    return Finding("last sweep", State.OK, detail)


def _drift(last: runs.Sweep, *, is_first_fill: bool) -> Finding:
    if is_first_fill:
        detail = f"the first sweep filled the store: {last.added} accounts"
        return Finding("drift", State.OK, detail)
    detail = f"the last sweep corrected {last.drift} accounts: +{last.added} ~{last.changed} -{last.removed}"
    if last.drift:
        remedy = (
            "events get lost: check at StackOne that the webhook is on, has every account event, and is answered"
            " with 200"
        )
        return Finding("drift", State.WARNING, detail, remedy)
    return Finding("drift", State.OK, detail)


async def _stackone(runtime: Runtime) -> AsyncIterator[Finding]:
    try:
        await runtime.stackone.list_page(page=1, page_size=1)
    except Unavailable as error:
        remedy = "check BROKER_STACKONE__BASE_URL, the network, and StackOne's status page"
        yield Finding("StackOne", State.BROKEN, error.detail or error.title, remedy)
        return
    except AppError as error:
        remedy = "check BROKER_STACKONE__API_KEY: it needs Platform API, read and write"
        yield Finding("StackOne key", State.BROKEN, error.detail or error.title, remedy)
        return
    yield Finding("StackOne key", State.OK, "valid; may read accounts")
    async for finding in _catalogue(runtime):
        yield finding
    skew = runtime.stackone.clock_skew
    if skew is not None:
        now = datetime.now(UTC)
        yield _skew("StackOne's clock", now + skew, now)
    try:
        await runtime.stackone.reserve()
        # No account has such an id. A key without the scope is refused before that matters.
        await runtime.stackone.delete_account(f"doctor{secrets.token_hex(16)}")
    except AccountGone:
        yield Finding("StackOne scope", State.OK, "may write")
    except Unavailable:
        yield Finding("StackOne scope", State.WARNING, "not known: StackOne does not answer", "run this again")
    except AppError as error:
        if not isinstance(error, Refused) or error.upstream_status not in {401, 403}:
            remedy = "see what stands in front of StackOne, and BROKER_STACKONE__BASE_URL"
            yield Finding("StackOne scope", State.WARNING, f"not known: {error.detail or error.title}", remedy)
            return
        remedy = "give the key Platform API write: minting and disconnecting need it"
        yield Finding("StackOne scope", State.BROKEN, "the key may not write", remedy)


async def _catalogue(runtime: Runtime) -> AsyncIterator[Finding]:
    """Compare the policy file with what the project offers."""
    try:
        configs = await runtime.auth_configs.get()
    except AppError as error:
        remedy = "run this again; the key needs Platform API read"
        yield Finding("auth configs", State.WARNING, f"cannot be read: {error.detail or error.title}", remedy)
        return
    enabled = [config for config in configs if config.enabled]
    providers = {config.provider for config in enabled}
    yield Finding("auth configs", State.OK, f"{len(providers)} providers are enabled")
    for rule, what, name in unknown_names(runtime.policy, providers, {config.id for config in enabled}):
        place = f" (line {rule.line})" if rule.line is not None else ""
        detail = f'rule "{rule.name}"{place} names the {what} "{name}", which the project has not, or not enabled'
        yield Finding("policy", State.WARNING, detail, "correct the name in the policy file, or enable it at StackOne")


async def _webhook(runtime: Runtime, url: str) -> Finding:
    """Send a signed event that changes nothing to the broker's own webhook."""
    body = json.dumps({"event": "doctor.ping", "sent_at": datetime.now(UTC).isoformat()}).encode()
    secret = runtime.settings.stackone.webhook_secrets[0].get_secret_value().encode()
    digest = hmac.new(secret, body, hashlib.sha256).digest()
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    sender = Sender(timeout_seconds=5, allow_private=True, tls=runtime.settings.tls)
    try:
        await sender.post(url, body, {SIGNATURE_HEADER: signature})
    except NotDelivered as error:
        remedy = "start `broker serve` with the same BROKER_STACKONE__WEBHOOK_SECRETS, or give --webhook-url"
        return Finding("webhook", State.BROKEN, f"a signed event to {url} failed: {error.failure}", remedy)
    finally:
        await sender.close()
    return Finding("webhook", State.OK, "a signed event arrived and was accepted")


async def _push(runtime: Runtime, name: str) -> Finding:
    """Send a destination of the push a test message."""
    failure = await send_test(runtime, name)
    if failure is None:
        return Finding(f"push to {name}", State.OK, "a signed test message arrived and was accepted")
    remedy = f"see what its service says of messages of the type `test`; then run: broker push test {name}"
    return Finding(f"push to {name}", State.BROKEN, f"a signed test message failed: {failure}", remedy)


async def _issuers(runtime: Runtime) -> AsyncIterator[Finding]:
    await runtime.authenticator.warm()
    for issuer in runtime.authenticator.issuers_status():
        if issuer.has_keys:
            left_out = f"; left out: {'; '.join(issuer.left_out)}" if issuer.left_out else ""
            yield Finding(f"issuer {issuer.issuer}", State.OK, f"its keys are known{left_out}")
        else:
            remedy = "check the issuer's URL or jwks_uri in BROKER_IDENTITY__ISSUERS, and that it can be reached"
            detail = f"its keys are unreachable: {issuer.problem}"
            yield Finding(f"issuer {issuer.issuer}", State.BROKEN, detail, remedy)


def _age(at: datetime, now: datetime) -> str:
    seconds = int((now - at).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
