"""The Prometheus series of the broker; label names and values live here, so that none can be an id or a secret."""

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
            "Who is being refused, by channel: a rise is an attack or a broken deployment.",
            ("channel",),
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
            "How re-reading due accounts goes: applied, unchanged, gone, failed.",
            ("outcome",),
            registry=self.registry,
        )
        self.due = Gauge(
            "broker_accounts_due",
            "Accounts waiting to be read again: a growing number is a stuck loop.",
            registry=self.registry,
        )
        self.sessions = Counter(
            "broker_connect_sessions_total",
            "Sessions opened, by channel and mode.",
            ("channel", "mode"),
            registry=self.registry,
        )
        self.policy_refusals = Counter(
            "broker_policy_refusals_total",
            "Wishes that policy refused, by the rule that did; no rule means that none matched.",
            ("rule",),
            registry=self.registry,
        )
        self.limit_refusals = Counter(
            "broker_limit_refusals_total",
            "Requests over a limit, by limit: somebody is in a hurry, or a limit is too narrow.",
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
            "Calls to StackOne put off because the budget was spent, by use.",
            ("use",),
            registry=self.registry,
        )
        self.owner_changes = Counter(
            "broker_account_owner_changes_total",
            "Accounts that StackOne moved to another owner: never expected, always worth a look.",
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
            "What the last sweep had to put right: sweeps that find nothing prove that the rest works.",
            ("kind",),
            registry=self.registry,
        )
        self.last_sweep = Gauge(
            "broker_last_sweep_timestamp_seconds",
            "When a sweep last came to its end in this process.",
            registry=self.registry,
        )
        self.pushes = Counter(
            "broker_push_deliveries_total",
            "How signed webhooks to your services go, by configured destination: taken, failed, dead.",
            ("destination", "outcome"),
            registry=self.registry,
        )
        self.loop_failures = Counter(
            "broker_background_failures_total",
            "Unexpected errors in background loops, which then go on.",
            ("loop",),
            registry=self.registry,
        )
