"""How HTTP leaves the broker: whom it trusts, and through which proxy."""

import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx2

from app.settings import TlsSettings
from app.settings.reach import Places
from app.traces import Kind, Traces


def open_transport(tls: TlsSettings, *, max_connections: int, max_kept: int | None = None) -> httpx2.AsyncBaseTransport:
    """Make the transport of one HTTP client, which closes it. Of its connections `max_kept` stay open when idle."""
    limits = httpx2.Limits(
        max_connections=max_connections,
        max_keepalive_connections=max_connections if max_kept is None else max_kept,
    )
    direct = httpx2.AsyncHTTPTransport(verify=trusted(tls), limits=limits, trust_env=False)
    return around_proxy(direct, tls, limits)


def around_proxy(
    direct: httpx2.AsyncBaseTransport, tls: TlsSettings, limits: httpx2.Limits
) -> httpx2.AsyncBaseTransport:
    """Leave to `direct` what is reached without the proxy, if there is one; the rest goes through that."""
    if tls.proxy is None:
        return direct
    context = trusted(tls)
    url = tls.proxy.get_secret_value()
    proxy = httpx2.Proxy(url, ssl_context=context if url.lower().startswith("https") else None)
    proxied = httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False, proxy=proxy)
    return _Routed(direct, proxied, tls.around_proxy)


def trusted(tls: TlsSettings) -> ssl.SSLContext:
    """Return whom clients trust."""
    return _context(tls.ca_file)


@cache
def _context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the authorities of a file, else those of SSL_CERT_FILE, else the system's. Reading them is slow."""
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    return httpx2.create_ssl_context(trust_env=True)


def traced(
    carrier: httpx2.AsyncBaseTransport, traces: Traces, name_of: Callable[[httpx2.Request], str]
) -> httpx2.AsyncBaseTransport:
    """Record what `carrier` carries, and tell who is called of which trace it is part: `carrier` itself where off."""
    return _Traced(carrier, traces, name_of) if traces.is_on else carrier


class _Traced(httpx2.AsyncBaseTransport):
    """A transport whose requests are recorded, up to the head of the answer."""

    def __init__(
        self, carrier: httpx2.AsyncBaseTransport, traces: Traces, name_of: Callable[[httpx2.Request], str]
    ) -> None:
        self._carrier = carrier
        self._traces = traces
        self._name_of = name_of

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        about = {"http__request__method": request.method, "server__address": request.url.host}
        with self._traces.span(self._name_of(request), Kind.CLIENT, **about) as span:
            request.headers.update(self._traces.headers())
            response = await self._carrier.handle_async_request(request)
            span.note("http.response.status_code", response.status_code)
            if response.is_error:
                span.failed(str(response.status_code))
            return response

    async def aclose(self) -> None:
        """Close every connection."""
        await self._carrier.aclose()


class _Routed(httpx2.AsyncBaseTransport):
    """Sends requests through the proxy, but for hosts and addresses that are reached directly."""

    def __init__(
        self, direct: httpx2.AsyncBaseTransport, proxied: httpx2.AsyncBaseTransport, around_proxy: Places
    ) -> None:
        self._direct = direct
        self._proxied = proxied
        self._around_proxy = around_proxy

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        # Push connects to an address that it has resolved itself; the name is beside it.
        name = request.extensions.get("sni_hostname") or request.url.host
        is_direct = self._around_proxy.hold(name, request.url.host)
        return await (self._direct if is_direct else self._proxied).handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._direct.aclose()
        await self._proxied.aclose()
