"""`make dev`: the demo on Vite's own server, where an edit shows without a build."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, expect, sync_playwright

from sandbox.serving import reserved
from tests.browser.places import REPOSITORY, chromium_program

_STOP_SECONDS = 40


@pytest.fixture
def page_url(tmp_path: Path) -> Iterator[str]:
    """Start it on free ports."""
    if not (REPOSITORY / "node_modules").is_dir() or shutil.which("node") is None:
        pytest.skip("the npm packages are not installed: run npm ci (Node >= 20.19)")
    subprocess.run(["npm", "run", "build", "--silent", "-w", "packages/connect"], cwd=REPOSITORY, check=True)
    with reserved(0) as port:
        pass
    demo = str(Path(sys.executable).with_name("broker-demo"))
    command = ["node", "demo/dev.mjs", demo, "--free-ports", f"--dir={tmp_path / 'state'}"]
    running = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "PORT": str(port)}, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    try:
        assert "ready\n" in iter(running.stdout.readline, "")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(_STOP_SECONDS)
        running.stdout.close()


@pytest.mark.timeout(600)
def test_an_edit_of_page_or_package_shows_by_itself(page_url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(page_url)
        page.get_by_role("button", name="Continue as Alice").click()
        expect(page.get_by_text("Nothing is connected yet")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Connect BambooHR").click()
        expect(page.get_by_role("textbox", name="Subdomain")).to_be_visible(timeout=60_000)

        def says(message: ConsoleMessage) -> bool:
            return "[vite]" in message.text and ("updated" in message.text or "connecting" in message.text)

        for source in ("demo/src/AccountRow.tsx", "packages/connect/src/styles.css"):
            with page.expect_console_message(says):
                # The same text, saved anew.
                (REPOSITORY / source).touch()
        assert urlsplit(page.url).port == urlsplit(page_url).port
        browser.close()
