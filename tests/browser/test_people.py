"""Several people and several windows: who sees what, and how soon."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]


def test_two_tabs(context: WatchedContext, alice: IntegrationsPage) -> None:
    second = context.sign_in("alice")
    third = context.sign_in("alice")
    third.connect("Workday")
    third.field("Tenant").fill("half-typed")
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    second.expect_account("BambooHR", "Connected")
    expect(third.field("Tenant")).to_have_value("half-typed")
    third.field("Integration user").fill("sync")
    third.field("Password").fill("a-long-password")
    third.submit()
    third.expect_news("Workday is connected.")
    alice.expect_account("Workday", "Connected")


def test_two_tabs_with_the_same_provider_make_one_account(
    context: WatchedContext, alice: IntegrationsPage, house: House
) -> None:
    second = context.sign_in("alice")
    for page in (alice, second):
        page.connect("BambooHR")
        page.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    second.submit()
    second.expect_news("BambooHR is connected.")
    assert len(house.accounts()) == 1


def test_two_owners_never_meet(alice: IntegrationsPage, another_context: WatchedContext, house: House) -> None:
    bob = another_context.sign_in("bob")
    alice.connect("BambooHR")
    alice.fill_bamboohr()
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    acmes = house.listed("alice")
    house.link("bob", "workday")
    bob.reload()
    bob.expect_account("Workday", "Connected")
    expect(bob.account("BambooHR").get_by_text("Connected", exact=True)).to_be_hidden()
    bob.connect("BambooHR")
    expect(bob.field("Subdomain")).to_have_value("")
    bob.fill_bamboohr(subdomain="globex")
    bob.submit()
    bob.expect_news("BambooHR is connected.")
    assert len(house.accounts()) == 3
    assert house.listed("alice") == acmes
    alice.reload()
    alice.expect_account("BambooHR", "Connected")
    expect(alice.account("Workday").get_by_text("Connected", exact=True)).to_be_hidden()


def test_colleagues_share_connections(alice: IntegrationsPage, another_context: WatchedContext, house: House) -> None:
    house.link("alice", "workday")
    carol = another_context.sign_in("carol")
    carol.expect_account("Workday", "Connected")
    expect(alice.page.get_by_text("Acme Inc", exact=True)).to_be_visible()


def test_disconnect(alice: IntegrationsPage, house: House, snap: Snap) -> None:
    house.link("alice", "workday")
    alice.reload()
    alice.page.get_by_role("button", name="Disconnect Workday").click()
    dialog = alice.page.get_by_role("dialog", name="Disconnect Workday?")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    snap(alice.page, "disconnect")
    alice.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert len(house.accounts()) == 1
    alice.page.get_by_role("button", name="Disconnect Workday").click()
    dialog.get_by_role("button", name="Disconnect", exact=True).click()
    alice.expect_news("Workday is disconnected.")
    expect(alice.page.get_by_role("button", name="Connect Workday", exact=True)).to_be_visible()
    assert house.accounts() == []


def test_auth_link(alice: IntegrationsPage, another_context: WatchedContext, house: House, snap: Snap) -> None:
    link = house.auth_link("org_acme", "bamboohr")
    alice.page.goto(f"{house.page_url}/?session={link['id']}")
    expect(alice.page.get_by_text("Waiting for somebody to connect BambooHR")).to_be_visible()
    snap(alice.page, "auth-link-waiting")
    landing = IntegrationsPage(another_context.context.new_page(), house)
    landing.page.goto(link["auth_link_url"])
    landing.fill_bamboohr()
    snap(landing.page, "auth-link-landing")
    # The footer's links would have Chromium look up where they lead.
    expect(landing.page.get_by_role("link")).to_have_count(0)
    landing.submit()
    expect(landing.page.get_by_text("Connection Successful")).to_be_visible()
    house.until(lambda: house.session_status("org_acme", link["id"])["status"] == "linked")
    expect(alice.page.get_by_text("The link was used: BambooHR is connected.")).to_be_visible()
    alice.expect_account("BambooHR", "Connected")
    another_context.forgive_probes_of("/embedded/webcomponent.js")
