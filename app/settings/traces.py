"""Where traces go."""

import importlib.util
from collections.abc import Iterator

from pydantic import Field, SecretStr

from app.settings.section import Environment, Section, url_mistake

_PARTS = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


class TracesSettings(Section):
    """Traces by OpenTelemetry, sent to a collector with OTLP over HTTP; off without an endpoint."""

    endpoint: str | None = Field(
        examples=["https://collector.example.com:4318/v1/traces"],
        default=None,
        max_length=2000,
        description="Whole URL that takes traces, such as https://collector.example:4318/v1/traces; null: no traces.",
    )
    headers: dict[str, SecretStr] = Field(
        examples=[{"x-api-key": "of-the-collector"}],
        default={},
        max_length=20,
        description="Headers that the collector asks for, as a JSON object.",
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Share of traces that are recorded; callers cannot raise it."
    )
    service_name: str = Field(
        default="connect-broker", min_length=1, max_length=100, description="What traces call this service."
    )
    timeout_seconds: float = Field(default=5, gt=0, le=60, description="Longest wait for the collector.")

    def unsafe(self, environment: Environment) -> Iterator[tuple[str, str]]:
        """Production sends traces over https, or to this machine."""
        if self.endpoint is None:
            return
        # A collector beside the broker is usual: what goes to loopback leaves nothing to listen to.
        beside = self.endpoint.startswith("http://") and url_mistake(self.endpoint, Environment.DEVELOPMENT) is None
        if not beside and (reason := url_mistake(self.endpoint, environment)):
            yield "ENDPOINT", reason
        if not is_installed():
            yield "ENDPOINT", "traces need OpenTelemetry: install connect-broker[otel]"


def is_installed() -> bool:
    """Tell whether the extra is there."""
    try:
        return all(importlib.util.find_spec(name) for name in _PARTS)
    except ModuleNotFoundError:
        # What a part is a part of is missing too.
        return False
