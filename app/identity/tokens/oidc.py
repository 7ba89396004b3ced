"""Fetching an issuer's keys over HTTP: OIDC discovery, then the key set. The only HTTP client of this package."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx2

from app.errors import tls_failure
from app.identity.tokens.key_ring import KeysUnreachable

# What may take the place of the network, in tests.
Transport = httpx2.AsyncBaseTransport

MAXIMUM_ANSWER_BYTES = 256 * 1024
_DISCOVERY_PATH = "/.well-known/openid-configuration"
_OK = 200


def open_client(timeout_seconds: float, transport: Transport | None = None) -> httpx2.AsyncClient:
    """Create the client for issuers; close it with `aclose`."""
    return httpx2.AsyncClient(
        transport=transport,
        timeout=timeout_seconds,
        # A redirect could lead to a host nobody configured; a proxy variable could put one in between.
        follow_redirects=False,
        trust_env=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        # Uncompressed, so that the size limit holds for what is read as well as for what it unfolds to.
        headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "connect-broker"},
        limits=httpx2.Limits(max_connections=20, max_keepalive_connections=5),
    )


class KeyFetcher:
    """Reads key sets with bounds on time and size."""

    def __init__(self, client: httpx2.AsyncClient, *, timeout_seconds: float) -> None:
        """Borrow a client; the deadline covers a whole fetch, discovery included."""
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def keys_at(self, uri: str) -> bytes:
        """Fetch the key set at a configured address. Raises KeysUnreachable."""
        async with self._deadline():
            return await self._read(uri)

    async def discovered_keys(self, issuer: str) -> bytes:
        """Find the key set by OIDC Discovery 1.0 section 4 and fetch it. Raises KeysUnreachable."""
        async with self._deadline():
            document = _json_object(await self._read(_discovery_uri(issuer)))
            if document.get("issuer") != issuer:
                # Section 4.3. Otherwise one tenant of a shared host could answer for another.
                message = "the discovery document names another issuer"
                raise KeysUnreachable(message)
            uri = document.get("jwks_uri")
            if not isinstance(uri, str) or not _may_serve_keys(uri, issuer):
                message = "the discovery document has no acceptable jwks_uri"
                raise KeysUnreachable(message)
            return await self._read(uri)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError as error:
            message = "the issuer did not answer in time"
            raise KeysUnreachable(message) from error

    async def _read(self, uri: str) -> bytes:
        try:
            async with self._client.stream("GET", uri) as answer:
                if answer.status_code != _OK:
                    message = f"the issuer answered {answer.status_code}"
                    raise KeysUnreachable(message)
                if answer.headers.get("content-encoding", "identity") != "identity":
                    message = "the issuer's answer is compressed, which was not asked for"
                    raise KeysUnreachable(message)
                body = bytearray()
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > MAXIMUM_ANSWER_BYTES:
                        message = "the issuer's answer is too large"
                        raise KeysUnreachable(message)
                return bytes(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            message = f"the issuer cannot be reached: {tls_failure(error) or type(error).__name__}"
            raise KeysUnreachable(message) from error


def _discovery_uri(issuer: str) -> str:
    """Put the well-known path behind the issuer's own path; a query (`?p=policy`) stays behind both."""
    base, question, query = issuer.partition("?")
    return base.rstrip("/") + _DISCOVERY_PATH + question + query


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        message = "the discovery document is not JSON"
        raise KeysUnreachable(message) from error
    if not isinstance(document, dict):
        message = "the discovery document is not a JSON object"
        raise KeysUnreachable(message)
    return document


def _may_serve_keys(uri: str, issuer: str) -> bool:
    """Accept https, or http on this machine: whoever could change the keys in transit could sign tokens."""
    try:
        keys, home = urlsplit(uri), urlsplit(issuer)
        if keys.username is not None or keys.password is not None or not keys.hostname or keys.port == 0:
            return False
        if keys.scheme == "https":
            return True
        return keys.scheme == home.scheme == "http" and _is_loopback(keys) and _is_loopback(home)
    except ValueError:
        return False


def _is_loopback(url: SplitResult) -> bool:
    if url.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.hostname or "").is_loopback
    except ValueError:
        return False
