"""How HTTP leaves the broker: whom it trusts, and through which proxy."""

import ssl
from functools import cache
from pathlib import Path

import httpx2

from app.settings import TlsSettings
from app.settings.reach import Places


def open_transport(tls: TlsSettings, *, max_connections: int, max_kept: int | None = None) -> httpx2.AsyncBaseTransport:
    """Make the transport of one HTTP client, which closes it. Of its connections `max_kept` stay open when idle."""
    limits = httpx2.Limits(
        max_connections=max_connections,
        max_keepalive_connections=max_connections if max_kept is None else max_kept,
    )
    context = _context(tls.ca_file)
    direct = httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False)
    if tls.proxy is None:
        return direct
    url = tls.proxy.get_secret_value()
    proxy = httpx2.Proxy(url, ssl_context=context if url.lower().startswith("https") else None)
    proxied = httpx2.AsyncHTTPTransport(verify=context, limits=limits, trust_env=False, proxy=proxy)
    return _Routed(direct, proxied, tls.around_proxy)


@cache
def _context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the authorities of a file, else those of SSL_CERT_FILE, else the system's. Reading them is slow."""
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    return httpx2.create_ssl_context(trust_env=True)


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
