"""Where things are."""

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Kept by CI: what the page looked like, and how it looked where a test failed.
SCREENSHOTS = REPOSITORY / "test-results" / "screenshots"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_program() -> str:
    """Return where Chromium is, or skip the test."""
    found = os.environ.get("BROKER_CHROMIUM") or next(
        (path for name in _BROWSERS if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium: install it (Debian, Ubuntu: apt-get install chromium) or name one in BROKER_CHROMIUM")
    return found
