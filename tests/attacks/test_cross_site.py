"""Cookie mode in a real Chromium: foreign pages make the browser send requests with the cookie, and get nothing.

The cookie is SameSite=None, the worst that an application could have set, so that what is tested is the broker and not
the browser. Every page is put at its origin by the test; only the broker is on the network.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Request, Route, async_playwright

from tests.attacks.opened import asked_upstream, not_on_this_machine, open_attacked, stored
from tests.attacks.tls import Front, tls_in_front_of
from tests.support.world import World

pytestmark = pytest.mark.anyio

COOKIE = "__Host-connect-broker"
OURS = "https://app.acme.test"
EVIL = "https://evil.test"
SIBLING = "https://blog.acme.test"
MINT = "/v1/connect-sessions"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Each is a page's script; BROKER is the broker's origin, ACCOUNT an account of the person who looks at the page.
ATTACKS: Mapping[str, str] = {
    "form": "submit(MINT, 'application/x-www-form-urlencoded', {provider: 'bamboohr'})",
    "form-text": 'submit(MINT, \'text/plain\', {\'{"provider": "bamboohr", "x": "\': \'"}\'})',
    "form-multipart": "submit(MINT, 'multipart/form-data', {provider: 'bamboohr'})",
    "form-confirm": "submit(`/v1/linked-accounts/${ACCOUNT}/confirm`, 'text/plain', {})",
    "form-get": "submit('/v1/linked-accounts', 'application/x-www-form-urlencoded', {}, 'GET')",
    "fetch-text": "ask(MINT, {method: 'POST', body: '{\"provider\": \"bamboohr\"}'})",
    "fetch-no-cors": "ask(MINT, {method: 'POST', mode: 'no-cors', body: '{\"provider\": \"bamboohr\"}'})",
    "fetch-no-body": "ask(MINT, {method: 'POST'})",
    "fetch-json": "ask(MINT, {method: 'POST', body: '{}', headers: {'content-type': 'application/json'}})",
    "fetch-with-our-header": "ask(MINT, {method: 'POST', headers: {'x-connect-broker': '1'}})",
    "fetch-get": "ask('/v1/linked-accounts', {})",
    "fetch-get-no-cors": "ask('/v1/linked-accounts', {mode: 'no-cors'})",
    "fetch-delete": "ask(`/v1/linked-accounts/${ACCOUNT}`, {method: 'DELETE'})",
    "fetch-kept-alive": "ask(MINT, {method: 'POST', mode: 'no-cors', keepalive: true})",
    "beacon": "navigator.sendBeacon(BROKER + MINT, '{}')",
    "image": "embed('img', '/v1/linked-accounts')",
    "script": "embed('script', '/v1/linked-accounts')",
    "stylesheet": "embed('link', '/v1/linked-accounts')",
    "frame": "embed('iframe', '/v1/linked-accounts')",
    "window": "window.open(BROKER + '/v1/linked-accounts')",
    "navigation": "location = BROKER + '/v1/linked-accounts'",
}
_LIBRARY = """
const MINT = '/v1/connect-sessions';
const ask = (path, options) => fetch(BROKER + path, {credentials: 'include', ...options}).then(
  (answer) => answer.text(), () => 'refused');
const submit = (path, enctype, fields, method = 'POST') => {
  const form = Object.assign(document.createElement('form'), {action: BROKER + path, method, enctype});
  for (const [name, value] of Object.entries(fields)) {
    form.append(Object.assign(document.createElement('input'), {name, value}));
  }
  document.body.append(form);
  form.submit();
};
const embed = (tag, path) => {
  const element = document.createElement(tag);
  if (tag === 'link') element.rel = 'stylesheet';
  element[tag === 'link' ? 'href' : 'src'] = BROKER + path;
  document.body.append(element);
};
"""


@dataclass(frozen=True)
class Scene:
    """A broker in cookie mode behind TLS, and a person who is logged in with a linked account."""

    world: World
    context: BrowserContext
    front: Front
    account_id: str

    @property
    def broker(self) -> str:
        """Return the broker's origin."""
        return f"https://broker.acme.test:{self.front.port}"

    @asynccontextmanager
    async def somebody(self, same_site: str = "None") -> AsyncIterator[BrowserContext]:
        """Open the browser of the person who is logged in."""
        await self.context.add_cookies(
            [
                {
                    "name": COOKIE,
                    "value": self.world.token("alice"),
                    "url": self.broker,
                    "secure": True,
                    "httpOnly": True,
                    "sameSite": same_site,  # type: ignore[typeddict-item]
                }
            ]
        )
        await self.context.route(lambda url: not url.startswith(f"{self.broker}/v1"), _blank)
        try:
            yield self.context
        finally:
            for page in self.context.pages[1:]:
                await page.close()
            await self.context.unroute_all()
            await self.context.clear_cookies()

    async def page(self, context: BrowserContext, origin: str, script: str) -> Page:
        """Open a page at an origin, with the tools of an attacker at hand."""
        page = await context.new_page()
        await page.goto(f"{origin}/page")
        values = f"const BROKER = {self.broker!r}, ACCOUNT = {self.account_id!r};"
        await page.add_script_tag(content=f"{values}{_LIBRARY}window.attack = async () => {{ return {script}; }};")
        return page

    async def attack(
        self, context: BrowserContext, origin: str, script: str
    ) -> tuple[list[tuple[str, bool]], list[int]]:
        """Let a page do something; return what reached the broker, and how that answered."""
        page = await self.page(context, origin, script)
        ended = asyncio.Event()

        def note(request: Request) -> None:
            if request.url.startswith(f"{self.broker}/v1"):
                ended.set()

        # A foreign page may not read our answers, so to it, and to the browser's tools, most of them are failures.
        context.on("requestfinished", note)
        context.on("requestfailed", note)
        self.front.forget()
        try:
            await page.evaluate("void window.attack()")
            await asyncio.wait_for(ended.wait(), 10)
        finally:
            context.remove_listener("requestfinished", note)
            context.remove_listener("requestfailed", note)
        return self.front.asked, self.front.answered


async def _blank(route: Route) -> None:
    await route.fulfill(content_type="text/html", body="<!doctype html><title>page</title><body></body>")


@pytest.fixture(scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """Start Chromium; every name that ends in .test is this machine.

    With a profile in which it withholds no other site's cookies by itself, as people's browsers still do by default.
    """
    found = (path for name in _BROWSERS if (path := shutil.which(name)))
    program = os.environ.get("BROKER_CHROMIUM") or next(found, None)
    if program is None:
        not_on_this_machine("no Chromium: install it (apt-get install chromium) or name one in BROKER_CHROMIUM")
    profile = tmp_path_factory.mktemp("profile")
    (profile / "Default").mkdir()
    willing = {"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": False}}
    (profile / "Default" / "Preferences").write_text(json.dumps(willing))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            ignore_https_errors=True,
            args=[
                "--no-sandbox",
                "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                # Chromium would keep pages "of the internet" from talking to loopback, where this test has its broker.
                "--disable-features=LocalNetworkAccessChecks,PrivateNetworkAccessSendPreflights",
            ],
        )
        yield context
        await context.close()


@pytest.fixture(scope="module")
async def scene(
    attacked_url: str, chromium: BrowserContext, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """Open a world in cookie mode."""
    sections: dict[str, Any] = {"identity": {"cookie": {}}, "http": {"allowed_origins": [OURS]}}
    async with open_attacked(attacked_url, **sections) as world:
        account_id = await world.link("alice", "bamboohr")
        confirmed = await world.broker.post(f"/v1/linked-accounts/{account_id}/confirm", headers=world.as_user("alice"))
        assert confirmed.status_code == 200
        directory: Path = tmp_path_factory.mktemp("tls")
        async with tls_in_front_of(world.broker.base_url.port or 0, directory) as front:
            yield Scene(world, chromium, front, account_id)


@pytest.mark.parametrize("origin", [EVIL, SIBLING], ids=["another-site", "sibling"])
@pytest.mark.parametrize("script", ATTACKS.values(), ids=ATTACKS.keys())
async def test_a_foreign_page_gets_and_does_nothing_with_the_cookie(scene: Scene, script: str, origin: str) -> None:
    before, calls = await stored(scene.world), len(asked_upstream(scene.world))
    async with scene.somebody() as context:
        asked, answered = await scene.attack(context, origin, script)
    # It did reach the broker, with the cookie; but for the browser's own question whether it may, which has none.
    assert asked
    assert all(has_cookie for method, has_cookie in asked if method != "OPTIONS")
    assert answered == [400 if method == "OPTIONS" else 403 for method, _ in asked]
    assert await stored(scene.world) == before
    assert asked_upstream(scene.world)[calls:] == []


async def test_a_sandboxed_frame_of_our_own_page_is_nobody(scene: Scene) -> None:
    """Its origin is "null", which anybody can have."""
    frame = (
        "(() => { const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts'; frame.srcdoc ="
        " `<script>fetch('${BROKER}/v1/connect-sessions', {method: 'POST', mode: 'no-cors', credentials: 'include'})"
        "<` + `/script>`; document.body.append(frame); })()"
    )
    calls = len(asked_upstream(scene.world))
    async with scene.somebody() as context:
        page = await scene.page(context, OURS, frame)
        scene.front.forget()
        await page.evaluate("void window.attack()")
        # The frame has a process of its own, of whose first requests the browser's tools do not always hear.
        await asyncio.wait_for(scene.front.has_answered.wait(), 10)
    assert (scene.front.asked, scene.front.answered) == ([("POST", True)], [403])
    assert asked_upstream(scene.world)[calls:] == []


async def test_with_the_cookie_as_it_should_be_a_foreign_site_has_not_even_that(scene: Scene) -> None:
    async with scene.somebody(same_site="Strict") as context:
        assert await scene.attack(context, EVIL, ATTACKS["form"]) == ([("POST", False)], [401])


@pytest.mark.parametrize("same_site", ["None", "Strict"])
@pytest.mark.parametrize("where", ["listed-origin", "same-origin"])
async def test_our_own_page_mints_with_the_cookie_and_the_header(scene: Scene, where: str, same_site: str) -> None:
    origin = OURS if where == "listed-origin" else scene.broker
    script = (
        "fetch(BROKER + MINT, {method: 'POST', credentials: 'include', body: '{\"provider\": \"workday\"}',"
        " headers: {'content-type': 'application/json', 'x-connect-broker': '1'}}).then((answer) => answer.json())"
    )
    async with scene.somebody(same_site=same_site) as context:
        page = await scene.page(context, origin, script)
        session = await page.evaluate("window.attack()")
        listed = await page.evaluate(
            "fetch(BROKER + '/v1/linked-accounts', {credentials: 'include', headers: {'x-connect-broker': '1'}})"
            ".then((answer) => answer.json())"
        )
        without = await page.evaluate(
            "fetch(BROKER + MINT, {method: 'POST', credentials: 'include'}).then((a) => a.status)"
        )
    assert session["token"]
    assert [account["account_id"] for account in listed["data"]] == [scene.account_id]
    assert without == 403


async def test_no_foreign_page_may_read_an_answer_even_where_a_header_would_let_it_in(scene: Scene) -> None:
    for origin in (
        EVIL,
        SIBLING,
        "https://app.acme.test.evil.test",
        "https://evilapp.acme.test",
        "http://app.acme.test",
    ):
        answer = await scene.world.broker.get("/v1/linked-accounts", headers={"origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        preflight = await scene.world.broker.options(
            MINT,
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "x-connect-broker",
            },
        )
        assert preflight.status_code == 400
        assert "access-control-allow-origin" not in preflight.headers
