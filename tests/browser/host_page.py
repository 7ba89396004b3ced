"""A product's page around the package, in another product's look; no framework, no bundler, no policy."""

import json
from collections.abc import Mapping
from mimetypes import guess_type

from playwright.sync_api import Page, Route

from tests.browser.places import REPOSITORY
from tests.browser.watched_context import WatchedContext

_FILES = REPOSITORY / "tests" / "browser" / "hosts"
_PACKAGE = REPOSITORY / "packages" / "connect" / "dist"

COOKIE = "__Host-connect-broker"


def open_host(context: WatchedContext, look: str, *, query: str = "", auth: Mapping[str, str] | None = None) -> Page:
    """Open the page in one look, as alice, and wait for its list; `auth` is what the cookie mode takes."""
    house = context.house
    bearer = f"{{ bearer: () => {json.dumps(house.ready['users']['alice']['token'])} }}"
    product = "\n".join(
        (
            f"export const brokerUrl = {json.dumps(house.broker_url)};",
            f"export const stackone = {json.dumps({'baseUrl': house.stackone_url, 'appUrl': house.stackone_url})};",
            f"export const auth = {json.dumps({'cookie': auth}) if auth else bearer};",
        )
    )

    def serve(route: Route) -> None:
        name = route.request.url.partition("/host/")[2].partition("?")[0]
        if name == "product.js":
            route.fulfill(body=product, content_type="text/javascript")
            return
        if name == "":
            route.fulfill(
                body=(_FILES / "page.html").read_text().replace("HOST.css", f"{look}.css"), content_type="text/html"
            )
            return
        if name == "connect/vendor/webcomponent.js":
            # 1.2 MB: the demo has the same file, and need not be told it by the test.
            route.fulfill(status=302, headers={"location": f"{house.page_url}/hub/webcomponent.js"})
            return
        folder = _PACKAGE if name.startswith("connect/") else _FILES
        path = folder / name.removeprefix("connect/")
        route.fulfill(body=path.read_bytes(), content_type=guess_type(path.name)[0] or "text/plain")

    context.context.route(f"{house.page_url}/host/**", serve)
    # Chromium does not know from where a page comes that no server sent, and asks before it lets it call this machine.
    context.context.grant_permissions(["local-network-access"])
    page = context.open(f"/host/{query}")
    page.wait_for_function("document.querySelector('connect-list')?.connect?.connections.state.accounts")
    return page
