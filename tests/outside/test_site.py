"""The docs as a site: it builds without a warning, can be searched, and no link leads nowhere."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest

from tests.checks.pages import ROOT

SITE = ROOT / "build/site"
_BASE = "http://site"
_PLACES = ("href", "src")
_LOADED = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="?(https?://[^" >]*)')
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


class Page(HTMLParser):
    """What a page links to and loads, what can be linked to in it, and how many items its lists have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.items = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        found = dict(attrs)
        self.items += tag == "li"
        self.ids |= {value for name in ("id", "name") if (value := found.get(name))}
        if "canonical" not in (found.get("rel") or ""):
            self.links += [value for name in _PLACES if (value := found.get(name))]


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Build the site as `make site` does; return its pages by their address."""
    done = subprocess.run(["make", "site"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        "/" + path.relative_to(SITE).as_posix().removesuffix("index.html"): Page(path.read_text(encoding="utf-8"))
        for path in SITE.rglob("*.html")
        if path.name != "404.html"
    }


def _file(path: str) -> Path:
    return SITE / (unquote(path).lstrip("/") + ("index.html" if path.endswith("/") else ""))


def test_every_page_of_the_repository_is_there(pages: dict[str, Page]) -> None:
    names = {f"/{path.relative_to(ROOT).with_suffix('').as_posix()}/" for path in ROOT.glob("docs/**/*.md")}
    assert names | {"/", "/clients/python/", "/packages/connect/", "/CHANGELOG/"} <= set(pages)


def test_no_link_leads_nowhere_and_nothing_is_loaded_from_elsewhere(pages: dict[str, Page]) -> None:
    wrong = []
    for address, page in pages.items():
        for link in page.links:
            target = urlsplit(urljoin(_BASE + address, link))
            if target.netloc != "site":
                continue
            anchor = unquote(target.fragment)
            there = pages.get(target.path)
            if not _file(target.path).is_file() or (there and anchor and anchor not in there.ids | {"__top"}):
                wrong.append(f"{address}: {link}")
    assert wrong == []
    loaded = [text for path in SITE.rglob("*.html") for text in _LOADED.findall(path.read_text(encoding="utf-8"))]
    assert loaded == []


def test_lists_are_lists(pages: dict[str, Page]) -> None:
    for path in ROOT.glob("docs/*.md"):
        written = len(_ITEM.findall(_CODE.sub("", path.read_text(encoding="utf-8"))))
        assert pages[f"/docs/{path.stem}/"].items >= written, path.name


def test_the_search_finds_what_a_page_says(pages: dict[str, Page]) -> None:
    assert pages
    index = json.loads((SITE / "search/search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"] if "needs_reauth" in entry["text"]}
    assert {"docs/behaviour/", "docs/backend/"} <= found
