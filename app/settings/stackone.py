"""StackOne, sessions, and how the store is kept equal to StackOne."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, SecretStr

from app.settings.section import Environment, Section, UrlText, secret_mistake, url_mistake

# StackOne's keys name their region ("v1.eu1.<opaque>"); a development broker must never hold one.
_REAL_KEY = re.compile(r"^v\d+\.[a-z]{2}\d*\.")
# It is sent as the user name of Basic authentication, which ends at a colon.
_USABLE_KEY = re.compile(r"[!-9;-~]+")


class StackOneSettings(Section):
    """How StackOne is reached."""

    api_key: SecretStr = Field(
        examples=["v1.eu1.0123456789abcdef"],
        description="StackOne API key with Platform API read and write, and nothing else.",
    )
    base_url: UrlText = Field(default="https://api.stackone.com", description="StackOne's API.")
    accounts_path: Literal["/accounts", "/v2/accounts"] = Field(
        default="/accounts",
        description="Experimental: where accounts are read. StackOne documents deleting under /accounts only.",
    )
    webhook_secrets: tuple[SecretStr, ...] = Field(
        examples=[["the-newer-signing-secret", "the-older-signing-secret"]],
        min_length=1,
        max_length=8,
        description="Signing secrets of the webhook; several while one is being rotated.",
    )
    project_id: str | None = Field(
        examples=["acme-production-48213"],
        default=None,
        max_length=255,
        description="The only project whose events, accounts and sessions are accepted; null accepts every project.",
    )
    timeout_seconds: float = Field(default=10, gt=0, le=60, description="Deadline of one call, connection included.")
    total_timeout_seconds: float = Field(default=20, gt=0, le=120, description="Deadline of a call with its retries.")
    max_attempts: int = Field(default=3, ge=1, le=6, description="Tries of one call that may be repeated.")
    max_connections: int = Field(
        default=1000,
        ge=1,
        le=1000,
        description="Connections to StackOne at once. They are opened as they are needed; once all are in use, owners"
        " take turns.",
    )
    max_answer_bytes: int = Field(
        default=8 * 1024 * 1024, ge=64 * 1024, description="Largest answer that is read; a listing page must fit."
    )
    requests_per_minute: int = Field(
        default=900,
        ge=10,
        le=100_000,
        description="Calls to StackOne of all priorities together; StackOne's own limit is 1000.",
    )
    breaker_failures: int = Field(
        default=5, ge=1, le=1000, description="Failures in a row that open the circuit breaker."
    )
    breaker_seconds: float = Field(
        default=10, gt=0, le=600, description="How long an open circuit breaker refuses calls."
    )

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Keys are long, real in production, never real in development; connections are encrypted."""
        if reason := url_mistake(self.base_url, environment, may_have_query=False):
            yield "BASE_URL", reason
        if reason := secret_mistake(self.api_key, environment):
            yield "API_KEY", reason
        elif not _USABLE_KEY.fullmatch(self.api_key.get_secret_value()):
            yield (
                "API_KEY",
                "is no key: write it alone, without Bearer or Basic before it and without what is not ASCII",
            )
        if environment is Environment.DEVELOPMENT and _REAL_KEY.match(self.api_key.get_secret_value()):
            yield "API_KEY", "looks like a real StackOne key; development refuses those"
        for secret in self.webhook_secrets:
            if reason := secret_mistake(secret, environment):
                yield "WEBHOOK_SECRETS", f"an entry {reason}"


class SessionSettings(Section):
    """Connect sessions: how long they live and how many may be open."""

    expires_in_seconds: int = Field(default=1800, ge=60, le=86_400, description="Life of a browser's session token.")
    auth_link_expires_in_seconds: int = Field(
        default=432_000, ge=60, le=2_592_000, description="Life of an auth link where the request names none."
    )
    retention_days: int = Field(default=90, ge=1, le=3650, description="How long ended sessions stay in the ledger.")


class SyncSettings(Section):
    """How the store is kept equal to StackOne."""

    enabled: bool = Field(default=True, description="Run the background loops in this process.")
    poll_seconds: float = Field(
        default=1,
        gt=0,
        le=60,
        description="How often due accounts are looked for; up to 5 times as rarely where none are.",
    )
    batch: int = Field(default=20, ge=1, le=500, description="Accounts claimed at once.")
    concurrency: int = Field(default=5, ge=1, le=50, description="Accounts read at once by one process.")
    claim_seconds: float = Field(
        default=60, ge=5, le=600, description="How long a claim holds before another may take the account."
    )
    backoff_seconds: float = Field(default=2, gt=0, le=60, description="First wait after a failed read; doubles.")
    max_backoff_seconds: float = Field(default=900, ge=1, le=86_400, description="Longest wait between failed reads.")
    change_retention_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="How long changes stay in the feed; 0 keeps them. A reader that is further behind gets 410.",
    )
    hint_retention_days: int = Field(
        default=30, ge=1, le=3650, description="How long received events are kept; changes are kept for good."
    )
    sweep_interval_seconds: float = Field(
        default=3600, ge=0, le=604_800, description="Time between sweeps; 0 turns the timer off."
    )
    deletion_confirm_seconds: float = Field(
        default=60,
        gt=0,
        le=86_400,
        description="After StackOne's first 'no such account', when a second one removes it if nothing else says so.",
    )
    sweep_removal_floor: int = Field(
        default=5,
        ge=0,
        le=10_000,
        description="So many missing accounts never trigger the removal limit, whatever their share.",
    )
    sweep_page_size: int = Field(default=100, ge=1, le=500, description="Accounts asked for in one listing page.")
    sweep_max_removal_percent: float = Field(
        default=10,
        ge=0,
        le=100,
        description="Share of known accounts a sweep may remove before its removal limit stops it.",
    )
