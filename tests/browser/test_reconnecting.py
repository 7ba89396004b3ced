"""A connection that stopped working is fixed: the same account goes on, and no second one appears."""

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.house import House
from tests.browser.integrations_page import GOOD_KEY, IntegrationsPage, decide

Snap = Callable[[Page, str], None]

BROKEN: dict[str, Any] = {
    "status": "error",
    "status_reasons": [{"code": "invalid_credentials", "description": "The API key was revoked"}],
    "setup_information": {"subdomain": "acme", "region": "eu"},
    "secrets": {"api_key": "an-old-key-0815"},
}


def test_by_form(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    account_id = house.link(**BROKEN)
    alice.reload()
    alice.expect_account("BambooHR", "Needs you to reconnect")
    alice.expect_account("BambooHR", "The API key was revoked.")
    snap(alice.page, "needs-reconnect")
    alice.reconnect("BambooHR")
    expect(alice.field("Subdomain")).to_have_value("acme")
    snap(alice.page, "edit-form")
    alice.page.get_by_role("button", name="Edit").click()
    alice.field("API key").fill(GOOD_KEY)
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    alice.expect_account("BambooHR", "Connected")
    assert [(account["id"], account["status"]) for account in house.accounts()] == [(account_id, "active")]
    assert [request["path"] for request in house.received("PATCH", "/hub/")] == [f"/hub/accounts/{account_id}"]
    assert house.received("POST", "/hub/accounts") == []


def test_by_popup(alice: IntegrationsPage, house: House) -> None:
    account_id = house.link(provider="salesforce", status="expired")
    alice.reload()
    alice.expect_account("Salesforce", "Needs you to reconnect")
    alice.reconnect("Salesforce")
    decide(alice.open_popup(), "Approve")
    alice.expect_news("Salesforce is connected.")
    assert [(account["id"], account["status"]) for account in house.accounts()] == [(account_id, "active")]


def test_connecting_what_is_connected_already_edits_it(alice: IntegrationsPage, house: House) -> None:
    # The list of this page is older than the account that a colleague has just made.
    alice.page.route(f"{house.broker_url}/v1/linked-accounts?*", lambda route: route.abort())
    account_id = house.link(setup_information={"subdomain": "acme", "region": "eu"}, secrets={"api_key": "an-old-key"})
    alice.connect("BambooHR")
    expect(alice.field("Subdomain")).to_have_value("acme")
    alice.page.unroute_all()
    alice.field("Subdomain").fill("acme-two")
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    assert [account["id"] for account in house.accounts()] == [account_id]


def test_a_save_that_was_refused_is_not_called_a_success(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.link(**BROKEN)
    alice.reload()
    alice.reconnect("BambooHR")
    expect(alice.field("Subdomain")).to_have_value("acme")
    # The Hub takes a 401 here for success.
    house.fault("PATCH", "/hub/accounts/", status=401)
    alice.field("Subdomain").fill("acme-new")
    alice.submit()
    expect(alice.page.get_by_role("alert")).to_contain_text("Your changes were not saved")
    snap(alice.page, "false-success")
    assert [account["status"] for account in house.accounts()] == ["error"]
    alice.page.get_by_role("button", name="Try again").click()
    expect(alice.field("Subdomain")).to_have_value("acme")
    alice.field("Subdomain").fill("acme-new")
    alice.submit()
    alice.expect_news("BambooHR is connected.")


def test_an_account_that_is_gone(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    account_id = house.link(**BROKEN)
    alice.reload()
    alice.expect_account("BambooHR", "Needs you to reconnect")
    house.switch("POST", "/webhooks", {"mode": "drop"})
    house.switch("DELETE", f"/accounts/{account_id}")
    alice.reconnect("BambooHR")
    expect(alice.page.get_by_role("alert")).to_contain_text("This connection is gone")
    snap(alice.page, "gone")
