"""The Prometheus series of the broker. No label is an id or a secret.

What is a state now is asked for when Prometheus comes (`set_function`), so that an age goes on growing where nobody
looks any more. What the database knows is read by a job (`app/gauges.py`), and the same on every replica: panels and
alerts take the maximum.
"""

import platform
import time
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    values,
)

import app as package

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_RECOVERY_BUCKETS = (_MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 30 * _DAY)

# A series more for each counter and histogram, which no panel or alert here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
# One process: a platform that sets PROMETHEUS_MULTIPROC_DIR for all its programs would have series kept in files there.
values.ValueClass = values.MutexValue


def show_age(gauge: Gauge, began_at: datetime | None) -> None:
    """Have a gauge show how long ago something began, 0 where there is nothing."""
    if began_at is None:
        gauge.set_function(lambda: 0.0)
    else:
        gauge.set_function(lambda: max(time.time() - began_at.timestamp(), 0.0))


@dataclass
class Metrics:
    """One registry per Runtime, so that tests and several apps in one process do not share series."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        """Register every series; each help text says which question it answers."""
        self._of_process()
        self._of_requests()
        self._of_database()
        self._of_stackone()
        self._of_accounts()
        self._of_push()

    def _of_process(self) -> None:
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Gauge(
            "broker_build_info",
            "Which version runs where; always 1.",
            ("version", "python"),
            registry=self.registry,
        )
        build.labels(package.__version__, platform.python_version()).set(1)
        self.loop_lag = Histogram(
            "broker_event_loop_lag_seconds",
            "How late the event loop is: how long a request waits before anything is done for it.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.loop_tasks = Gauge(
            "broker_event_loop_tasks",
            "Tasks on the event loop: some for each request, connection and job; more and more of them is a leak.",
            registry=self.registry,
        )
        self.loop_failures = Counter(
            "broker_background_failures_total",
            "Unexpected errors in background jobs; the job goes on.",
            ("loop",),
            registry=self.registry,
        )
        self.gauges_read = Gauge(
            "broker_gauges_timestamp_seconds",
            "When the gauges that the database knows were last read; an old one: the database is away, or jobs stand.",
            registry=self.registry,
        )

    def _of_requests(self) -> None:
        self.requests = Histogram(
            "broker_http_request_duration_seconds",
            "How fast and how well each route answers (route is the template, never the path).",
            ("method", "route", "status"),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.connections = Gauge(
            "broker_http_connections",
            "Connections of clients that are open now; BROKER_HTTP__MAX_CONNECTIONS is where 503 begins.",
            registry=self.registry,
        )
        self.shed = Counter(
            "broker_http_shed_total",
            "Connections and requests answered 503 because there are too many: more replicas are needed.",
            registry=self.registry,
        )
        self.authentication = Counter(
            "broker_authentication_failures_total",
            "Refused credentials, by channel (browser, service): a rise is an attack or a broken deployment.",
            ("channel",),
            registry=self.registry,
        )
        self.limit_refusals = Counter(
            "broker_limit_refusals_total",
            "Requests over a rate limit, by limit: one caller sends too many, or the limit is too low.",
            ("limit",),
            registry=self.registry,
        )
        self.limits_shared = Gauge(
            "broker_limits_shared",
            "1 while limits are counted in Redis for all replicas, 0 while each process counts for itself.",
            registry=self.registry,
        )
        self.policy_refusals = Counter(
            "broker_policy_refusals_total",
            "Requests that policy refused, by rule; an empty rule means that none matched.",
            ("rule",),
            registry=self.registry,
        )
        self.sessions = Counter(
            "broker_connect_sessions_total",
            "Connect sessions minted, by channel (browser, service, auth link) and mode (create, edit).",
            ("channel", "mode"),
            registry=self.registry,
        )
        self.reminders = Counter(
            "broker_reminders_total", "Reminders that an account is still broken.", registry=self.registry
        )
        self.user_tokens = Counter(
            "broker_user_tokens_total", "User tokens of the broker's own that were made.", registry=self.registry
        )
        self.keys_known = Gauge(
            "broker_issuer_keys_known",
            "1 while tokens of an issuer can be verified, 0 while its keys are not there: its users then get 503.",
            ("issuer",),
            registry=self.registry,
        )
        self.keys_age = Gauge(
            "broker_issuer_keys_age_seconds",
            "How old an issuer's keys are; fetched anew when a token comes after BROKER_IDENTITY__JWKS_FRESH_SECONDS.",
            ("issuer",),
            registry=self.registry,
        )
        self.key_fetches = Counter(
            "broker_issuer_key_fetches_total",
            "How fetching an issuer's keys goes: fetched, failed.",
            ("issuer", "outcome"),
            registry=self.registry,
        )
        self.service_keys = Gauge(
            "broker_service_keys",
            "Service keys that end within 14 days (ending) or ended in the last 14 (ended), and have no successor.",
            ("state",),
            registry=self.registry,
        )
        self.service_key_expiry = Gauge(
            "broker_service_key_expiry_timestamp_seconds",
            "When the first of the service keys that have no successor ends; +Inf where none does.",
            registry=self.registry,
        )

    def _of_database(self) -> None:
        self.database_failures = Counter(
            "broker_database_failures_total",
            "Why the database did not do what it was asked, by cause: credentials, read_only, disk_full, ...",
            ("cause",),
            registry=self.registry,
        )
        self.database_errors = Counter(
            "broker_database_errors_total",
            "Errors of the database by the class of their SQLSTATE (SQLite: its name; none: there was no answer).",
            ("sqlstate_class",),
            registry=self.registry,
        )
        self.pool = Gauge(
            "broker_database_pool_connections",
            "Connections of this process to the database: in_use, idle.",
            ("state",),
            registry=self.registry,
        )
        self.pool_limit = Gauge(
            "broker_database_pool_limit",
            "How many connections to the database this process may have.",
            registry=self.registry,
        )

    def _of_stackone(self) -> None:
        self.upstream = Histogram(
            "broker_stackone_request_duration_seconds",
            "How fast and how well StackOne answers, by operation and outcome.",
            ("operation", "outcome"),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.upstream_unavailable = Counter(
            "broker_stackone_unavailable_total",
            "Calls to StackOne given up, by cause.",
            ("cause",),
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "broker_stackone_breaker_state",
            "1 for the state that the circuit breaker is in: closed, open, half_open.",
            ("state",),
            registry=self.registry,
        )
        self.breaker_changes = Counter(
            "broker_stackone_breaker_changes_total",
            "How often the circuit breaker opened, tried again and closed.",
            ("state",),
            registry=self.registry,
        )
        self.budget_used = Gauge(
            "broker_stackone_budget_used",
            "Calls of this process to StackOne in the last minute.",
            registry=self.registry,
        )
        self.budget_limit = Gauge(
            "broker_stackone_budget_limit",
            "Calls a minute that BROKER_STACKONE__REQUESTS_PER_MINUTE allows.",
            registry=self.registry,
        )
        self.budget_refusals = Counter(
            "broker_stackone_budget_refusals_total",
            "Calls to StackOne not made because the budget was spent, by the priority of the call.",
            ("priority",),
            registry=self.registry,
        )
        self.budget_waiting = Gauge(
            "broker_stackone_budget_waiting",
            "Calls of jobs that wait for room in the budget now: a sweep that stands still waits here.",
            registry=self.registry,
        )
        self.mint_echoes_missing = Counter(
            "broker_stackone_mint_echoes_missing_total",
            "Connect sessions in whose answer StackOne did not repeat a field that was sent, by field.",
            ("field",),
            registry=self.registry,
        )
        self.webhooks = Counter(
            "broker_webhook_deliveries_total",
            "What came in by webhook: accepted, duplicate, ignored, refused.",
            ("outcome",),
            registry=self.registry,
        )
        self.webhook_secret = Counter(
            "broker_webhook_secret_matches_total",
            "Which configured secret (by position) signs deliveries: shows when an old one may be removed.",
            ("position",),
            registry=self.registry,
        )

    def _of_accounts(self) -> None:
        self.due = Gauge(
            "broker_accounts_due",
            "Accounts waiting for a refresh: where it keeps growing, the refresh job is stuck or StackOne is away.",
            registry=self.registry,
        )
        self.due_age = Gauge(
            "broker_accounts_due_age_seconds",
            "How long the account that waits longest for a refresh has been due.",
            registry=self.registry,
        )
        self.refreshes = Counter(
            "broker_account_refreshes_total",
            "How refreshes of due accounts end: applied, unchanged, gone, failed.",
            ("outcome",),
            registry=self.registry,
        )
        self.needing_reauth = Gauge(
            "broker_accounts_needing_reauth",
            "Accounts whose users have to sign in again at the tool.",
            registry=self.registry,
        )
        self.recovery = Histogram(
            "broker_account_recovery_seconds",
            "How long accounts were broken that work again.",
            buckets=_RECOVERY_BUCKETS,
            registry=self.registry,
        )
        self.unowned = Gauge(
            "broker_accounts_unowned",
            "Accounts whose owner id at StackOne no verified caller can have: shown to nobody; correct them there.",
            registry=self.registry,
        )
        self.owner_changes = Counter(
            "broker_account_owner_changes_total",
            "Accounts that StackOne moved to another owner: never expected; look into each.",
            registry=self.registry,
        )
        self.revived = Counter(
            "broker_accounts_revived_total",
            "Accounts that were taken for deleted and that StackOne showed again: look into what it answered before.",
            registry=self.registry,
        )
        self.removals_paused = Counter(
            "broker_account_removals_paused_total",
            "Accounts kept although StackOne says twice that they are gone, since it says so of unusually many.",
            registry=self.registry,
        )
        self.sweeps = Counter(
            "broker_sweeps_total",
            "How sweeps end: done, stopped (by the removal limit, or by a listing without an end) or failed.",
            ("outcome",),
            registry=self.registry,
        )
        self.sweep_drift = Gauge(
            "broker_sweep_drift",
            "What the last sweep had to correct, by kind: 0 shows that events arrive. A first fill corrects nothing.",
            ("kind",),
            registry=self.registry,
        )
        self.last_sweep = Gauge(
            "broker_last_sweep_timestamp_seconds",
            "When a sweep last came to its end, whoever ran it; 0 where none ever did.",
            registry=self.registry,
        )
        self.last_sweep_state = Gauge(
            "broker_last_sweep_state",
            "1 for how the last sweep ended, whoever ran it: done, stopped, failed.",
            ("state",),
            registry=self.registry,
        )
        self.sweep_running = Gauge(
            "broker_sweep_running",
            "1 while a sweep runs, anywhere.",
            registry=self.registry,
        )
        self.sweep_interval = Gauge(
            "broker_sweep_interval_seconds",
            "How often sweeps are to run (BROKER_SYNC__SWEEP_INTERVAL_SECONDS); 0: only when asked for.",
            registry=self.registry,
        )
        self.feed_position = Gauge(
            "broker_feed_position",
            "Position of the newest change in the feed.",
            registry=self.registry,
        )

    def _of_push(self) -> None:
        self.pushes = Counter(
            "broker_push_deliveries_total",
            "How signed webhooks to your services go, by destination and outcome: delivered, failed, dead.",
            ("destination", "outcome"),
            registry=self.registry,
        )
        self.push_pending = Gauge(
            "broker_push_pending",
            "Changes that a destination has still to be told.",
            ("destination",),
            registry=self.registry,
        )
        self.push_dead = Gauge(
            "broker_push_dead",
            "Deliveries to a destination that were given up and wait for `broker push replay`.",
            ("destination",),
            registry=self.registry,
        )
        self.push_age = Gauge(
            "broker_push_age_seconds",
            "How long ago the oldest change happened that a destination has still to be told.",
            ("destination",),
            registry=self.registry,
        )
