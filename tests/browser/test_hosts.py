"""The package in the pages of products: their looks, two languages, cookies, keyboard, narrow and enlarged pages."""

import base64
from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from tests.browser.host_page import COOKIE, open_host
from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.test_looks import known_of_the_hub, serious_violations
from tests.browser.watched_context import WatchedContext

Snap = Callable[[Page, str], None]

# Text of a normal size (WCAG 2.2, 1.4.3).
_READABLE = 4.5
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_CONTRASTS = """async ([picture, selector]) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + picture)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const linear = (part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  return [...document.querySelectorAll(selector)].map((shown) => {
    const { x, y, width, height } = shown.getBoundingClientRect();
    const { data } = canvas.getImageData(x + 2, y + 2, width - 4, height - 4);
    const found = [];
    for (let at = 0; at < data.length; at += 4)
      found.push(0.2126 * linear(data[at]) + 0.7152 * linear(data[at + 1]) + 0.0722 * linear(data[at + 2]));
    found.sort((one, other) => one - other);
    return [shown.textContent, (found.at(-1) + 0.05) / (found[0] + 0.05)];
  });
}"""


def _are_readable(page: Page, texts: str, *, at_least: int) -> None:
    """Compare the lightest and the darkest pixel of each element: its text and what is behind it."""
    picture = base64.b64encode(page.screenshot(animations="disabled")).decode()
    found = page.evaluate(_CONTRASTS, [picture, texts])
    assert len(found) >= at_least
    assert [(text, ratio) for text, ratio in found if ratio < _READABLE] == []


def _link_three(house: House) -> None:
    house.link("alice", "workday")
    house.link("alice", "salesforce", status="suspended", label="EMEA")
    house.link(
        "alice", "bamboohr", status="error", status_reasons=[{"code": "x", "description": "The API key was revoked"}]
    )


def _is_clean(page: Page) -> None:
    assert [found for found in serious_violations(page) if not known_of_the_hub(found)] == []


@pytest.mark.parametrize("look", ["shadcn-v3", "shadcn-v4", "vite", "next", "dark", "plain"])
def test_a_host(context: WatchedContext, house: House, snap: Snap, look: str) -> None:
    _link_three(house)
    page = open_host(context, look)
    region, panel = page.get_by_role("region"), page.locator(".scb-overlay")

    def turn(scheme: Literal["light", "dark"], shown: Locator) -> None:
        page.emulate_media(color_scheme=scheme)
        if look.startswith("shadcn"):
            # As the product's own switch does it, while the package is shown.
            page.evaluate("is => document.documentElement.classList.toggle('dark', is)", scheme == "dark")
        theme = "dark" if look == "dark" or (scheme == "dark" and look != "plain") else "light"
        expect(shown).to_have_attribute("data-scb-theme", theme)

    for scheme in _SCHEMES:
        turn(scheme, region)
        _are_readable(page, "connect-list :is(button, li p), #connect", at_least=16)
        _is_clean(page)
        snap(page, f"host-{look}-{scheme}")
    page.get_by_role("button", name="Connect BambooHR", exact=True).click()
    expect(page.get_by_role("textbox", name="Subdomain")).to_be_visible()
    for scheme in reversed(_SCHEMES):
        turn(scheme, panel)
        _are_readable(page, ".scb-panel-head > *", at_least=2)
        snap(page, f"host-{look}-{scheme}-open")
    _is_clean(page)


def test_the_hub_takes_the_vendors_theme_object(context: WatchedContext, house: House, snap: Snap) -> None:
    del house
    page = open_host(context, "plain")
    page.evaluate(
        """(hubTheme) => {
          document.querySelector("connect-list").connect.open({ provider: "bamboohr" }, { hubTheme });
        }""",
        {"colors": {"card": {"background": "rgb(255, 0, 200)"}}},
    )
    field = page.get_by_role("textbox", name="Subdomain")
    expect(field).to_be_visible()
    snap(page, "hub-theme")
    assert "rgb(255, 0, 200)" in field.evaluate(
        """(field) => {
          const found = [];
          for (let at = field; at; at = at.parentElement ?? at.getRootNode().host)
            found.push(getComputedStyle(at).backgroundColor);
          return found;
        }"""
    )


# What the modal dialogs of component libraries do to a page, as seen of Radix UI: the pointer, focus and scrolling are
# theirs, and what happens outside of them closes them.
_MODAL = """() => {
  const dialog = document.createElement("div");
  dialog.setAttribute("role", "dialog");
  dialog.setAttribute("aria-label", "The product's own");
  dialog.style.cssText = "position: fixed; inset: 10vh 10vw; z-index: 50; background: white; pointer-events: auto";
  document.body.style.pointerEvents = "none";
  dialog.append(document.querySelector("#connect"));
  document.body.append(dialog);
  const isOutside = (event) => !dialog.contains(event.target);
  const close = () => dialog.remove();
  document.addEventListener("pointerdown", (event) => isOutside(event) && close());
  document.addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && close(), true);
  document.addEventListener("wheel", (event) => isOutside(event) && event.preventDefault(), { passive: false });
  document.addEventListener("focusin", (event) => isOutside(event) && document.querySelector("#connect")?.focus());
}"""


def test_a_modal_dialog_of_the_page(context: WatchedContext, snap: Snap) -> None:
    page = open_host(context, "plain")
    page.set_viewport_size({"width": 900, "height": 420})
    page.evaluate(_MODAL)
    opener = page.get_by_role("button", name="Connect BambooHR", exact=True)
    modal = page.get_by_role("dialog", name="The product's own")
    opener.click()
    hub = page.get_by_role("dialog", name="Connect BambooHR")
    page.get_by_role("textbox", name="Subdomain").click()
    page.keyboard.type("acme")
    expect(page.get_by_role("textbox", name="Subdomain")).to_have_value("acme")
    snap(page, "modal")
    overlay = page.locator(".scb-overlay")
    page.mouse.move(450, 20)
    page.mouse.wheel(0, 200)
    page.wait_for_function("document.querySelector('.scb-overlay').scrollTop > 0")
    region = page.get_by_role("button", name="Region")
    options = page.locator("[data-dropdown-option]")
    region.click()
    options.first.click()
    expect(options).to_have_count(0)
    region.click()
    expect(options.first).to_be_visible()
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)
    expect(region).to_be_focused()
    page.keyboard.press("Escape")
    expect(overlay).to_be_visible()
    hub.get_by_role("button", name="Close").focus()
    page.keyboard.press("Escape")
    expect(hub).to_be_hidden()
    expect(modal).to_be_visible()
    expect(opener).to_be_focused()


def test_two_languages(context: WatchedContext, house: House, snap: Snap) -> None:
    house.link("alice", "workday")
    page = open_host(context, "shadcn-v4", query="?locale=de-CH")
    region = page.get_by_role("region", name="Ihre Verbindungen")
    expect(region).to_have_attribute("lang", "de")
    expect(region.get_by_text("Verbunden", exact=True)).to_be_visible()
    house.fault("POST", "/connect_sessions", status=503, times=None)
    page.get_by_role("button", name="Connect BambooHR").click()
    dialog = page.get_by_role("dialog", name="BambooHR verbinden")
    expect(dialog.get_by_role("alert")).to_contain_text("nicht möglich")
    snap(page, "german")
    dialog.get_by_role("button", name="Schließen").click()
    house.behave()
    page.get_by_role("button", name="Trennen Workday").click()
    page.get_by_role("dialog").get_by_role("button", name="Trennen").click()
    expect(page.get_by_text("Workday ist getrennt.")).to_be_visible()
    words = page.locator("body").inner_text()
    assert [word for word in ("Reconnect", "Disconnect", "Close", "Nothing") if word in words] == []


def test_cookie_mode(context: WatchedContext, house: House) -> None:
    cookie: dict[str, Any] = {
        "name": COOKIE,
        "value": house.ready["users"]["alice"]["token"],
        "domain": "127.0.0.1",
        "path": "/",
        "secure": True,
        "httpOnly": True,
        "sameSite": "Lax",
    }
    context.context.add_cookies([cookie])  # type: ignore[list-item]
    sent: list[Request] = []
    context.context.on("request", lambda request: sent.extend([request]))
    page = IntegrationsPage(open_host(context, "next", auth={"csrfHeader": "x-connect-broker"}), house)
    page.connect("BambooHR")
    page.fill_bamboohr()
    page.submit()
    expect(page.page.get_by_text("connected, just now")).to_be_visible()
    page.page.get_by_role("button", name="Disconnect BambooHR").click()
    page.page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
    expect(page.page.get_by_text("BambooHR is disconnected.")).to_be_visible()
    calls = [request for request in sent if request.url.startswith(f"{house.broker_url}/v1/")]
    assert {request.method for request in calls} == {"GET", "POST", "DELETE"}
    assert all("authorization" not in request.headers for request in calls)
    assert all(request.headers["x-connect-broker"] == "1" for request in calls)
    # The header is what a foreign page cannot send: without it, the cookie is worth nothing.
    refused = page.page.evaluate(
        """async (broker) => {
          const answer = await fetch(broker + "/v1/connect-sessions", { method: "POST", credentials: "include" });
          return [answer.status, (await answer.json()).code];
        }""",
        house.broker_url,
    )
    assert refused == [403, "csrf"]


def test_keyboard_and_focus(context: WatchedContext, house: House) -> None:
    _link_three(house)
    page = open_host(context, "shadcn-v3")
    keys = page.keyboard
    opener = page.get_by_role("button", name="Connect BambooHR", exact=True)
    keys.press("Tab")
    expect(opener).to_be_focused()
    keys.press("Enter")
    dialog = page.get_by_role("dialog", name="Connect BambooHR")
    expect(dialog.get_by_role("heading")).to_be_focused()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()

    # What is in need comes first, and its row is drawn anew while the Hub is open.
    reconnect = page.get_by_role("button", name="Reconnect BambooHR")
    keys.press("Tab")
    expect(reconnect).to_be_focused()
    keys.press("Enter")
    close = dialog.get_by_role("button", name="Close")
    expect(close).to_be_visible()
    house.link("alice", "sap_successfactors")
    page.evaluate("document.querySelector('connect-list').connect.connections.reload()")
    expect(page.locator("connect-list li")).to_have_count(4)
    close.press("Enter")
    expect(reconnect).to_be_focused()

    keys.press("Tab")
    disconnect = page.get_by_role("button", name="Disconnect BambooHR")
    expect(disconnect).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    keys.press("Enter")
    expect(disconnect).to_be_focused()
    keys.press("Enter")
    keys.press("Tab")
    expect(page.get_by_role("dialog").get_by_role("button", name="Disconnect")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_text("BambooHR is disconnected.")).to_be_visible()
    expect(page.get_by_role("region", name="Your connections")).to_be_focused()

    context.context.route(f"{house.broker_url}/v1/linked-accounts?*", lambda route: route.abort())
    page.evaluate("document.querySelector('connect-list').connect.connections.reload()")
    again = page.get_by_role("button", name="Try now")
    again.focus()
    context.context.unroute(f"{house.broker_url}/v1/linked-accounts?*")
    keys.press("Enter")
    expect(again).to_be_hidden()
    expect(page.get_by_role("region", name="Your connections")).to_be_focused()


def test_what_a_screen_reader_is_told(context: WatchedContext, house: House) -> None:
    _link_three(house)
    page = open_host(context, "plain")
    expect(page.get_by_role("main")).to_match_aria_snapshot(
        """
        - heading "Integrations" [level=1]
        - paragraph
        - button "Connect BambooHR"
        - heading "Connected" [level=2]
        - region "Your connections":
          - status
          - list:
            - listitem:
              - paragraph: BambooHR
              - paragraph: /connected .* by alice@example.com/
              - paragraph: Needs you to reconnect
              - paragraph: The API key was revoked
              - button "Reconnect BambooHR"
              - button "Disconnect BambooHR"
            - listitem:
              - paragraph: /Salesforce · EMEA|Workday/
              - paragraph
              - paragraph: /Suspended|Connected/
              - button /Reconnect/
              - button /Disconnect/
            - listitem:
              - paragraph: /Salesforce · EMEA|Workday/
              - paragraph
              - paragraph: /Suspended|Connected/
              - button /Reconnect/
              - button /Disconnect/
        """
    )
    page.get_by_role("button", name="Disconnect BambooHR").click()
    expect(page.get_by_role("dialog")).to_match_aria_snapshot(
        """
        - dialog "Disconnect BambooHR?":
          - paragraph: Disconnect BambooHR?
          - paragraph: /Nothing more is read/
          - alert
          - button "Keep it"
          - button "Disconnect"
        """
    )


_SIZES = """() => [...document.querySelectorAll("button, a[href], select, input")]
  .filter((shown) => shown.checkVisibility() && !shown.closest(".skip") && !shown.disabled)
  .map((shown) => ({ name: shown.ariaLabel ?? shown.textContent.trim(), box: shown.getBoundingClientRect() }))
  .filter(({ box }) => box.width < 44 || box.height < 44)
  .map(({ name, box }) => [name, box.width, box.height])"""
_ZOOMS: dict[str, dict[str, Any]] = {
    "320 px": {"viewport": {"width": 320, "height": 640}},
    # What a browser does at 200 % on a screen of 1280 by 900.
    "200 %": {"viewport": {"width": 640, "height": 450}, "device_scale_factor": 2},
}


@pytest.mark.parametrize("size", _ZOOMS)
def test_narrow_and_enlarged(browser: Browser, house: House, snap: Snap, size: str) -> None:
    _link_three(house)
    name = size.split(maxsplit=1)[0]

    def fits(page: Page, what: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{what} scrolls sideways"
        assert page.evaluate(_SIZES) == [], what
        snap(page, f"{what}-{name}")

    with WatchedContext(browser, house, lambda _pages: None, **_ZOOMS[size]) as context:
        page = open_host(context, "shadcn-v4")
        expect(page.get_by_role("listitem")).to_have_count(3)
        fits(page, "host-list")
        page.get_by_role("button", name="Disconnect BambooHR").click()
        fits(page, "host-dialog")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Connect BambooHR", exact=True).click()
        expect(page.get_by_role("textbox", name="Subdomain")).to_be_visible()
        fits(page, "host-hub")
        demo = context.sign_in("alice")
        fits(demo.page, "demo-list")
        demo.page.get_by_role("button", name="Invite a colleague").click()
        fits(demo.page, "demo-invite")
        demo.page.keyboard.press("Escape")
        demo.connect("SAP SuccessFactors")
        expect(demo.field("Company id")).to_be_visible()
        fits(demo.page, "demo-hub")
        if size == "200 %":
            # Text alone at twice its size as well.
            demo.page.get_by_role("button", name="All integrations").click()
            demo.page.evaluate("document.documentElement.style.fontSize = '200%'")
            fits(demo.page, "demo-text")
