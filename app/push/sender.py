"""Posting to a destination without becoming a way into the network around us (SSRF).

The name is resolved here, each of its addresses must be public or in the operator's own list, and the connection goes
to the address that was checked: a name that resolves to another address between check and connect (DNS rebinding) gains
nothing. Redirects are not followed.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx2

from app.errors import tls_failure
from app.outbound import open_transport
from app.settings import TlsSettings
from app.settings.reach import Places, is_public

_NOWHERE: Final = Places()
_CONNECTIONS: Final = 500
_LONGEST_FAILURE: Final = 64  # of its column

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class NotDelivered(Exception):
    """A destination did not accept a delivery; `failure` says how, without anything the destination sent."""

    def __init__(self, failure: str, retry_after: float | None = None) -> None:
        """Keep the failure and, where the destination asked for it, how long to wait."""
        super().__init__(failure)
        self.failure = failure
        self.retry_after = retry_after


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return every address of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Sender:
    """The HTTP client for destinations."""

    def __init__(
        self,
        *,
        timeout_seconds: float,
        allow_private: bool,
        inside: Places = _NOWHERE,
        tls: TlsSettings | None = None,
        resolver: Resolver = resolve,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`inside` may be posted to though it is not public; `allow_private` is for development only.

        `resolver` and `transport` replace the network.
        """
        self._timeout = timeout_seconds
        self._allow_private = allow_private
        self._inside = inside
        self._resolve = resolver
        self._http = httpx2.AsyncClient(
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
            # Connections are not kept: the pool would find one by its address, so a connection that was opened for one
            # name could carry what is meant for another name at the same address.
            transport=transport or open_transport(tls or TlsSettings(), max_connections=_CONNECTIONS, max_kept=0),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body. Raises NotDelivered unless the destination answers 2xx in time."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._post(url, body, headers)
        except TimeoutError:
            raise NotDelivered("timeout") from None
        except httpx2.TimeoutException:
            raise NotDelivered("timeout") from None
        except (httpx2.HTTPError, OSError) as error:
            raise NotDelivered((tls_failure(error) or type(error).__name__)[:_LONGEST_FAILURE]) from None

    def _may_reach(self, scheme: str, host: str, address: str) -> bool:
        if self._allow_private or self._inside.hold(host, address):
            return True
        return scheme == "https" and is_public(address)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = await self._resolve(host, port)
        if not addresses or not all(self._may_reach(parts.scheme, host, address) for address in addresses):
            raise NotDelivered("address_not_public")
        address = addresses[0]
        pinned = parts._replace(netloc=f"[{address}]:{port}" if ":" in address else f"{address}:{port}").geturl()
        sent = {**headers, "host": parts.netloc, "content-type": "application/json", "user-agent": "connect-broker"}
        async with self._http.stream(
            "POST", pinned, content=body, headers=sent, extensions={"sni_hostname": host}
        ) as response:
            # Only the status is read: a destination cannot make us read an endless body.
            if not response.is_success:
                raise NotDelivered(f"status_{response.status_code}", _retry_after(response.headers.get("retry-after")))


def _retry_after(header: str | None) -> float | None:
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return float(header[:6])
