"""What makes two orders the same: their content, never a path, a time or a name."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.reader import file_sha256
from gemini_batch_mcp.intake.source import REQUEST_FILE_SUFFIXES, check_source_name
from gemini_batch_mcp.intake.sources import TABLE_SUFFIXES, SourceKind, recognise
from gemini_batch_mcp.paths import PathGuard

#: In front of every fingerprint's input, so that a later way of computing it cannot collide with this one.
_FINGERPRINT_VERSION = "order-1"
#: Parts of an order that say how rows become requests.
_TABLE_PARTS = (
    "prompt",
    "system_instruction",
    "response_schema",
    "generation_config",
    "key_column",
    "limit_rows",
)


@dataclass(frozen=True, slots=True)
class IdentifiedOrder:
    """An order whose source has been found and hashed; exactly one of path, uploaded file and `order.requests` is set.

    `content_sha256` is of the source's bytes (for an uploaded file: its name), `sha256` of the order as a whole.
    `is_table`: the source holds rows that the order's prompt turns into requests; otherwise it holds requests.
    """

    order: Order
    sha256: str
    content_sha256: str
    path: Path | None = None
    uploaded_file: str = ""
    is_table: bool = False

    @property
    def source_name(self) -> str:
        """What the requests came from, for people."""
        if self.path is not None:
            return str(self.path)
        return self.uploaded_file or f"{len(self.order.requests)} requests given in the call"


def identify(order: Order, guard: PathGuard) -> IdentifiedOrder:
    """Find the order's source and compute its fingerprint. Reads the whole source once.

    Raises:
        UsageError: not exactly one of source and requests was given, or other parts of the order do not go with it.
        PathError: the source may not be read.
    """
    if bool(order.source) == bool(order.requests):
        given = "Both source and requests were given" if order.source else "Neither source nor requests was given"
        raise UsageError(f"{given}; an order has exactly one of them.", "Give a path, or a list of requests.")
    if order.source.startswith("files/"):
        _refuse_parts(order, "A file uploaded before", _TABLE_PARTS)
        return _identified(order, order.source, uploaded_file=order.source)
    if order.requests:
        _refuse_parts(order, "A list of requests", ("prompt", "key_column", "limit_rows"))
        content = json.dumps(order.requests, sort_keys=True, separators=(",", ":"))
        return _identified(order, hashlib.sha256(content.encode()).hexdigest())
    path = guard.readable_file(order.source)
    is_table = _is_table(path, order)
    if is_table and not order.prompt:
        raise UsageError(
            f"{path.name} is a table; it takes a prompt to make requests of its rows.",
            f'On the command line: gemini-batch-mcp create-batch {path.name} --prompt "… {{{{column}}}} …". '
            "Or give a JSONL file of ready requests.",
        )
    if not is_table:
        check_source_name(path)
        _refuse_parts(order, "A file of ready requests", _TABLE_PARTS)
    return _identified(order, file_sha256(path), path=path, is_table=is_table)


def _is_table(path: Path, order: Order) -> bool:
    """Rows in JSONL are told from requests by their content; without a prompt they are reported as wrong requests."""
    if path.suffix.lower() not in REQUEST_FILE_SUFFIXES:
        return path.suffix.lower() in TABLE_SUFFIXES
    return bool(order.prompt) and recognise(path) is SourceKind.ROWS


def _refuse_parts(order: Order, what: str, names: Sequence[str]) -> None:
    given = [name for name in names if getattr(order, name)]
    if given:
        raise UsageError(
            f"{what} does not go with {', '.join(given)}: nothing there would be filled in.",
            "Leave that out, or give a table (.csv, .tsv, .json, .parquet, .txt, or .jsonl of plain rows).",
        )


def _identified(
    order: Order, content: str, *, path: Path | None = None, uploaded_file: str = "", is_table: bool = False
) -> IdentifiedOrder:
    parts = [_FINGERPRINT_VERSION, content, order.model, order.task, *(getattr(order, name) for name in _TABLE_PARTS)]
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return IdentifiedOrder(order, fingerprint, content, path=path, uploaded_file=uploaded_file, is_table=is_table)
