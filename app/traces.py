"""Traces, by OpenTelemetry: the one module that knows it, and nothing where it is off.

A span says which route, which operation and how it ended. It holds no id of a person, an account or an owner, no path,
no query and no text that somebody else wrote: every attribute is put in by name, and each by us. Of a caller's context
only `traceparent` counts: `tracestate` and baggage carry what others like, and would leave the house again with a call.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan

Value = str | int | bool


class Kind(Enum):
    """Which side of a call it is."""

    INTERNAL = auto()
    SERVER = auto()
    CLIENT = auto()
    PRODUCER = auto()


_NO_HEADERS: Final[Mapping[str, str]] = {}


class Span:
    """What is being done; this one is kept by nobody."""

    def note(self, name: str, value: Value) -> None:
        """Say something about it."""

    def rename(self, name: str) -> None:
        """Call it by what is known now."""

    def failed(self, kind: str) -> None:
        """Say that it did not work, and of which kind the error is."""

    def end(self) -> None:
        """End it; only what `begin` has begun."""


_SPAN: Final = Span()
_NOTHING: Final = nullcontext(_SPAN)


class Traces:
    """Traces that are off."""

    is_on = False

    def span(self, name: str, kind: Kind = Kind.INTERNAL, **attributes: Value) -> AbstractContextManager[Span]:
        """Record what happens in a block, as part of what is recorded around it."""
        del name, kind, attributes
        return _NOTHING

    def served(self, name: str, traceparent: str | None, **attributes: Value) -> AbstractContextManager[Span]:
        """Record a request of a caller, who may be recording it too."""
        del name, traceparent, attributes
        return _NOTHING

    def begin(self, name: str, **attributes: Value) -> Span | None:
        """Begin to record a part of what is recorded around it; None where nothing is."""
        del name, attributes
        return None

    def headers(self) -> Mapping[str, str]:
        """Return what tells another system of which trace a call is part."""
        return _NO_HEADERS

    def trace_id(self) -> str | None:
        """Return the id of the trace that is recorded now, for log lines."""
        return None

    def close(self) -> None:
        """Send what has not been sent."""


OFF: Final = Traces()


class _Recorded(Span):
    def __init__(self, span: "OtelSpan") -> None:
        self._span = span

    def note(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, kind: str) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415

        self._span.set_attribute("error.type", kind)
        # Without a description: that of an exception may quote anything.
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()


class Recording(Traces):
    """Traces that are sent to a collector."""

    is_on = True

    def __init__(self, provider: "TracerProvider", version: str, *, patience: float) -> None:
        """Own the provider from now on; its end is waited for `patience` seconds."""
        from opentelemetry import trace  # noqa: PLC0415  an extra, and slow to import
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider = provider
        self._patience = patience
        self._trace = trace
        self._tracer = provider.get_tracer("connect-broker", version)
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = {kind: trace.SpanKind[kind.name] for kind in Kind}

    def span(self, name: str, kind: Kind = Kind.INTERNAL, **attributes: Value) -> AbstractContextManager[Span]:
        """Record what happens in a block."""
        return self._recorded(name, kind, None, attributes)

    def served(self, name: str, traceparent: str | None, **attributes: Value) -> AbstractContextManager[Span]:
        """Record a request; a `traceparent` that is not well-formed counts as none."""
        from opentelemetry.context import Context  # noqa: PLC0415

        carried = {} if traceparent is None else {"traceparent": traceparent}
        return self._recorded(name, Kind.SERVER, self._propagator.extract(carried, Context()), attributes)

    def begin(self, name: str, **attributes: Value) -> Span | None:
        """Begin a part of what is recorded, for who cannot use a block."""
        if not self._trace.get_current_span().is_recording():
            return None
        return _Recorded(self._tracer.start_span(name, kind=self._kinds[Kind.CLIENT], attributes=_spelled(attributes)))

    def headers(self) -> Mapping[str, str]:
        """Return `traceparent` (W3C Trace Context)."""
        now = self._trace.get_current_span().get_span_context()
        if not now.is_valid:
            return _NO_HEADERS
        return {"traceparent": f"00-{now.trace_id:032x}-{now.span_id:016x}-{now.trace_flags:02x}"}

    def trace_id(self) -> str | None:
        """Return the id of the trace that is recorded now."""
        now = self._trace.get_current_span().get_span_context()
        return f"{now.trace_id:032x}" if now.is_valid else None

    def close(self) -> None:
        """Send what has not been sent, within the time that one sending may take, and stop."""
        # It would go on for half a minute where the collector hangs.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(self._patience)

    @contextmanager
    def _recorded(
        self, name: str, kind: Kind, context: "Context | None", attributes: Mapping[str, Value]
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=self._kinds[kind],
            attributes=_spelled(attributes),
            # Texts of exceptions quote what was sent.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            recorded = _Recorded(span)
            try:
                yield recorded
            except BaseException as error:
                recorded.failed(type(error).__name__)
                raise


def _spelled(attributes: Mapping[str, Value]) -> dict[str, Value]:
    """Spell names as OpenTelemetry does, with dots: Python's keywords cannot have them."""
    return {name.replace("__", "."): value for name, value in attributes.items()}


def open_traces(
    *,
    endpoint: str,
    headers: Mapping[str, str],
    sample_ratio: float,
    service_name: str,
    version: str,
    timeout_seconds: float,
    ca_file: str | None,
) -> Traces:
    """Begin to record; spans are sent in batches, by a thread of its own."""
    import requests  # noqa: PLC0415  the exporter's carrier
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    session = requests.Session()
    session.trust_env = False
    share = TraceIdRatioBased(sample_ratio)
    provider = TracerProvider(
        # A caller decides that its request is not recorded, never that it is: strangers could have us record all.
        sampler=ParentBased(share, remote_parent_sampled=share),
        resource=Resource.create({"service.name": service_name, "service.version": version}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(
        endpoint=endpoint,
        headers=dict(headers),
        timeout=timeout_seconds,
        certificate_file=ca_file,
        session=session,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Recording(provider, version, patience=timeout_seconds)
