"""Which batches may give answers to others, which have, and which were ordered from the same rows."""

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._tables import batches


class Donors:
    """Batches as those that others take answers from. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._transaction = database.transaction

    def of(self, model: str, task: str) -> tuple[str, ...]:
        """Return the batches ordered here that asked a model for the same task, newest first."""
        with self._transaction() as connection:
            alike = (batches.c.is_ours, batches.c.model == model, batches.c.task == task)
            query = sa.select(batches.c.id).where(*alike, batches.c.is_deleting.is_(False))
            return tuple(connection.execute(query.order_by(batches.c.created_at.desc(), batches.c.id)).scalars())

    def with_content(self, content_sha256: str, *, limit: int) -> tuple[str, ...]:
        """Return the batches ordered here whose source has that content, newest first."""
        with self._transaction() as connection:
            alike = (batches.c.is_ours, batches.c.content_sha256 == content_sha256)
            query = sa.select(batches.c.id).where(*alike, batches.c.is_deleting.is_(False))
            newest = query.order_by(batches.c.created_at.desc(), batches.c.id).limit(limit)
            return tuple(connection.execute(newest).scalars())

    def takers(self, batch_id: str) -> tuple[tuple[str, int], ...]:
        """Return the batches that have taken answers from a batch, and for how many rows."""
        with self._transaction() as connection:
            query = sa.select(batches.c.id, batches.c.donors).where(batches.c.reused_count > 0)
            found = connection.execute(query.order_by(batches.c.created_at, batches.c.id)).all()
        return tuple((taker, donor.rows) for taker, donors in found for donor in donors if donor.batch_id == batch_id)
