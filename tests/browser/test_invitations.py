"""Links of invitations: whoever opens one, only the right person gets the Hub, and comes back to where they belong."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.house import House
from tests.browser.integrations_page import GOOD_KEY, IntegrationsPage
from tests.browser.test_reconnecting import BROKEN
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]


def _opened(context: WatchedContext, link: str) -> IntegrationsPage:
    """Open a link, as from a mail, and expect its code to be in no address any more."""
    page = context.open(link)
    expect(page).to_have_url(f"{context.house.page_url}/")
    return IntegrationsPage(page, context.house)


def test_a_mails_link(context: WatchedContext, house: House, snap: Snap) -> None:
    back = f"{house.page_url}/?back"
    link = house.invite("alice", provider="bamboohr", return_url=back, **{"for": "alice@acme.example"})
    page = _opened(context, link)
    expect(page.page.get_by_text("You were invited to connect a tool. Sign in to go on.")).to_be_visible()
    snap(page.page, "invited-signed-out")
    for wrong in ("bob", "carol"):
        page.choose(wrong)
        expect(page.page.get_by_role("alert")).to_contain_text("This invitation is for somebody else")
        if wrong == "bob":
            snap(page.page, "invited-wrong-user")
        page.page.get_by_role("button", name="Sign in as somebody else").click()
        expect(page.page.get_by_role("heading", name="Who are you today?")).to_be_focused()
    page.choose("alice")
    expect(page.page.get_by_role("heading", name="Connect BambooHR", exact=True)).to_be_visible()
    page.fill_bamboohr()
    # A reload in the middle opens it anew: the code waits in this tab, and no token does.
    page.page.reload()
    page.fill_bamboohr()
    snap(page.page, "invited")
    page.submit()
    expect(page.page).to_have_url(back)
    page.expect_account("BambooHR", "Connected")
    assert [account["origin_username"] for account in house.accounts()] == ["alice@acme.example"]

    again = IntegrationsPage(context.context.new_page(), house)
    again.page.goto(house.page_url + link)
    again.choose("alice")
    expect(again.page.get_by_role("alert")).to_contain_text("Done already")
    snap(again.page, "invited-done-already")
    again.page.get_by_role("button", name="Go on").click()
    again.expect_account("BambooHR", "Connected")
    again.reload()
    again.expect_account("BambooHR", "Connected")


def test_a_link_that_was_taken_back(context: WatchedContext, house: House) -> None:
    link = house.invite("alice")
    house.end_invitations("alice")
    page = _opened(context, link)
    page.choose("alice")
    expect(page.page.get_by_role("alert")).to_contain_text("This invitation is no longer valid")
    page.page.get_by_role("button", name="Go on").click()
    page.expect_list()


def test_a_colleague_is_invited(
    alice: IntegrationsPage, another_context: WatchedContext, house: House, snap: Snap
) -> None:
    carol = another_context.sign_in("carol")
    opener = alice.page.get_by_role("button", name="Invite a colleague")
    opener.click()
    dialog = alice.page.get_by_role("dialog", name="Invite a colleague")
    dialog.get_by_label("What").select_option("BambooHR")
    dialog.get_by_role("button", name="Make a link").click()
    shown = dialog.get_by_role("textbox", name="Link")
    expect(shown).to_be_focused()
    snap(alice.page, "invite")
    link = shown.input_value()
    dialog.get_by_role("button", name="Done").click()
    expect(opener).to_be_focused()
    # Into the address of a page that is open already: nothing is loaded, the fragment alone tells.
    carol.page.evaluate("link => { location.href = link; }", link)
    carol.fill_bamboohr()
    carol.submit()
    carol.expect_news("BambooHR is connected.")
    expect(carol.page.get_by_role("heading", name="Integrations", exact=True)).to_be_focused()
    alice.reload()
    alice.expect_account("BambooHR", "Connected")
    assert [account["origin_username"] for account in house.accounts()] == ["carol@acme.example"]


def test_the_banners_reconnect(
    alice: IntegrationsPage, another_context: WatchedContext, house: House, snap: Snap
) -> None:
    working = {"setup_information": BROKEN["setup_information"], "secrets": BROKEN["secrets"]}
    account_id = house.link(**working, origin_username="alice@acme.example")
    house.switch("PATCH", f"/accounts/{account_id}", {name: BROKEN[name] for name in ("status", "status_reasons")})
    carol = another_context.sign_in("carol")
    carol.expect_account("BambooHR", "Needs you to reconnect")
    alice.reload()
    banner = alice.page.get_by_role("link", name="Repair BambooHR")
    expect(banner).to_be_visible()
    expect(carol.page.get_by_role("link", name="Repair BambooHR")).to_be_hidden()
    snap(alice.page, "banner")
    banner.click()
    expect(alice.field("Subdomain")).to_have_value("acme")
    alice.page.get_by_role("button", name="Edit").click()
    alice.field("API key").fill(GOOD_KEY)
    alice.submit()
    alice.expect_news("BambooHR is connected.")
    expect(banner).to_be_hidden()
    assert [(account["id"], account["status"]) for account in house.accounts()] == [(account_id, "active")]
