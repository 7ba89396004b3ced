"""What makes the repository's Markdown a site: a hook of mkdocs, which runs in an environment of its own (`make site`).

Pages keep their places in the repository, so that their links to each other work in both. A page that is in no menu
fails the build.
"""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[2]
_PAGES: Final = (
    *("*.md", "docs/*.md", "docs/adr/*.md", "clients/*/README.md", "packages/*/*.md", "sandbox/*.md"),
    *("docs/images/*", "LICENSE"),
)
_NAMED_FENCE: Final = re.compile(r"^```(\w+) ([\w.]+)$")
_ITEM: Final = re.compile(r"(?:[-*]|\d+\.) ")
_LINK: Final = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^()#:\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Take the pages from where they stand, instead of one folder; what the theme brings stays."""
    of_theme = [file for file in files if file.src_dir != config["docs_dir"]]
    found = sorted({path.relative_to(ROOT).as_posix() for pattern in _PAGES for path in ROOT.glob(pattern)})
    own = [File(name, str(ROOT), config["site_dir"], use_directory_urls=config["use_directory_urls"]) for name in found]
    return Files([*of_theme, *own])


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Write what GitHub takes and this Markdown does not: blocks with names, lists without a blank line before them."""
    lines, before, in_code = list[str](), "", False
    for line in markdown.split("\n"):
        if line.startswith("```"):
            in_code = not in_code
            named = _NAMED_FENCE.match(line)
            lines.append(f'```{named[1]} title="{named[2]}"' if named else line)
        elif in_code:
            lines.append(line)
        else:
            is_first_item = _ITEM.match(line) and before and not _ITEM.match(before) and not before.startswith(" ")
            lines += ["", line] if is_first_item else [line]
        before = line
    folder = Path(page.file.src_uri).parent
    return _LINK.sub(lambda link: _placed(link, folder, files), "\n".join(lines))


def _placed(link: re.Match[str], folder: Path, files: Files) -> str:
    """Leave a link between pages; one to a folder goes to its page, and one to code is its text."""
    target = (ROOT / folder / link[2]).resolve().relative_to(ROOT).as_posix()
    if files.get_file_from_path(target) is not None:
        return link[0]
    if files.get_file_from_path(f"{target}/README.md") is not None:
        return f"[{link[1]}]({link[2].rstrip('/')}/README.md)"
    return link[1] if (ROOT / target).exists() else link[0]
