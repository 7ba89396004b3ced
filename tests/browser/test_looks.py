"""How the page looks and for whom: light and dark, phone width, keyboard only, screen readers, no framework."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.places import REPOSITORY, SCREENSHOTS
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]

_AXE = REPOSITORY / "node_modules" / "axe-core" / "axe.min.js"
_README_PICTURE = REPOSITORY / "docs" / "images" / "integrations.png"
# What the vendor's own component (malachite 2.24.2) does wrong: `aria-required` on a button, and pale small print.
_KNOWN_OF_THE_HUB = frozenset({"aria-allowed-attr", "color-contrast"})
_RUN_AXE = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations
    .filter((rule) => ["serious", "critical"].includes(rule.impact) || rule.id === "heading-order")
    .flatMap((rule) => rule.nodes.map((node) => ({
      rule: rule.id, target: node.target.flat().join(" >> "), html: node.html, why: node.failureSummary,
      inTheHub: node.target.some((step) => Array.isArray(step)),
    })));
}"""


def serious_violations(page: Page) -> list[dict[str, Any]]:
    """Return what axe-core finds serious or critical, and headings that are out of order."""
    if not _AXE.is_file():
        pytest.skip("axe-core is not installed: run npm ci")
    page.evaluate(_AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate(_RUN_AXE)
    return found


def known_of_the_hub(found: dict[str, Any]) -> bool:
    """Tell what only the vendor can fix; anything else in the Hub fails like our own."""
    return bool(found["inTheHub"]) and found["rule"] in _KNOWN_OF_THE_HUB


def _a_lived_in_house(house: House) -> None:
    house.link("alice", "bamboohr", setup_information={"subdomain": "acme"}, origin_username="alice@acme.example")
    house.link(
        "alice",
        "workday",
        status="error",
        status_reasons=[
            {"code": "invalid_credentials", "description": "The password of the integration user has expired"}
        ],
        origin_username="carol@acme.example",
    )
    house.link("alice", "salesforce", status="suspended", label="EMEA", origin_username="alice@acme.example")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark(browser: Browser, house: House, snap: Snap, theme: str) -> None:
    _a_lived_in_house(house)
    with WatchedContext(browser, house, lambda _pages: None, color_scheme=theme) as context:
        page = context.sign_in("alice")
        page.expect_account("Workday", "The password of the integration user has expired.")
        page.expect_account("Salesforce · EMEA", "Suspended")
        snap(page.page, f"integrations-{theme}")
        if theme == "light":
            _take_readmes_picture(page.page)
        page.connect("SAP SuccessFactors")
        expect(page.field("Company id")).to_be_visible()
        snap(page.page, f"hub-{theme}")
        assert _luminance(page) > 0.6 if theme == "light" else _luminance(page) < 0.3
        other = "dark" if theme == "light" else "light"
        page.field("Company id").fill("typed before the switch")
        page.page.get_by_label("Colour theme").select_option(other)
        expect(page.field("Company id")).to_have_value("typed before the switch")
        page.house.until(lambda: (_luminance(page) < 0.3) is (other == "dark"))
        page.expect_minted(1)


def _take_readmes_picture(page: Page) -> None:
    """Take the README's picture, and put it there if asked to: it differs a little from machine to machine."""
    page.set_viewport_size({"width": 1100, "height": 700})
    picture = page.screenshot(path=SCREENSHOTS / "readme.png", animations="disabled")
    if os.environ.get("BROKER_TAKE_PICTURE") == "1":
        _README_PICTURE.write_bytes(picture)


def _luminance(page: IntegrationsPage) -> float:
    """Return how light the Hub's own card is, from 0 to 1."""
    value: float = page.field("Company id").evaluate(
        """(input) => {
          for (let at = input; at; at = at.parentElement ?? at.getRootNode().host) {
            const parts = getComputedStyle(at).backgroundColor.match(/[\\d.]+/g).map(Number);
            if (parts.length === 3 || parts[3] > 0.5) return (parts[0] + parts[1] + parts[2]) / 765;
          }
          return 1;
        }"""
    )
    return value


def test_phone_width(browser: Browser, house: House, snap: Snap) -> None:
    _a_lived_in_house(house)
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with WatchedContext(browser, house, lambda _pages: None, **phone) as context:
        page = context.sign_in("alice")
        page.expect_account("Workday", "Needs you to reconnect")
        snap(page.page, "phone-list")
        _fits(page.page)
        page.page.get_by_role("button", name="Disconnect BambooHR").tap()
        snap(page.page, "phone-dialog")
        _fits(page.page)
        page.page.keyboard.press("Escape")
        page.connect("SAP SuccessFactors")
        expect(page.field("Company id")).to_be_visible()
        snap(page.page, "phone-hub")
        _fits(page.page)


def _fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessibility(browser: Browser, house: House, theme: str) -> None:
    _a_lived_in_house(house)
    with WatchedContext(browser, house, lambda _pages: None, color_scheme=theme) as context:
        signed_out = context.open()
        expect(signed_out.get_by_role("heading", name="Who are you today?")).to_be_visible()
        assert serious_violations(signed_out) == []
        page = context.sign_in("alice")
        page.expect_account("Workday", "Needs you to reconnect")
        assert serious_violations(page.page) == []
        page.page.get_by_role("button", name="Disconnect BambooHR").click()
        expect(page.page.get_by_role("dialog")).to_be_visible()
        assert serious_violations(page.page) == []
        page.page.keyboard.press("Escape")
        page.page.get_by_role("button", name="Invite a colleague").click()
        expect(page.page.get_by_role("dialog")).to_be_visible()
        assert serious_violations(page.page) == []
        page.page.keyboard.press("Escape")
        context.context.route(f"{house.broker_url}/v1/linked-accounts?*", lambda route: route.abort())
        page.page.evaluate("dispatchEvent(new Event('focus'))")
        expect(page.page.get_by_role("alert")).to_contain_text("We cannot reach our service")
        assert serious_violations(page.page) == []
        context.context.unroute_all()
        house.fault("POST", "/connect_sessions", status=503, times=None)
        page.connect("SAP SuccessFactors")
        expect(page.page.get_by_role("alert")).to_be_visible()
        assert serious_violations(page.page) == []
        house.behave()
        page.page.get_by_role("button", name="Try now").click()
        expect(page.field("Company id")).to_be_visible()
        assert [found for found in serious_violations(page.page) if not known_of_the_hub(found)] == []
        page.page.get_by_role("button", name="All integrations").click()
        page.browse()
        expect(page.page.get_by_text("Workday", exact=True)).to_be_visible()
        assert [found for found in serious_violations(page.page) if not known_of_the_hub(found)] == []


def test_keyboard_only(context: WatchedContext, house: House) -> None:
    page = IntegrationsPage(context.open(), house)
    keys = page.page.keyboard

    def go_to(name: str, *, most: int = 40) -> None:
        for _ in range(most):
            keys.press("Tab")
            if name in str(page.page.evaluate(_FOCUSED)):
                return
        pytest.fail(f"Tab never reaches {name}")

    expect(page.page.get_by_role("button", name="Continue as Alice")).to_be_visible()
    go_to("Continue as Alice")
    keys.press("Enter")
    expect(page.page.get_by_role("heading", name="Your connections")).to_be_visible()
    go_to("Connect BambooHR")
    keys.press("Enter")
    expect(page.page.get_by_role("heading", name="Connect BambooHR")).to_be_focused()
    expect(page.field("Subdomain")).to_be_visible()
    go_to("subdomain")
    keys.type("acme")
    go_to("api_key")
    keys.type("a-long-key")
    keys.press("Tab")
    keys.press("Enter")
    expect(page.page.get_by_role("button", name="Europe")).to_be_focused()
    keys.press("Enter")
    expect(page.page.get_by_role("button", name="Region")).to_contain_text("Europe")
    expect(page.hub_connect).to_be_enabled()
    go_to("Connect")
    keys.press("Enter")
    page.expect_news("BambooHR is connected.")
    expect(page.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
    go_to("Disconnect BambooHR")
    keys.press("Enter")
    expect(page.page.get_by_role("button", name="Keep it")).to_be_focused()
    keys.press("Enter")
    expect(page.page.get_by_role("dialog")).to_be_hidden()
    expect(page.page.get_by_role("button", name="Disconnect BambooHR")).to_be_focused()


_FOCUSED = """() => {
  let at = document.activeElement;
  while (at?.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  return [at?.getAttribute("aria-label"), at?.name, at?.id, at?.textContent].filter(Boolean).join(" | ");
}"""


def test_without_a_framework(context: WatchedContext, house: House, snap: Snap) -> None:
    page = IntegrationsPage(context.open("/webcomponent.html"), house)
    page.page.get_by_role("button", name="Connect BambooHR").click()
    page.fill_bamboohr()
    snap(page.page, "webcomponent")
    page.submit()
    expect(page.page.get_by_text("bamboohr is connected.")).to_be_visible()
    assert [account["origin_owner_id"] for account in house.accounts()] == ["org_acme"]
    context.forgive_probes_of("/hub/webcomponent.js")
