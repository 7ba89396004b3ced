"""A person connects a tool: by a form, through a provider's popup, and every way in which that can end."""

from collections.abc import Callable
from urllib.parse import unquote

from playwright.sync_api import Page, Request, expect

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage, decide
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]


def is_cancellation(request: Request) -> bool:
    """Tell the call with which the Hub gives an attempt up."""
    return request.method == "DELETE" and "/hub/connection_attempts/" in request.url


def test_by_form(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    expect(alice.page.get_by_text("Nothing is connected yet")).to_be_visible()
    snap(alice.page, "empty")
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    snap(alice.page, "form")
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    alice.expect_account("BambooHR", "Connected")
    snap(alice.page, "connected")
    (account,) = house.accounts()
    assert (account["origin_owner_id"], account["origin_username"]) == ("org_acme", "alice@acme.example")


def test_through_the_hubs_own_list(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.browse()
    expect(alice.page.get_by_text("Workday", exact=True)).to_be_visible()
    expect(alice.page.get_by_text("Greenhouse", exact=True)).to_be_hidden()
    snap(alice.page, "picker")
    alice.pick("SAP SuccessFactors")
    alice.field("Company id").fill("acme")
    alice.field("Client id").fill("id")
    alice.field("Client secret").fill("a-long-secret")
    alice.submit()
    alice.expect_news("SAP SuccessFactors is connected.")
    assert [account["provider"] for account in house.accounts()] == ["sap_successfactors"]


def test_by_form_with_wrong_credentials(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.connect("BambooHR")
    alice.fill_bamboohr(key="wrong")
    alice.submit()
    expect(alice.page.get_by_text("Invalid credentials")).to_be_visible()
    snap(alice.page, "wrong-credentials")
    assert house.accounts() == []
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_credentials_that_are_saved_and_do_not_work(alice: IntegrationsPage, snap: Snap) -> None:
    alice.connect("BambooHR")
    alice.fill_bamboohr(key="broken")
    alice.submit()
    alice.expect_news("it does not accept these credentials")
    alice.expect_account("BambooHR", "Needs you to reconnect")
    alice.expect_account("BambooHR", "The provider rejected these credentials.")
    snap(alice.page, "saved-but-broken")


def test_by_popup_approved(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.connect("Salesforce")
    popup = alice.open_popup()
    snap(popup, "provider")
    decide(popup, "Approve")
    alice.expect_news("Salesforce is connected.")
    assert popup.is_closed()
    assert [account["provider"] for account in house.accounts()] == ["salesforce"]


def test_by_popup_where_the_page_names_no_app_url(context: WatchedContext, house: House) -> None:
    # As the vendor's samples: the Hub then names the callback page of the vendor's own dashboard.
    known = {"broker": house.broker_url, "stackone": house.stackone_url}
    context.context.route(f"{house.page_url}/config.json", lambda route: route.fulfill(json=known))
    page = context.sign_in("alice")
    page.connect("Salesforce")
    popup = page.open_popup()
    decide(popup, "Approve")
    page.expect_news("Salesforce is connected.")
    (opened,) = house.received("GET", "/connect/oauth2/salesforce_profile")
    assert "redirect_uri=https://app.stackone.com/embedded/accounts/callback" in unquote(opened["query"])
    assert [account["provider"] for account in house.accounts()] == ["salesforce"]


def test_by_popup_denied(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.connect("Salesforce")
    decide(alice.open_popup(), "Deny")
    expect(alice.page.get_by_text("access_denied")).to_be_visible()
    snap(alice.page, "popup-denied")
    assert house.accounts() == []


def test_by_popup_that_is_closed(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    alice.connect("Salesforce")
    alice.open_popup().close()
    start_over = alice.page.get_by_text("Cancel and start over")
    expect(start_over).to_be_visible()
    snap(alice.page, "popup-closed")
    start_over.click()
    decide(alice.open_popup(), "Approve")
    alice.expect_news("Salesforce is connected.")
    assert len(house.accounts()) == 1


def test_by_popup_that_is_blocked(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    # Chromium lets a click open a popup for five seconds; an answer that comes later meets the blocker.
    house.fault("POST", "/hub/connection_attempts", delay_ms=6000)
    alice.connect("Salesforce")
    # Looking at the page would count as a click of its own: only the Hub giving up is waited for.
    with alice.page.expect_event("requestfinished", is_cancellation):
        alice.submit()
    expect(alice.page.get_by_text("Popup blocked")).to_be_visible()
    snap(alice.page, "popup-blocked")
    assert house.accounts() == []
    assert len(alice.page.context.pages) == 1


def test_giving_up_leaves_nothing_behind(alice: IntegrationsPage, house: House) -> None:
    alice.connect("BambooHR")
    alice.field("Subdomain").fill("acme")
    alice.page.get_by_role("button", name="All integrations").click()
    expect(alice.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
    assert house.accounts() == []
