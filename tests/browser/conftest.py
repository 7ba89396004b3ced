"""The page in a real Chromium: a demo and a browser for each process, a fresh context for each test."""

import asyncio
import fcntl
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.house import House
from tests.browser.integrations_page import IntegrationsPage
from tests.browser.places import REPOSITORY, SCREENSHOTS, chromium_program
from tests.browser.watched_context import PATIENCE_MS, WatchedContext
from tests.e2e.demo_process import running_demo

_DEMO = REPOSITORY / "demo"
_SOURCES = ("demo/src", "demo/public", "packages/connect/src", "packages/connect/scripts")
# Tests open far more sessions than a person, and wait for nothing that only protects a production StackOne.
_BROKER_SETTINGS = (
    "--broker-env=BROKER_LIMITS__MINT_PER_USER=10000/minute",
    "--broker-env=BROKER_LIMITS__MINT_PER_OWNER=10000/minute",
    "--broker-env=BROKER_LIMITS__REQUESTS_PER_USER=100000/minute",
    "--broker-env=BROKER_LIMITS__LIVE_SESSIONS_PER_OWNER=100000",
    "--broker-env=BROKER_STACKONE__BREAKER_SECONDS=0.5",
    "--broker-env=BROKER_STACKONE__MAX_ATTEMPTS=1",
    "--broker-env=BROKER_IDENTITY__COOKIE={}",
)
_MOST_SECONDS = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the first test of each process the time to build the page and to start everything, on a busy machine too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(_MOST_SECONDS))


@pytest.fixture(scope="session")
def built_page() -> None:
    """Build the page if it is older than its sources; one process does, and the others wait for it."""
    with (_DEMO / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build_unless_fresh()


def _build_unless_fresh() -> None:
    built = _DEMO / "dist" / "index.html"
    sources = [path for folder in _SOURCES for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    sources += [_DEMO / "index.html", _DEMO / "vite.config.ts", REPOSITORY / "package-lock.json"]
    if built.is_file() and built.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return
    if shutil.which("npm") is None:
        pytest.skip("the page is not built and there is no Node.js >= 20.19 to build it")
    if not (REPOSITORY / "node_modules").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=REPOSITORY, check=True)
    subprocess.run(["npm", "run", "build", "--silent"], cwd=REPOSITORY, check=True)


@pytest.fixture(scope="session")
def demo_house(built_page: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Start broker-demo, once in each process that runs tests."""
    del built_page
    directory = tmp_path_factory.mktemp("demo")
    with House(lambda *same_ports: running_demo(directory, *_BROKER_SETTINGS, *same_ports)) as house:
        yield house


@dataclass(frozen=True)
class Chromium:
    """The browser, and the event loop that Playwright drives it with."""

    browser: Browser
    loop: asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """Start Chromium with its popup blocker on, which Playwright would turn off."""
    program = chromium_program()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=program,
            ignore_default_args=["--disable-popup-blocking"],
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)  # noqa: SLF001  see below
        yield Chromium(opened, loop)
        asyncio._set_running_loop(loop)  # noqa: SLF001
        opened.close()


@pytest.fixture(autouse=True)
def browser(chromium: Chromium) -> Iterator[Browser]:
    """Lend Chromium to a test.

    Playwright leaves its event loop marked as running in this thread, and no async test could run beside it.
    """
    asyncio._set_running_loop(chromium.loop)  # noqa: SLF001
    yield chromium.browser
    asyncio._set_running_loop(None)  # noqa: SLF001


@pytest.fixture
def house(demo_house: House) -> House:
    """Start over: no account is linked, and no external has a fault."""
    demo_house.empty()
    return demo_house


@pytest.fixture
def context(browser: Browser, house: House, request: pytest.FixtureRequest) -> Iterator[WatchedContext]:
    """Open a context that fails the test for what no page may do."""
    with ExitStack() as stack:
        yield stack.enter_context(WatchedContext(browser, house, _shots_of_failure(request)))


@pytest.fixture
def another_context(browser: Browser, house: House, request: pytest.FixtureRequest) -> Iterator[WatchedContext]:
    """Open a second person's browser."""
    with WatchedContext(browser, house, _shots_of_failure(request)) as watched:
        yield watched


@pytest.fixture
def alice(context: WatchedContext) -> IntegrationsPage:
    """Sign alice in."""
    return context.sign_in("alice")


@pytest.fixture
def snap() -> Callable[[Page, str], None]:
    """Keep a picture of a page."""

    def take(page: Page, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, animations="disabled")

    return take


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Leave the outcome where the contexts find it when they close."""
    report = yield
    item.stash.setdefault(_FAILED, set()).update({report.when} if report.failed else set())  # type: ignore[attr-defined]
    return report


_FAILED = pytest.StashKey[set[str]]()


def _shots_of_failure(request: pytest.FixtureRequest) -> Callable[[list[Page]], None]:
    def take(pages: list[Page]) -> None:
        if "call" not in request.node.stash.get(_FAILED, set()):
            return
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(pages):
            page.screenshot(path=SCREENSHOTS / f"FAILED-{request.module.__name__}-{request.node.name}-{number}.png")

    return take
