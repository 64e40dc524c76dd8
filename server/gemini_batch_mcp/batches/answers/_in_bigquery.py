"""Two sides that stay in BigQuery, laid against each other there: what comes here is counts, and a page of rows.

Rows come in the order of their keys, which is also where a page goes on.
"""

import base64
import hashlib
import json

from gemini_batch_mcp.batches.answers._pairs import (
    CELL_CHARS,
    MAX_LABELS,
    NEXT_STEP,
    TOLERANCE,
    Found,
    Sides,
    counted_of,
)
from gemini_batch_mcp.batches.app import App
from gemini_batch_mcp.batches.ledger.entries import BatchEntry
from gemini_batch_mcp.batches.remote.comparing import ask_compared, version_of
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.visible import visible_cell

#: Parts of an answer; see `statements.compared`.
_ALL_ROWS, _PAIRS, _DIFFERING = 1, 2, 3


async def compared_in_bigquery(
    app: App,
    batch: BatchEntry,
    sides: Sides,
    beside: BatchEntry | None,
    *,
    of: str,
    limit: int,
    cursor: str,
    max_pairs: int,
) -> tuple[Found, str]:
    """Return what is counted of a batch and another one, or its source, and the cursor of the next page.

    `of` stands for what is compared.

    Raises:
        UsageError: the cursor is none of ours, or its rows may have shifted since; it would read too much.
        GeminiError: BigQuery refused, or could not be asked.
    """
    versions = [await version_of(app, one) for one in (batch, beside) if one is not None]
    build = hashlib.blake2b("\n".join(versions).encode(), digest_size=4).hexdigest()
    answer = await ask_compared(
        app,
        batch,
        sides.actual,
        sides.expected,
        other=beside,
        tolerance=TOLERANCE,
        after=_key_of(cursor, of, build),
        limit=limit,
        max_pairs=max_pairs,
        max_labels=MAX_LABELS,
        cell_chars=CELL_CHARS,
    )
    ((_, total, compared, equal, *_),) = (row for row in answer if row[0] == _ALL_ROWS)
    pairs = sorted((row for row in answer if row[0] == _PAIRS), key=lambda row: (-row[1], row[5]))
    behind = sorted((row for row in answer if row[0] == _DIFFERING), key=lambda row: row[5])
    found = Found(
        counted_of([row[:5] for row in answer], int(total), int(compared), int(equal)),
        tuple((_cell(row[6]), _cell(row[7]), int(row[1])) for row in pairs),
        tuple((place, row[5], _cell(row[6]), _cell(row[7])) for place, row in enumerate(behind[:limit], 1)),
        len(behind) > limit,
    )
    return found, _cursor(of, build, found.differing[-1][1]) if found.has_more else ""


def _cursor(of: str, build: str, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([of, build, key]).encode()).decode().rstrip("=")


def _key_of(cursor: str, of: str, build: str) -> str:
    """Return the key that a page begins behind; empty for the first one. Raises UsageError."""
    if not cursor:
        return ""
    try:
        found_of, found_build, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        raise UsageError(f"{cursor[:40]!r} is not a cursor of compare_results.", NEXT_STEP) from None
    if found_of != of:
        raise UsageError(f"The cursor {cursor[:40]!r} belongs to another comparison.", NEXT_STEP)
    if found_build != build:
        raise UsageError(
            f"The answers have changed since the page that gave the cursor {cursor[:40]!r}: its rows may have shifted.",
            NEXT_STEP,
        )
    return str(key)


def _cell(text: str) -> str:
    return visible_cell(text, CELL_CHARS)
