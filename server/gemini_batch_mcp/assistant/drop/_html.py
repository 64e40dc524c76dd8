"""What the drop page shows: a form without a script, and links. All that is not ours is escaped."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Final
from urllib.parse import quote

from gemini_batch_mcp.assistant.drop._receiving import MAX_FILES, Received
from gemini_batch_mcp.text import plain_text

_UNITS: Final = ("bytes", "KB", "MB", "GB", "TB")
_SHOWN_NAMES: Final = 20


@dataclass(frozen=True, slots=True)
class Offer:
    """What one page is there for. `address` is its path, `closes_at` the time as people read it.

    `directory` is where files go, empty where none are taken; `saved` are numbers, names and sizes in bytes of files to
    take away, `wanted` the names that an assistant asked for.
    """

    address: str
    closes_at: str
    directory: str
    room_bytes: int
    wanted: Sequence[str]
    saved: Sequence[tuple[int, str, int]]


def offering(offer: Offer) -> str:
    """Return the page with its form and its links."""
    parts = ["<h1>Hand over files</h1>" if offer.directory else "<h1>Saved results</h1>"]
    if offer.directory:
        parts.append(
            "<p>A program on your computer cannot open files that are only in a chat. What you choose here is copied "
            "to a folder on this computer, where your assistant can use it.</p>"
        )
        parts.append(_form(offer))
    if offer.saved:
        parts.append(_links(offer, has_title=bool(offer.directory)))
    once = " or when files have been handed over" if offer.directory else ""
    parts.append(f'<p class="soft">This page closes at {escape(offer.closes_at)}{once}.</p>')
    return _page("Hand over files" if offer.directory else "Saved results", parts)


def handed_over(received: Sequence[Received]) -> str:
    """Return the page that says where the files are."""
    what = "One file was" if len(received) == 1 else f"{len(received):,} files were"
    paths = "".join(
        f"<li><code>{_shown(str(one.path), 2000)}</code> ({_size(one.size_bytes)})</li>" for one in received
    )
    return _page(
        "Handed over",
        (
            '<h1 tabindex="-1" autofocus>Handed over</h1>',
            f'<section role="status"><p>{what} saved. Tell your assistant to continue.</p><ul>{paths}</ul></section>',
            '<p class="soft">This page is closed now; you can leave it.</p>',
        ),
    )


def refused(message: str, address: str) -> str:
    """Return the page that says why nothing was taken; with a link back where the page is still open."""
    back = f'<p><a href="{escape(address)}">Back to the page</a></p>' if address else ""
    said = f'<section class="wrong" role="alert"><p>{_shown(message, 500)}</p></section>'
    return _page("Nothing was saved", ("<h1>Nothing was saved</h1>", said, back))


def policy() -> str:
    """Return the Content-Security-Policy: no script, nothing loaded, the one style, forms to this page only."""
    style = base64.b64encode(sha256(_part("page.css").encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def _form(offer: Offer) -> str:
    wanted = [f"<li>{_shown(name, 120)}</li>" for name in offer.wanted[:_SHOWN_NAMES]]
    if len(offer.wanted) > _SHOWN_NAMES:
        wanted.append(f"<li>and {len(offer.wanted) - _SHOWN_NAMES:,} more</li>")
    asked = (
        f'<p id="wanted">Your assistant asks for:</p><ul aria-labelledby="wanted">{"".join(wanted)}</ul>'
        if wanted
        else ""
    )
    return (
        f'<section><form method="post" action="{escape(offer.address)}" enctype="multipart/form-data">{asked}'
        '<label for="files">Files to hand over</label>'
        '<input id="files" name="files" type="file" multiple required autofocus aria-describedby="rules">'
        f'<p id="rules" class="soft">Choose them, or drop them on the field: up to {MAX_FILES:,} at once, '
        f"{_size(offer.room_bytes)} in all. They are copied to {_shown(offer.directory, 500)}; no file there is "
        "replaced.</p>"
        '<button type="submit">Hand over</button></form></section>'
    )


def _links(offer: Offer, *, has_title: bool) -> str:
    links = "".join(
        f'<li><a href="{escape(f"{offer.address}/{number}/{quote(name)}")}" download>{_shown(name, 200)}</a> '
        f"({_size(size_bytes)})</li>"
        for number, name, size_bytes in offer.saved
    )
    title = '<h2 id="saved">Saved results</h2>' if has_title else ""
    label = ' aria-labelledby="saved"' if has_title else ""
    return f"<section>{title}<ul{label}>{links}</ul></section>"


def _page(title: str, parts: Sequence[str]) -> str:
    document = Template(_part("page.html"))
    return document.substitute(title=escape(title), style=_part("page.css"), body="\n".join(parts))


@cache
def _part(name: str) -> str:
    return files("gemini_batch_mcp.assistant.drop").joinpath(name).read_text(encoding="utf-8")


def _shown(text: str, limit: int) -> str:
    return escape(plain_text(text, limit))


def _size(size_bytes: int) -> str:
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:,.0f} {_UNITS[unit]}" if unit < 2 else f"{size:,.1f} {_UNITS[unit]}"
