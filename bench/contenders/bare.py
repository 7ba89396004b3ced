"""The least that Python can do for a mint: bare ASGI that passes the body on. BENCH_CLIENT is httpx2 or aiohttp."""

import importlib
import os
from typing import Any

import httpx2

_URL = os.environ["BENCH_STACKONE_URL"]
_HEADERS = {"authorization": "Basic a2V5Og==", "content-type": "application/json"}
_CLIENT: dict[str, Any] = {}


async def _through_httpx2(body: bytes) -> bytes:
    client = _CLIENT.get("httpx2")
    if client is None:
        limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=1000)
        client = _CLIENT["httpx2"] = httpx2.AsyncClient(base_url=_URL, headers=_HEADERS, limits=limits, timeout=30)
    answer = await client.post("/connect_sessions", content=body)
    return bytes(answer.content)


async def _through_aiohttp(body: bytes) -> bytes:
    client = _CLIENT.get("aiohttp")
    if client is None:
        # Not a dependency of the broker (yet): where it is missing, this contender is left out.
        aiohttp = importlib.import_module("aiohttp")
        connector = aiohttp.TCPConnector(limit=1000)
        client = _CLIENT["aiohttp"] = aiohttp.ClientSession(_URL, headers=_HEADERS, connector=connector)
    async with client.post("/connect_sessions", data=body) as answer:
        return bytes(await answer.read())


_CALL = {"httpx2": _through_httpx2, "aiohttp": _through_aiohttp}[os.environ.get("BENCH_CLIENT", "httpx2")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, status = b"", 200
    if scope["method"] == "POST":
        message = await receive()
        body, status = await _CALL(message["body"]), 201
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
