"""Checked request lines as rooms hand them to each other, with what of an order is not among them, and why."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gemini_batch_mcp.domain import JsonObject, Spared


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line or row that is wrong and was left out: its number in the source, the key that it stands under, and why."""

    line: int
    key: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was left out of a request file, and the first lines of it.

    `path` holds each as an answer line with an error, `keys_path` their keys, one JSON string a line, in order.
    """

    #: The names of both beside the request lines.
    NAME: ClassVar = "skipped.jsonl"
    KEYS_NAME: ClassVar = "skipped-keys.jsonl"

    path: Path
    keys_path: Path
    count: int
    first: tuple[SkippedLine, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestFile:
    """Checked request lines, ready to be sent: one JSON object a line, LF, UTF-8, unique keys.

    `path` holds exactly the bytes that are (or were) uploaded. `sha256` is of those bytes. `keys_path` holds one
    JSON string a line: the keys in order. `columns_path` holds the source's own columns, a row for each line, where the
    source has columns. `mended` says that `path` is a copy which differs from the user's file.
    """

    path: Path
    count: int
    size_bytes: int
    sha256: str
    keys_path: Path
    warnings: tuple[str, ...] = ()
    mended: bool = False
    columns_path: Path | None = None
    #: Wrong lines of the source that are not sent; None where there are none.
    skipped: Skipped | None = None
    #: The identity of each row's request, one a line, in order: see `digests.request_digester`. Of all rows.
    identities_path: Path | None = None
    #: The response schema that every line asks for; empty where none does, or not all for the same one.
    asked_schema: JsonObject = field(default_factory=dict[str, Any], hash=False)
    #: Rows that are not sent because their answer is known, or comes with another row; None where there are none.
    spared: Spared | None = None

    @property
    def skipped_count(self) -> int:
        """How many lines of the source are not sent."""
        return self.skipped.count if self.skipped is not None else 0

    @property
    def row_count(self) -> int:
        """How many rows it answers: those that are sent, and those that need not be."""
        return self.count + (self.spared.count if self.spared is not None else 0)
