"""Which files were written for the user, and what stands in them."""

from pathlib import Path

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._tables import batches, saved_files, values_of
from gemini_batch_mcp.batches.ledger.entries import SavedEntry
from gemini_batch_mcp.errors import UnknownBatch
from gemini_batch_mcp.paths import is_name_after


class Saves:
    """The saved files of one ledger. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._transaction = database.transaction

    def record(self, batch_id: str, path: Path | str, saved: SavedEntry) -> None:
        """Remember that `path`, or the object of that address, was written for this batch, with these bytes.

        Raises:
            UnknownBatch: it was deleted meanwhile.
        """
        with self._transaction("record_saved") as connection:
            if connection.execute(sa.select(batches.c.id).where(batches.c.id == batch_id)).first() is None:
                raise UnknownBatch(f"The batch {batch_id} was deleted meanwhile.", "Nothing was saved.")
            connection.execute(saved_files.delete().where(saved_files.c.path == str(path)))
            values = values_of(saved, saved_files)
            connection.execute(saved_files.insert().values(path=str(path), batch_id=batch_id, **values))

    def found(self, batch_id: str, path: Path | str) -> SavedEntry | None:
        """Return what was written to `path` for this batch, None when nothing was."""
        with self._transaction() as connection:
            names = ("digest", "wish", "row_count", "notes")
            query = sa.select(*(saved_files.c[name] for name in names)).where(
                saved_files.c.path == str(path), saved_files.c.batch_id == batch_id
            )
            row = connection.execute(query).first()
        return SavedEntry(row[0], row[1], row[2], row[3] or ()) if row is not None else None

    def beside(self, batch_id: str, path: Path) -> tuple[Path, ...]:
        """Return files written for this batch under a free name beside `path`, because that was somebody else's."""
        return tuple(saved for saved in self.paths(batch_id) if is_name_after(path, saved))

    def paths(self, batch_id: str) -> tuple[Path, ...]:
        """Return all files written for this batch, in the order of their paths; they may have been removed since."""
        with self._transaction() as connection:
            query = sa.select(saved_files.c.path).where(saved_files.c.batch_id == batch_id)
            found = connection.execute(query.order_by(saved_files.c.path)).scalars()
            return tuple(Path(saved) for saved in found if "://" not in saved)
