"""The few plain pages that the sandbox serves."""

from html import escape

_STYLE = """
*{box-sizing:border-box}
body{margin:0;padding:clamp(1rem,6vh,4rem) 1rem;background:#f5f6f3;color:#1b2526;font:1rem/1.5 system-ui,sans-serif}
main{max-width:44rem;margin:0 auto;padding:clamp(1.25rem,4vw,2.25rem);border-radius:1rem;background:#fff;
box-shadow:0 1px 2px #0002,0 8px 24px #0001}
h1{margin:0 0 .5rem;font-size:1.6rem;line-height:1.2}
p{margin:.25rem 0 1.25rem;color:#566264}
p b{color:#1b2526}
form{display:flex;flex-wrap:wrap;gap:.75rem}
button{min-width:8rem;min-height:2.75rem;padding:.5rem 1.25rem;border:1px solid #7b8687;border-radius:.6rem;
background:#fff;color:inherit;font:inherit;font-weight:600;cursor:pointer}
button.primary{border-color:transparent;background:#1f5f5b;color:#fff}
:focus-visible{outline:3px solid #1f5f5b;outline-offset:2px}
""".replace("\n", "")


def html_page(title: str, body: str, *, head: str = "") -> str:
    """Return a page; `title` is escaped, `body` and `head` are markup already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>{head}</head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
