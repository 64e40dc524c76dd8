"""The name of a file that is still to be uploaded, inside a preview's requests: it tells the estimate what it holds."""

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"files/not-uploaded-yet-[0-9a-f]{12}(?:-(\d{1,6})-pages)?-(\d{1,12})-bytes$")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a file without its content. `pages` is 0 for what is no PDF, or hides them."""

    size_bytes: int
    pages: int


def placeholder(sha256: str, known: Known) -> str:
    """Return a name in the place of `files/…`, which leads nowhere."""
    pages = f"-{known.pages}-pages" if known.pages else ""
    return f"files/not-uploaded-yet-{sha256[:12]}{pages}-{known.size_bytes}-bytes"


def known_of(uri: str) -> Known | None:
    """Return what a placeholder tells, None for every other URI."""
    found = _NAME.search(uri)
    return Known(size_bytes=int(found[2]), pages=int(found[1] or 0)) if found else None
