"""The samples of docs/frontend.md, each a real app: its code as the page has it, the packed package, and a browser.

Everything else of an app (its page, its build) stands in tests/outside/samples: what a framework's own template has.
"""

import json
import os
import pwd
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from sandbox.serving import reserved
from tests.browser.places import REPOSITORY, SCREENSHOTS, chromium_program
from tests.e2e.demo_process import Demo, running_demo
from tests.neighbours.conftest import program

pytestmark = pytest.mark.timeout(1200)

HERE = Path(__file__).with_name("samples")
PACKAGE = REPOSITORY / "packages" / "connect"
_BLOCK = re.compile(r"^```\w+ (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NGINX = """
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  types {{ text/html html; text/css css; text/javascript js; }}
  upstream connect_broker {{ server {broker}; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ root {folder}/cookie; }}
    location /connect/ {{ root {folder}; }}
    location ~ ^/(login|connect-cookie)$ {{ proxy_pass http://127.0.0.1:{product}; }}
    {broker_below_a_path}
  }}
}}
"""
# Lines of one's own, by block, that a working button may cost.
MOST_LINES = {"react": 12, "vue": 15, "svelte": 15, "plain": 10}
_PATIENCE = 60
# What stands around the recipes for `bearer`: the clients of others, by the types of their own packages.
_SIGN_INS = """
import type { Auth0Client } from "@auth0/auth0-spa-js";
import type { Clerk } from "@clerk/types";
import { isAuthRetryableFetchError, type SupabaseClient } from "@supabase/supabase-js";
import { createConnect } from "@connect-broker/connect";
declare const auth0: Auth0Client;
declare const clerk: Clerk;
declare const supabase: SupabaseClient;
export const connects = () =>
  [withAuth0, withClerk, withSupabase, withARouteOfYours].map((bearer) =>
    createConnect({ brokerUrl: "/broker", auth: { bearer } }),
  );
"""


def blocks() -> Mapping[str, str]:
    """Read the page's named blocks."""
    return dict(_BLOCK.findall((REPOSITORY / "docs" / "frontend.md").read_text(encoding="utf-8")))


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a program to its end and return what it said."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NEXT_TELEMETRY_DISABLED": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    """Serve files, as any web server does."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Find a free port for the files, and one for a server of the product's own."""
    with reserved(0) as files, reserved(0) as pages:
        return files, pages


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Demo]:
    """Start the demo, whose broker accepts the samples' pages."""
    origins = json.dumps([f"http://127.0.0.1:{port}" for port in ports])
    settings = (f"BROKER_HTTP__ALLOWED_ORIGINS={origins}", "BROKER_IDENTITY__COOKIE={}")
    options = [f"--broker-env={setting}" for setting in settings]
    with running_demo(tmp_path_factory.mktemp("demo"), *options) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, demo: Demo) -> Path:
    """Fill an empty folder: the frameworks, the packed package, the page's code, and a product of one's own."""
    if shutil.which("npm") is None or not (REPOSITORY / "node_modules").is_dir():
        pytest.skip("the npm packages are not installed: run npm ci (Node >= 20.19)")
    made = tmp_path_factory.mktemp("samples")
    shutil.copytree(HERE, made, dirs_exist_ok=True)
    for place in (made, made / "react18"):
        run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], place)
    run(["npm", "pack", "--silent", "--pack-destination", str(made)], PACKAGE)
    [packed] = made.glob("connect-broker-connect-*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(made / "unpacked", filter="data")
    for place in (made, made / "react18"):
        shutil.copytree(made / "unpacked" / "package", place / "node_modules" / "@connect-broker" / "connect")

    code = blocks()
    (made / "plain").mkdir()
    for name in ("plain", "cookie"):
        (made / name / "index.html").write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>\n{code[name]}</html>\n'
        )
    (made / "cookie" / "route.mjs").write_text(code["cookieroute"])
    shutil.copytree(made / "node_modules" / "@connect-broker" / "connect" / "dist", made / "connect")
    for name in ("react", "react18"):
        (made / name / "App.tsx").write_text(code["react"])
    (made / "bearer" / "bearer.ts").write_text(_SIGN_INS + code["bearer"])
    (made / "vue" / "App.vue").write_text(code["vue"].replace("<script setup>", '<script setup lang="ts">'))
    (made / "svelte" / "App.svelte").write_text(code["svelte"].replace("<script>", '<script lang="ts">'))
    (made / "next" / "app" / "App.tsx").write_text(f'"use client";\n{code["react"]}')
    (made / "next" / "proxy.ts").write_text(code["proxy"])
    stackone = f"export const stackone = {json.dumps({'baseUrl': demo['stackone'], 'appUrl': demo['stackone']})};\n"
    product = (
        f"export const brokerUrl = {json.dumps(demo['broker'])};\n"
        f"{stackone}"
        f"const token = {json.dumps(demo['users']['alice']['token'])};\n"
        "export const auth = { accessToken: async () => token, signIn: () => location.reload() };\n"
    )
    places = ("react", "react18", "vue", "svelte", "next/app")
    for file in (*(f"{name}/product.ts" for name in places), "plain/product.js"):
        (made / file).write_text(product)
    (made / "cookie" / "product.js").write_text(f"{stackone}export const signIn = () => location.assign('/login');\n")
    return made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def nothing_connected(demo: Demo) -> Iterator[None]:
    """Take away what a sample has connected; and see that it has connected something."""
    user = {"authorization": f"Bearer {demo['users']['alice']['token']}"}
    path = f"{demo['broker']}/v1/linked-accounts"
    assert httpx2.get(path, headers=user).json()["data"] == []
    yield
    [account] = httpx2.get(path, headers=user).json()["data"]
    assert account["usable"]
    assert httpx2.delete(f"{path}/{account['account_id']}", headers=user).status_code == 204


def test_a_button_costs_few_lines() -> None:
    lines = {name: len(code.splitlines()) for name, code in blocks().items() if name in MOST_LINES}
    assert lines.keys() == MOST_LINES.keys()
    assert {name: count for name, count in lines.items() if count > MOST_LINES[name]} == {}


def test_the_recipes_fit_the_clients_of_others(folder: Path) -> None:
    run(["npx", "tsc", "--project", "bearer/tsconfig.json"], folder)


def connects(chromium: Browser, url: str, name: str, arrive: Callable[[Page], None] = lambda _page: None) -> None:
    """Connect BambooHR as a person does, see the list with its name, and take a picture of it."""
    page = chromium.new_page()
    page.set_default_timeout(_PATIENCE * 1000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    arrive(page)
    page.get_by_role("button", name="Connect BambooHR").click()
    page.get_by_role("textbox", name="Subdomain").fill("acme")
    # Whoever reloads in the middle comes back to it, where the button is the package's own.
    if name.startswith(("react", "next")):
        page.reload()
        page.get_by_role("textbox", name="Subdomain").fill("acme")
    page.get_by_role("textbox", name="API key").fill("a-good-key-4711")
    page.get_by_role("button", name="Region").click()
    page.get_by_role("button", name="Europe").click()
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_text("BambooHR", exact=True)).to_be_visible(timeout=_PATIENCE * 1000)
    expect(page.get_by_role("button", name="Disconnect BambooHR")).to_be_visible(timeout=_PATIENCE * 1000)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"sample-{name}.png")
    page.context.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("react", ["tsc", "--project", "tsconfig.json"]),
        ("react18", ["tsc", "--project", "tsconfig.json"]),
        ("vue", ["vue-tsc", "--project", "tsconfig.json"]),
        ("svelte", ["svelte-check", "--tsconfig", "tsconfig.json", "--fail-on-warnings"]),
    ],
)
@pytest.mark.usefixtures("nothing_connected")
def test_with_vite(name: str, check: list[str], folder: Path, chromium: Browser, ports: tuple[int, int]) -> None:
    # Each language's checker reads its own files only.
    shape = json.loads((folder / "tsconfig.json").read_text())
    shape["include"] = [f"{name}/*"]
    (folder / "tsconfig.json").write_text(json.dumps(shape))
    run(["npx", *check], folder)
    run(["npx", "vite", "build", "--mode", name], folder)
    with serving(folder, ports[0]):
        connects(chromium, f"http://127.0.0.1:{ports[0]}/{name}/dist/", name)


@pytest.mark.usefixtures("nothing_connected")
def test_plain(folder: Path, chromium: Browser, ports: tuple[int, int]) -> None:
    with serving(folder, ports[0]):
        connects(chromium, f"http://127.0.0.1:{ports[0]}/plain/", "plain")


@pytest.mark.usefixtures("nothing_connected")
def test_plain_in_firefox(folder: Path, ports: tuple[int, int]) -> None:
    firefox = os.environ.get("BROKER_FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
    if firefox is None:
        pytest.skip("no Firefox: install it (Debian: apt-get install firefox-esr) or name one in BROKER_FIREFOX")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    picture = str(SCREENSHOTS / "sample-firefox.png")
    with serving(folder, ports[0]):
        url = f"http://127.0.0.1:{ports[0]}/plain/"
        assert "Disconnect" in run(["node", "firefox.mjs", firefox, url, picture], folder)


@pytest.mark.usefixtures("nothing_connected")
def test_next(folder: Path, chromium: Browser, ports: tuple[int, int]) -> None:
    run(["npx", "next", "build"], folder / "next")
    command = ["node", "../node_modules/next/dist/bin/next", "start", "-p", str(ports[1]), "-H", "127.0.0.1"]
    with subprocess.Popen(command, cwd=folder / "next", stdout=subprocess.DEVNULL) as running:
        try:
            url = f"http://127.0.0.1:{ports[1]}/"
            policy = _answer_of(url).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-eval" not in policy
            connects(chromium, url, "next")
        finally:
            running.terminate()


@pytest.mark.usefixtures("nothing_connected")
def test_with_a_cookie(folder: Path, chromium: Browser, ports: tuple[int, int], demo: Demo) -> None:
    configuration = folder / "cookie" / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=folder,
            port=ports[0],
            product=ports[1],
            broker=demo["broker"].removeprefix("http://"),
            broker_below_a_path=blocks()["cookieproxy"],
        )
    )
    environment = {**os.environ, "BROKER": demo["broker"], "SERVICE_KEY": demo["service_key"]}
    url = f"http://127.0.0.1:{ports[0]}/"
    sent: list[Request] = []

    def sign_in(page: Page) -> None:
        page.context.on("request", lambda request: sent.extend([request]))
        expect(page.get_by_role("alert")).to_contain_text("You have been signed out")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Nothing is connected yet")).to_be_visible()
        # The cookie runs out: the page has the backend set another.
        page.context.clear_cookies(name="__Host-connect-broker")
        with page.expect_request_finished(lambda request: request.url == f"{url}connect-cookie"):
            page.evaluate("document.querySelector('connect-list').connect.connections.reload()")
        assert page.evaluate("document.cookie") == ""

    with ExitStack() as running:
        for command in (
            ["node", "cookie/server.mjs", str(ports[1])],
            [program("nginx"), "-p", str(folder), "-c", str(configuration)],
        ):
            started = running.enter_context(subprocess.Popen(command, cwd=folder, env=environment))
            running.callback(started.terminate)
        _answer_of(url)
        _answer_of(f"http://127.0.0.1:{ports[1]}/login")
        connects(chromium, url, "cookie", sign_in)
    calls = [request for request in sent if request.url.startswith(f"{url}broker/")]
    assert {request.method for request in calls} == {"GET", "POST"}
    assert [request.url for request in calls if "authorization" in request.headers] == []


def _answer_of(url: str) -> httpx2.Response:
    for _ in range(_PATIENCE * 5):
        try:
            return httpx2.get(url)
        except httpx2.TransportError:
            time.sleep(0.2)
    message = f"nothing answers at {url}"
    raise AssertionError(message)
