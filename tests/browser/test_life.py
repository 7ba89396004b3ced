"""What happens to an open Hub when the page's own life goes on: Back, a reload, a deploy, a session that ends."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.host_page import open_host
from tests.browser.house import House
from tests.browser.integrations_page import GOOD_KEY, IntegrationsPage
from tests.browser.test_reconnecting import BROKEN
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]


def test_the_hubs_code_is_gone(context: WatchedContext, snap: Snap) -> None:
    # A deploy took the old files away under a page that is open.
    context.context.route("**/assets/webcomponent-*.js*", lambda route: route.fulfill(status=404))
    alice = context.sign_in("alice")
    alice.connect("BambooHR")
    expect(alice.page.get_by_role("alert")).to_contain_text("The connection form could not be shown")
    snap(alice.page, "code-lost")
    alice.page.get_by_role("button", name="Try again").click()
    expect(alice.page.get_by_role("alert")).to_contain_text("The connection form could not be shown")
    context.context.unroute_all()
    alice.page.get_by_role("button", name="Try again").click()
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_all_of_the_packages_code_is_gone(context: WatchedContext) -> None:
    page = open_host(context, "plain")
    context.context.route("**/connect/view.js*", lambda route: route.abort())
    opener = page.get_by_role("button", name="Connect BambooHR")
    opener.click()
    page.wait_for_function("events.join() === 'opened,problem,cancelled'")
    context.context.unroute("**/connect/view.js*")
    opener.click()
    expect(page.get_by_role("textbox", name="Subdomain")).to_be_visible()


def test_back_closes_the_hub(alice: IntegrationsPage) -> None:
    heading = alice.page.get_by_role("heading", name="Integrations", exact=True)
    alice.connect("BambooHR")
    expect(alice.field("Subdomain")).to_be_visible()
    alice.page.go_back()
    expect(heading).to_be_focused()
    alice.connect("Workday")
    expect(alice.field("Tenant")).to_be_visible()
    alice.page.get_by_role("button", name="All integrations").click()
    expect(heading).to_be_focused()
    # Neither left a step of history behind.
    alice.page.wait_for_function("!history.state?.connectBroker")


def test_a_reload_comes_back(alice: IntegrationsPage) -> None:
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    first = alice.token()
    kept = alice.page.evaluate("JSON.stringify({ ...sessionStorage, ...localStorage }) + document.cookie")
    assert first not in kept
    alice.page.reload()
    expect(alice.field("Subdomain")).to_have_value("")
    assert alice.token() != first
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    alice.reload()
    alice.expect_account("BambooHR", "Connected")


def test_who_left_the_page_has_left_the_hub(alice: IntegrationsPage) -> None:
    alice.connect("BambooHR")
    expect(alice.field("Subdomain")).to_be_visible()
    address = alice.page.url
    # A page of the same tab without the package, by a link and back by another.
    alice.page.goto(alice.house.page_url + "/favicon.svg")
    alice.page.goto(address)
    heading = alice.page.get_by_role("heading", name="Integrations", exact=True)
    expect(heading).to_be_visible()
    expect(alice.page.get_by_role("button", name="Connect BambooHR")).to_be_visible()
    alice.reload()
    expect(alice.page.get_by_role("button", name="Connect BambooHR")).to_be_visible()
    expect(heading).to_be_visible()


def test_a_reconnect_says_so(alice: IntegrationsPage, house: House) -> None:
    house.link(**BROKEN)
    alice.reload()
    alice.reconnect("BambooHR")
    alice.page.get_by_role("button", name="Edit").click()
    alice.field("API key").fill(GOOD_KEY)
    alice.submit()
    expect(alice.account("BambooHR").get_by_text("Reconnected, just now")).to_be_visible()


def test_an_account_that_is_leaving_says_so(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.link("alice", "workday")
    alice.reload()
    house.fault("DELETE", "/accounts/", status=503, times=None)
    alice.page.get_by_role("button", name="Disconnect Workday").click()
    alice.page.get_by_role("dialog").get_by_role("button", name="Disconnect", exact=True).click()
    alice.expect_news("Workday is being disconnected.")
    expect(alice.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
    alice.reload()
    alice.expect_account("Workday", "Disconnecting…")
    expect(alice.page.get_by_role("button", name="Reconnect Workday")).to_be_disabled()
    snap(alice.page, "leaving")


def test_sign_in_signs_in(context: WatchedContext, alice: IntegrationsPage, house: House) -> None:
    expect(alice.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
    context.context.route("**/demo/sign-in", lambda route: route.fulfill(status=401))
    context.context.route(f"{house.broker_url}/v1/**", lambda route: route.fulfill(status=401, json={}))
    alice.connect("BambooHR")
    expect(alice.page.get_by_role("alert")).to_contain_text("You have been signed out")
    context.context.unroute_all()
    alice.page.get_by_role("button", name="Sign in").click()
    expect(alice.page.get_by_role("heading", name="Who are you today?")).to_be_focused()
    alice.sign_in("alice")
    expect(alice.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
