"""A session ends while the Hub is open. The Hub says nothing; the page recovers by itself.

StackOne's side is ended by a switch and the page's clock is put forward, so that nobody waits for half an hour.
"""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]

_ALMOST_A_SESSION = 1_775_000
_A_SESSION = 1_801_000
FRESH = "The form had expired, so here is a fresh one"


def _with_a_clock(context: WatchedContext) -> IntegrationsPage:
    context.context.clock.install()
    return context.sign_in("alice")


def _hub_is_open(page: IntegrationsPage, text: str) -> None:
    expect(page.page.get_by_text(text, exact=True)).to_be_visible()


def test_before_a_pick(context: WatchedContext, house: House) -> None:
    page = _with_a_clock(context)
    page.browse()
    _hub_is_open(page, "BambooHR")
    house.revoke(page.token())
    page.page.clock.fast_forward(_ALMOST_A_SESSION)
    page.expect_minted(2)
    page.pick("BambooHR")
    page.fill_bamboohr()
    page.submit()
    page.expect_news("BambooHR is connected.")
    expect(page.page.get_by_text(FRESH)).to_be_hidden()


def test_before_connect(context: WatchedContext, house: House, snap: Snap) -> None:
    page = _with_a_clock(context)
    page.connect("BambooHR")
    _hub_is_open(page, "Subdomain")
    page.fill_bamboohr()
    page.page.clock.fast_forward(_ALMOST_A_SESSION)
    expect(page.page.get_by_text("This form is about to expire")).to_be_visible()
    expect(page.field("Subdomain")).to_have_value("acme")
    snap(page.page, "about-to-expire")
    house.revoke(page.token())
    page.page.clock.fast_forward(_A_SESSION - _ALMOST_A_SESSION)
    expect(page.page.get_by_text(FRESH)).to_be_visible()
    snap(page.page, "fresh-form")
    page.fill_bamboohr()
    page.submit()
    page.expect_news("BambooHR is connected.")


def test_noticed_when_picking(alice: IntegrationsPage, house: House) -> None:
    alice.browse()
    expect(alice.page.get_by_text("BambooHR", exact=True)).to_be_visible()
    house.revoke(alice.token())
    alice.pick("BambooHR")
    alice.expect_minted(2)
    alice.pick("BambooHR")
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_noticed_when_connecting(alice: IntegrationsPage, house: House) -> None:
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    house.revoke(alice.token())
    alice.submit()
    expect(alice.page.get_by_text(FRESH)).to_be_visible()
    assert house.accounts() == []
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_revoked_again_and_again(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.fault("GET", "/hub/connectors", status=401, times=None)
    alice.browse()
    expect(alice.page.get_by_role("alert")).to_contain_text("The connection form does not open")
    snap(alice.page, "refused")
    alice.expect_minted(3)
    house.behave()
    alice.page.get_by_role("button", name="Try again").click()
    expect(alice.page.get_by_text("BambooHR", exact=True)).to_be_visible()


def test_while_the_popup_is_open(context: WatchedContext, house: House) -> None:
    page = _with_a_clock(context)
    page.connect("Salesforce")
    expect(page.hub_connect).to_be_visible()
    page.open_popup()
    house.revoke(page.token())
    expect(page.page.get_by_text(FRESH)).to_be_visible()
    expect(page.hub_connect).to_be_visible()
    page.expect_minted(2)
