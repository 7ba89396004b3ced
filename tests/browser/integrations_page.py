"""What a person does on the integrations page, and in the Hub that it opens."""

import contextlib
from typing import Any

from playwright.sync_api import Locator, Page, Response, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.browser.house import House

GOOD_KEY = "a-good-key-4711"


class IntegrationsPage:
    """The page of one signed-in user."""

    def __init__(self, page: Page, house: House) -> None:
        self.page = page
        self.house = house
        self._mints: list[Response] = []
        page.on("response", self._note_mint)

    def sign_in(self, user: str) -> None:
        """Choose a user on the first page."""
        self.choose(user)
        self.expect_list()

    def choose(self, user: str) -> None:
        """Press a user's button where the page asks who is there."""
        self.page.get_by_role("button", name=f"Continue as {user.capitalize()}").click()

    def reload(self) -> None:
        """Load the page anew."""
        self.page.reload()
        self.expect_list()

    def expect_list(self) -> None:
        """Expect the list to have been read: what a test does next must not meet the page's own first calls."""
        section = self.page.get_by_role("region", name="Integrations", exact=True)
        expect(section).to_have_attribute("aria-busy", "false")

    def connect(self, provider: str) -> None:
        """Press Connect of a provider."""
        self.page.get_by_role("button", name=f"Connect {provider}", exact=True).click()

    def browse(self) -> None:
        """Open the Hub's own picker."""
        self.page.get_by_role("button", name="Browse all tools").click()

    def pick(self, provider: str) -> None:
        """Pick in the Hub's own list."""
        self.page.get_by_text(provider, exact=True).click()

    def account(self, name: str) -> Locator:
        """Return the row of an account."""
        return self.page.get_by_role("listitem").filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def expect_account(self, name: str, status: str) -> None:
        """Expect a row that says exactly this, as its status or as the reason for it."""
        expect(self.account(name).get_by_text(status, exact=True)).to_be_visible()

    def reconnect(self, name: str) -> None:
        """Press Reconnect of an account."""
        self.page.get_by_role("button", name=f"Reconnect {name}").click()

    def fill_bamboohr(self, *, subdomain: str = "acme", key: str = GOOD_KEY) -> None:
        """Fill in the form with text, a secret and a choice."""
        self.field("Subdomain").fill(subdomain)
        self.field("API key").fill(key)
        self.page.get_by_role("button", name="Region").click()
        self.page.get_by_role("button", name="Europe").click()

    def field(self, label: str) -> Locator:
        """Return an input of the Hub's form."""
        return self.page.get_by_role("textbox", name=label)

    @property
    def hub_connect(self) -> Locator:
        """Return the Hub's own button."""
        return self.page.get_by_role("button", name="Connect", exact=True)

    def submit(self) -> None:
        """Press the Hub's Connect."""
        self.hub_connect.click()

    def open_popup(self) -> Page:
        """Press the Hub's Connect and return the provider's page that it opens."""
        with self.page.expect_popup() as opened:
            self.hub_connect.click()
        popup = opened.value
        expect(popup.get_by_role("button", name="Approve")).to_be_visible()
        return popup

    def expect_news(self, text: str) -> None:
        """Expect what the page says after it has confirmed."""
        expect(self.page.get_by_text(text)).to_be_visible()

    def token(self) -> str:
        """Return the token that the page has minted last."""
        answer: dict[str, Any] = self._mints[-1].json()
        return str(answer["token"])

    def expect_minted(self, count: int) -> None:
        """Expect the page to have minted this many tokens by now."""
        with contextlib.suppress(PlaywrightTimeout):
            while len(self._mints) < count:
                self.page.wait_for_event("response")
        assert len(self._mints) == count

    def _note_mint(self, response: Response) -> None:
        # Nothing is asked of the browser in here: a test would meanwhile go on, and find the count too low.
        is_mint = response.request.method == "POST" and response.url.endswith("/v1/connect-sessions")
        if is_mint and response.status == 201:
            self._mints.append(response)


def decide(popup: Page, name: str) -> None:
    """Press Approve or Deny; the Hub may close the popup during the click."""
    popup.get_by_role("button", name=name).click(no_wait_after=True)
