"""A browser context that remembers what no page may do, and fails the test for it in the end."""

from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => window.reportViolation({
  page: location.pathname,
  directive: event.effectiveDirective,
  blocked: event.blockedURI,
  source: event.sourceFile,
  sample: event.sample,
}));
"""
# Only what goes wrong waits that long; a busy machine may be many times slower than a quiet one.
PATIENCE_MS = 30_000
_LOCAL_SCHEMES = frozenset({"data", "blob", "about", "chrome-error"})


class WatchedContext:
    """One person's browser."""

    def __init__(self, browser: Browser, house: House, on_close: Callable[[list[Page]], None], **options: Any) -> None:
        self.house = house
        self.violations: list[dict[str, str]] = []
        self.errors: list[str] = []
        self.strange_requests: list[str] = []
        self._on_close = on_close
        options = {"viewport": {"width": 1100, "height": 900}, "locale": "en-GB", **options}
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.expose_function("reportViolation", self._note_violation)
        self.context.add_init_script(_REPORT_VIOLATIONS)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("request", self._look_at)

    def __enter__(self) -> Self:
        """Open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close, and say what was wrong unless the test failed anyway."""
        self._on_close(self.context.pages)
        self.context.close()
        if kind is None:
            self.assert_clean()

    def assert_clean(self) -> None:
        """Fail for a violated policy, an uncaught error, or a request to somewhere unknown."""
        assert not self.violations, self.violations
        assert not self.errors, self.errors
        assert not self.strange_requests, self.strange_requests

    def forgive_probes_of(self, script: str) -> None:
        """Forgive the vendor's bundle its one harmless question whether `new Function` works; ours does not ask."""
        self.violations = [
            found
            for found in self.violations
            if not (found["blocked"] in {"eval", "trusted-types-sink"} and script in found["source"])
        ]

    def open(self, path: str = "/") -> Page:
        """Open a page of the demo."""
        page = self.context.new_page()
        page.goto(self.house.page_url + path)
        return page

    def sign_in(self, user: str, path: str = "/") -> IntegrationsPage:
        """Open the integrations page as one of the demo's users."""
        page = IntegrationsPage(self.open(path), self.house)
        page.sign_in(user)
        return page

    def _note_violation(self, found: dict[str, str]) -> None:
        self.violations.append(found)

    def _look_at(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in _LOCAL_SCHEMES and f"{parts.scheme}://{parts.netloc}" not in self.house.origins:
            self.strange_requests.append(f"{request.method} {request.url}")
