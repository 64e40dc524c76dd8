"""What a batch's directory says about the batch, so that it can be taken back into a ledger that has lost it."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._tables import attachments, batches, jobs
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.errors import StorageError

logger = logging.getLogger(__name__)

#: A batch as the rows of each table that are about it, by column, with the values as the database has them.
Card = Mapping[str, list[dict[str, Any]]]

#: The tables of a card, and their column that names the batch.
_CARDED: Final = ((batches, "id"), (jobs, "batch_id"), (attachments, "batch_id"))
#: What a file of any content may do to a reader that expects a card.
_UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
#: The card's name in the batch's directory.
CARD: Final = "batch.json"
_DRAFT: Final = f"{CARD}.part"
#: A draft of a card that is older than this is nobody's any more.
_INTERRUPTED_SECONDS: Final = 60.0


def write_card(ledger: Ledger, directory: Path, batch_id: str) -> None:
    """Bring a batch's card up to date with the ledger. One that cannot be written is left as it is."""
    card = _card(ledger, batch_id)
    try:
        text = json.dumps(card, indent=1).encode()
    except TypeError:
        # The ledger is damaged here: it holds bytes. What the card said before is worth more.
        return
    if card is None:
        return
    path = directory / CARD
    with contextlib.suppress(OSError):
        if path.is_file() and path.read_bytes() == text:
            return
        draft = path.with_name(_DRAFT)
        draft.write_bytes(text)
        draft.replace(path)


def lost_batches(ledger: Ledger, directories: Path) -> tuple[str, ...]:
    """Return the batches whose directories have a card and which the ledger does not know."""
    carded = _carded(directories)
    known = set(ledger.batch_ids(limit=-1)) if carded else set()
    # Looked at again: a batch that was deleted meanwhile lost its card first.
    return tuple(batch_id for batch_id in carded if batch_id not in known and (directories / batch_id / CARD).is_file())


def refuse_lost(ledger: Ledger, directories: Path) -> None:
    """Refuse to order anything while the ledger lacks batches that are beside it: one of them may stand for the order.

    Raises:
        StorageError: it does.
    """
    if lost := lost_batches(ledger, directories):
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise StorageError(
            f"The ledger in {directories.parent} (GEMINI_BATCH_HOME) has no entry for {', '.join(lost[:3])}{more}, "
            "whose directories are beside it: it was emptied or replaced while this process was running. Nothing was "
            "sent.",
            "Restart this server: it restores them from their directories; gemini-batch-mcp doctor lists them.",
        )


def take_back(ledger: Ledger, directories: Path) -> tuple[str, ...]:
    """Take lost batches back into the ledger, and give a card to those that lack one or its last change.

    Returns the lost ones.
    """
    taken = []
    for batch_id in lost_batches(ledger, directories):
        directory = directories / batch_id
        try:
            card: Card = json.loads((directory / CARD).read_bytes())
            renamed = _write_down(ledger, card)
        except (*_UNREADABLE, OSError, StorageError) as error:
            # Set aside: while it lies there, no order is taken, as the batch might be that order.
            with contextlib.suppress(OSError):
                (directory / CARD).rename(directory / f"{CARD}.damaged")
            logger.warning(
                "%s is not in the ledger and cannot be restored from its directory (%s): its %s was renamed to "
                "%s.damaged. Submitting the same order again may be charged again.",
                *(batch_id, type(error).__name__, CARD, CARD),
            )
            continue
        for before, now in renamed.items():
            for name in ("answers", "calls"):
                with contextlib.suppress(OSError):
                    (directory / f"{name}-{before}.jsonl").rename(directory / f"{name}-{now}.jsonl")
        taken.append(batch_id)
        logger.warning("%s was not in the ledger and was restored from its directory.", batch_id)
    for batch_id in ledger.batch_ids(limit=-1):
        directory = directories / batch_id
        if directory.is_dir() and (not (directory / CARD).exists() or _was_interrupted(directory)):
            write_card(ledger, directory, batch_id)
    return tuple(taken)


def _was_interrupted(directory: Path) -> bool:
    """True when a process was killed while it wrote a card, the draft of which is gone by this, whatever comes next."""
    draft = directory / _DRAFT
    with contextlib.suppress(OSError):
        if time.time() - draft.stat().st_mtime > _INTERRUPTED_SECONDS:
            draft.unlink()
            return True
    return False


def _carded(directories: Path) -> Sequence[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directories) if not entry.name.startswith("."))
    except OSError:
        return ()


def _card(ledger: Ledger, batch_id: str) -> Card | None:
    """Return all that is written here about a batch but the files saved for the user; None when there is none."""
    with ledger.database.transaction() as connection:
        found = {
            table.name: [
                dict(row)
                for row in connection.exec_driver_sql(
                    f"SELECT * FROM {table.name} WHERE {column} = ?",  # noqa: S608 - our own names
                    (batch_id,),
                ).mappings()
            ]
            for table, column in _CARDED
        }
    return found if found["batches"] else None


def _write_down(ledger: Ledger, card: Card) -> Mapping[int, int]:
    """Write down a batch that this ledger does not know; returns the ids of jobs that had to be changed.

    A job that was taken for one made elsewhere meanwhile is this batch's again.

    Raises:
        StorageError: the card contradicts what is written here.
    """
    renamed: dict[int, int] = {}
    with ledger.database.transaction("take_back") as connection:
        for row in card["jobs"]:
            elsewhere = sa.select(jobs.c.batch_id).where(jobs.c.name == row["name"])
            stranger = sa.select(batches.c.id).where(batches.c.id.in_(elsewhere), batches.c.is_ours.is_(False))
            for batch_id in connection.execute(stranger).scalars().all():
                connection.execute(jobs.delete().where(jobs.c.batch_id == batch_id))
                connection.execute(batches.delete().where(batches.c.id == batch_id))
        for table, _ in _CARDED:
            columns = {str(row[1]) for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
            for row in card.get(table.name, []):
                values = {name: value for name, value in row.items() if name in columns}
                before = values.get("id")
                if table is jobs and connection.execute(sa.select(jobs.c.id).where(jobs.c.id == before)).first():
                    del values["id"]
                names, marks = ", ".join(values), ", ".join("?" * len(values))
                statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - our own names
                inserted = connection.exec_driver_sql(statement, tuple(values.values()))
                if table is jobs and "id" not in values:
                    renamed[int(row["id"])] = int(inserted.lastrowid)
    return renamed
