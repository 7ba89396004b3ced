"""The cookie of browser routes, and the two checks that keep other sites from using it (CSRF).

RFC 10017 section 6.1.3.3 and OWASP: a static custom header, which another origin can only send after a CORS preflight
that we do not grant it, and Sec-Fetch-Site, by which the browser says where the request comes from. Either alone would
do in today's browsers; with both, a mistake in one of them (a CORS list too wide, an old browser) is still caught.

Every method is checked, GET included. A GET answers with an owner's accounts, which a hostile page must not be able to
time, count or embed either, and "GET is harmless" is the first thing that stops being true as routes are added. The
price: a browser too old for Sec-Fetch-Site (Safari before 16.4) sends no Origin with a same-origin GET and is refused;
there the page sends the token itself, as a Bearer.
"""

from collections.abc import Collection, Iterator, Sequence

from app.errors import AppError
from app.identity.refusal import Refused


class CsrfRefused(AppError):
    """The cookie came with a request that another site may have made."""

    status = 403
    code = "csrf"
    title = "The request does not prove that it comes from the application's own page"


def find_cookie(headers: Sequence[str], name: str) -> str | None:
    """Return the value of a cookie, or None. Raises Refused if there are several of that name.

    Two of one name cannot both be ours: one was planted (a `__Host-` cookie has one path and no domain), and which of
    the two counts must not be up to the order in which they were sent.
    """
    values = [value for found, value in _pairs(headers) if found == name]
    if len(values) > 1:
        reason = "several cookies of our name"
        raise Refused(reason)
    return values[0] if values else None


def _pairs(headers: Sequence[str]) -> Iterator[tuple[str, str]]:
    for header in headers:
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            # Blanks and tabs only: str.strip() also takes U+2000 and the like, and a cookie named "\u2000__Host-..."
            # is one that any subdomain may plant.
            yield name.strip(" \t"), value.strip(" \t")


def check_same_site(
    *, csrf_header: str | None, sec_fetch_site: str | None, origin: str | None, allowed_origins: Collection[str]
) -> None:
    """Check that a request with the cookie was made by a page of ours. Raises CsrfRefused."""
    if not csrf_header:
        message = "the custom header is missing"
        raise CsrfRefused(message)
    # "null" is what sandboxed frames, redirects and local files send: anybody can be null.
    if origin == "null" or not _from_our_page(sec_fetch_site, origin, allowed_origins):
        message = "the request comes from another site"
        raise CsrfRefused(message)


def _from_our_page(sec_fetch_site: str | None, origin: str | None, allowed_origins: Collection[str]) -> bool:
    if sec_fetch_site == "same-origin":
        return True
    # A sibling subdomain is "same-site", whoever runs it, so it must be listed. "cross-site" never is, listed or not:
    # a cookie that is sent across sites has lost the protection it was chosen for. "none" is an address typed by hand.
    return sec_fetch_site in {"same-site", None} and origin in allowed_origins
