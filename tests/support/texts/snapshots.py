"""Texts kept whole in files beside their tests: what differs from run to run is masked, the rest compared."""

import difflib
import os
import re
from pathlib import Path
from typing import Final

#: What differs from run to run.
_MASKS: Final = (
    (r"\b(reviews|once-more)-[a-z0-9]{6}\b", r"\1-abc123"),
    (r"batches/[A-Za-z0-9_-]{8,}", "batches/job"),
    (r"files/[A-Za-z0-9_-]{8,}", "files/input"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "<time>"),
    (r"\d\d:\d\d:\d\d UTC", "<time>"),
    (r"\d+ s old|ran \d+ s", "<age>"),
    (r"cursor='[^']+'", "cursor='<cursor>'"),
    (r"\(Order [0-9a-f]{8}\.\)", "(Order <number>.)"),
)


def masked(text: str, data: Path) -> str:
    """Return a text without what differs from run to run: `data`, ids, times, ages."""
    text = text.replace(str(data), "<data>")
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return text


def compare(path: Path, said: str) -> None:
    """Fail where the file at `path` holds something else, or is missing; `make snapshots` writes it anew."""
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(said, encoding="utf-8")
    assert path.exists(), f"{path.name} is missing: run make snapshots, read it, and commit it."
    kept = path.read_text(encoding="utf-8")
    difference = "\n".join(difflib.unified_diff(kept.split("\n"), said.split("\n"), "kept", "said", lineterm=""))
    assert not difference, f"{difference}\nIf this is meant: make snapshots"
