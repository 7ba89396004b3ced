"""The Prometheus series of the broker. No label is an id or a secret."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass
class Metrics:
    """One registry per Runtime, so that tests and several apps in one process do not share series."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        """Register every series; each help text says which question it answers."""
        self.requests = Histogram(
            "broker_http_request_duration_seconds",
            "How fast and how well each route answers (route is the template, never the path).",
            ("method", "route", "status"),
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.authentication = Counter(
            "broker_authentication_failures_total",
            "Refused credentials, by channel (browser, service): a rise is an attack or a broken deployment.",
            ("channel",),
            registry=self.registry,
        )
        self.database_failures = Counter(
            "broker_database_failures_total",
            "Why the database did not do what it was asked, by cause: credentials, read_only, disk_full, ...",
            ("cause",),
            registry=self.registry,
        )
        self.upstream = Histogram(
            "broker_stackone_request_duration_seconds",
            "How fast and how well StackOne answers, by operation and outcome.",
            ("operation", "outcome"),
            buckets=_LATENCY_BUCKETS,
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
        self.refreshes = Counter(
            "broker_account_refreshes_total",
            "How refreshes of due accounts end: applied, unchanged, gone, failed.",
            ("outcome",),
            registry=self.registry,
        )
        self.due = Gauge(
            "broker_accounts_due",
            "Accounts waiting for a refresh: where it keeps growing, the refresh job is stuck or StackOne is away.",
            registry=self.registry,
        )
        self.sessions = Counter(
            "broker_connect_sessions_total",
            "Connect sessions minted, by channel (browser, service, auth link) and mode (create, edit).",
            ("channel", "mode"),
            registry=self.registry,
        )
        self.policy_refusals = Counter(
            "broker_policy_refusals_total",
            "Requests that policy refused, by rule; an empty rule means that none matched.",
            ("rule",),
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
        self.budget_refusals = Counter(
            "broker_stackone_budget_refusals_total",
            "Calls to StackOne not made because the budget was spent, by the priority of the call.",
            ("priority",),
            registry=self.registry,
        )
        self.upstream_unavailable = Counter(
            "broker_stackone_unavailable_total",
            "Calls to StackOne given up, by cause.",
            ("cause",),
            registry=self.registry,
        )
        self.breaker_changes = Counter(
            "broker_stackone_breaker_changes_total",
            "How often the circuit breaker opened, tried again and closed.",
            ("state",),
            registry=self.registry,
        )
        self.mint_echoes_missing = Counter(
            "broker_stackone_mint_echoes_missing_total",
            "Connect sessions in whose answer StackOne did not repeat a field that was sent, by field.",
            ("field",),
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
        self.unowned = Gauge(
            "broker_accounts_unowned",
            "Accounts whose owner id at StackOne no verified caller can have: shown to nobody; correct them there.",
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
            "What the last sweep had to correct, by kind: 0 shows that webhooks and refreshes work.",
            ("kind",),
            registry=self.registry,
        )
        self.last_sweep = Gauge(
            "broker_last_sweep_timestamp_seconds",
            "When a sweep last finished in this process.",
            registry=self.registry,
        )
        self.pushes = Counter(
            "broker_push_deliveries_total",
            "How signed webhooks to your services go, by destination and outcome: delivered, failed, dead.",
            ("destination", "outcome"),
            registry=self.registry,
        )
        self.loop_failures = Counter(
            "broker_background_failures_total",
            "Unexpected errors in background jobs; the job goes on.",
            ("loop",),
            registry=self.registry,
        )
