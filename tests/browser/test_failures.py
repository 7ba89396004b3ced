"""Externals fail, and the page says so in words, loses nothing, and goes on by itself."""

from collections.abc import Callable

from playwright.sync_api import Page, Route, expect

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]


def test_stackone_is_down(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.fault("POST", "/connect_sessions", status=503, times=None)
    alice.connect("BambooHR")
    alert = alice.page.get_by_role("alert")
    expect(alert).to_contain_text("Connecting is not possible right now")
    expect(alice.page.get_by_text("Trying again by itself")).to_be_visible()
    snap(alice.page, "stackone-down")
    house.behave()
    expect(alice.field("Subdomain")).to_be_visible()


def test_stackone_is_down_when_confirming(alice: IntegrationsPage, house: House) -> None:
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    # For as long as it takes: the broker's own refresh of the new account meets it too.
    house.fault("GET", "/accounts/", status=503, times=None)
    alice.submit()
    expect(alice.page.get_by_role("alert")).to_contain_text("Connecting is not possible right now")
    house.behave()
    alice.page.get_by_role("button", name="Try now").click()
    expect(alice.page.get_by_text("BambooHR is connected.")).to_be_visible()
    assert len(house.accounts()) == 1
    alice.expect_minted(1)


def test_the_hubs_own_calls_fail(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.fault("POST", "/hub/accounts", status=500, body={"statusCode": 500, "message": "Try again later"})
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    alice.submit()
    expect(alice.page.get_by_text("Try again later")).to_be_visible()
    snap(alice.page, "hub-error")
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_stackone_asks_for_patience(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.fault("POST", "/connect_sessions", status=429, headers={"retry-after": "2"}, times=None)
    alice.connect("BambooHR")
    # Who has to wait is the broker, not this person: its answer is a 503 that says for how long.
    expect(alice.page.get_by_text("Trying again by itself in")).to_be_visible()
    snap(alice.page, "patience")
    house.behave()
    expect(alice.field("Subdomain")).to_be_visible()


def test_slow_network(alice: IntegrationsPage, context: WatchedContext, house: House, snap: Snap) -> None:
    wire = context.context.new_cdp_session(alice.page)
    wire.send("Network.enable")
    slow = {"offline": False, "latency": 300, "downloadThroughput": 600_000, "uploadThroughput": 200_000}
    wire.send("Network.emulateNetworkConditions", slow)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    alice.page.route(f"{house.broker_url}/v1/connect-sessions", hold)
    alice.connect("BambooHR")
    expect(alice.page.get_by_text("This is taking longer than usual")).to_be_visible()
    snap(alice.page, "slow")
    held.pop().continue_()
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_the_broker_goes_and_comes_back(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.connect("Workday")
    expect(alice.field("Tenant")).to_be_visible()
    house.go_down()
    alice.page.get_by_role("button", name="All integrations").click()
    expect(alice.page.get_by_role("alert")).to_contain_text("We cannot reach our service")
    alice.connect("BambooHR")
    expect(alice.page.get_by_role("alert")).to_contain_text("We cannot reach our service")
    snap(alice.page, "broker-down")
    house.come_back()
    # The identity provider signs with new keys: the page's old token is refused, and replaced on the way.
    expect(alice.field("Subdomain")).to_be_visible()
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    alice.expect_account("BambooHR", "Connected")
