"""Where things are."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Kept by CI: what the page looked like, and how it looked where a test failed.
SCREENSHOTS = REPOSITORY / "test-results" / "screenshots"
