"""Batches as others see them: which may give answers, which have, which are under way, which came of which."""

import json
from typing import Final

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._tables import batches, jobs
from gemini_batch_mcp.batches.ledger.entries import UNSETTLED

#: What an order is kept as, for a look into it that reads nothing else of it.
_ORDER: Final = sa.type_coerce(batches.c.order, sa.Text)


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

    def under_way(self, model: str, task: str) -> tuple[str, ...]:
        """Return the batches ordered here that a model is still asked for the same task, newest first."""
        with self._transaction() as connection:
            alike = (batches.c.is_ours, batches.c.model == model, batches.c.task == task)
            going = batches.c.id.in_(sa.select(jobs.c.batch_id).where(jobs.c.stage.in_(UNSETTLED)))
            query = sa.select(batches.c.id).where(*alike, going, batches.c.is_deleting.is_(False))
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

    def steps_from(self, batch_id: str) -> tuple[str, ...]:
        """Return the batches whose source is a batch, the oldest first."""
        return self._ordered(batches.c.source == batch_id)

    def orders_like(self, batch_id: str) -> tuple[str, ...]:
        """Return the batches whose order took over that of a batch, the oldest first."""
        # Quotes within texts are escaped there, so that only a member can be found.
        return self._ordered(_ORDER.contains(f'"like": {json.dumps(batch_id)}', autoescape=True))

    def _ordered(self, condition: sa.ColumnElement[bool]) -> tuple[str, ...]:
        with self._transaction() as connection:
            query = sa.select(batches.c.id).where(batches.c.is_ours, condition)
            return tuple(connection.execute(query.order_by(batches.c.created_at, batches.c.id)).scalars())
