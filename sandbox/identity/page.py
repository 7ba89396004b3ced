"""The static files of the demo's page, with the strictest content security policy under which the Hub works."""

import gzip
from pathlib import Path

from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from sandbox.identity.provider import IdentityConfig

# The <style> elements that the Hub's design system (malachite 2.24.2) makes by script: three fonts, two themes, and an
# empty one. They carry no nonce, so they are allowed by hash; a newer Hub needs new hashes.
_STYLE_HASHES = (
    "0xJqSQCZJvw8pQA/Q7q2ZhzF1SRLIqkq7FIYtQiLuQ8=",
    "hyUhptO2HqfAtgq8jqqDlgR1vS1G6boF/XdThQSFa/o=",
    "coudzMhftc0mYX/KEE8hqK1Pc6gNFjkL8hO0ZDhuM0w=",
    "ud4ANLq/ZzdC57+A3CSPS63x8evmgWoNsPIcCjD5g1w=",
    "7tqn5bZTuFBMIXHVMuAhTrnuz5iz8NAiQIyQy5iw/Mo=",
    "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
)

_NOT_BUILT = """The page is not built.

It embeds the real StackOne Hub and is built with Node 20.19 or newer: install Node, stop this demo, and run

    make demo

Everything else works without it. `broker-demo` printed a curl command that mints a connect-session token.
"""


def page_headers(config: IdentityConfig) -> dict[str, str]:
    """Return the headers of every file of the page."""
    hashes = " ".join(f"'sha256-{digest}'" for digest in _STYLE_HASHES)
    policy = (
        f"default-src 'none'; script-src 'self'; connect-src 'self' {config.broker_url} {config.stackone_url};"
        f" img-src 'self' data:; font-src data:; style-src 'self' {hashes}; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "content-security-policy": policy,
        # `same-origin` would leave the Hub unable to close its popup.
        "cross-origin-opener-policy": "same-origin-allow-popups",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


class PageServer:
    """ASGI app that serves the built page, or says how to build it; it may be built while this runs."""

    def __init__(self, config: IdentityConfig) -> None:
        """Look for the page in `config.page_dir`, on each request."""
        self._dir = config.page_dir
        self._headers = page_headers(config)
        self._compressed: dict[tuple[Path, float], bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one file."""
        response = await self._respond(scope)
        # The bundler names what it makes after its content; everything else keeps its name, and is asked for again.
        is_hashed = scope["path"].startswith("/assets/") and response.status_code in {200, 304}
        caching = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
        response.headers.update({**self._headers, "cache-control": caching})
        await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if self._dir is None or not (self._dir / "index.html").is_file():
            is_front = Request(scope).url.path == "/"
            return PlainTextResponse(_NOT_BUILT if is_front else "Not found\n", 200 if is_front else 404)
        files = StaticFiles(directory=self._dir, html=True)
        try:
            response = await files.get_response(files.get_path(scope), scope)
        except HTTPException as error:
            return PlainTextResponse(f"{error.detail}\n", error.status_code)
        accepted = Request(scope).headers.get("accept-encoding", "")
        if isinstance(response, FileResponse) and "gzip" in accepted and "range" not in Request(scope).headers:
            return self._smaller(response)
        return response

    def _smaller(self, found: FileResponse) -> Response:
        path = Path(found.path)
        key = (path, path.stat().st_mtime)
        if key not in self._compressed:
            self._compressed[key] = gzip.compress(path.read_bytes(), mtime=0)
        response = Response(self._compressed[key], media_type=found.media_type)
        response.headers["content-encoding"] = "gzip"
        response.headers["vary"] = "accept-encoding"
        # Weak: it names the file, whose bytes these are not.
        response.headers["etag"] = f"W/{found.headers['etag']}"
        response.headers["last-modified"] = found.headers["last-modified"]
        return response
