"""What batches are billed for, those among them that were deleted."""

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._database import Database
from gemini_batch_mcp.batches.ledger._tables import batches, bill_entry, deleted_batches, jobs, readable
from gemini_batch_mcp.batches.ledger.entries import BillEntry, DamagedEntry
from gemini_batch_mcp.domain import JobState

#: A job without answers here of which some may have been billed: it has a file of them, or ended early. One that failed
#: as a whole is free.
_IS_UNKNOWN = sa.and_(
    jobs.c.name.is_not(None),
    jobs.c.answers_digest == "",
    sa.or_(jobs.c.responses_file != "", jobs.c.state.in_((JobState.CANCELLED, JobState.EXPIRED))),
)
#: Rows that were called one by one: answered and not in a table yet, or called without a reply that came.
_CALLED = sa.case((jobs.c.answers_digest == "", jobs.c.rows_succeeded), else_=0) + jobs.c.lost_rows
_ROWS = sa.func.max(jobs.c.request_count, jobs.c.rows_total)


class Bills:
    """The bills of one ledger. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._transaction = database.transaction

    def all(self) -> tuple[BillEntry, ...]:
        """Return the bills of all batches, deleted ones included, newest first; what cannot be read is empty."""
        with self._transaction() as connection:
            live = _read(connection, _live(), batches.c.id)
            gone = _read(connection, sa.select(deleted_batches), deleted_batches.c.batch_id)
        known = {bill.batch_id for bill in live}
        found = [*live, *(replace(bill, is_deleted=True) for bill in gone if bill.batch_id not in known)]
        return tuple(sorted(found, key=lambda bill: (bill.created_at, bill.batch_id), reverse=True))

    def of_deleted(self, reference: str) -> str:
        """Return the id of the deleted batch that goes by an id or a name, empty where there is no bill of one."""
        table = deleted_batches.c
        with self._transaction() as connection:
            query = sa.select(table.batch_id).where(
                sa.or_(table.batch_id == reference, table.display_name == reference)
            )
            return str(connection.execute(query.order_by(table.created_at.desc()).limit(1)).scalar() or "")


def keep(connection: sa.Connection, batch_id: str) -> None:
    """Keep the bill of a batch that is about to be deleted, if there is one."""
    row = connection.execute(_live().where(batches.c.id == batch_id)).mappings().first()
    if row is None or not (row["charges"] or row["unknown_rows"] or row["answered_jobs"]):
        return
    connection.execute(deleted_batches.delete().where(deleted_batches.c.batch_id == batch_id))
    connection.execute(deleted_batches.insert().values(**row))


def _live() -> sa.Select[tuple[object, ...]]:
    columns = (
        batches.c.id.label("batch_id"),
        *(batches.c[name] for name in ("display_name", "model", "created_at", "charges")),
        sa.func.sum(sa.case((jobs.c.tier != "", _CALLED), (_IS_UNKNOWN, _ROWS), else_=0)).label("unknown_rows"),
        sa.func.sum(sa.case((jobs.c.answers_digest != "", 1), else_=0)).label("answered_jobs"),
    )
    of_batch = batches.outerjoin(jobs, jobs.c.batch_id == batches.c.id)
    return sa.select(*columns).select_from(of_batch).group_by(batches.c.id)


def _read(connection: sa.Connection, query: sa.Select[tuple[object, ...]], batch_id: sa.Column[str]) -> list[BillEntry]:
    try:
        with readable("what batches have cost"):
            return [bill_entry(row) for row in connection.execute(query).mappings()]
    except DamagedEntry:
        # One of them: the others are read all the same.
        return [
            _read_one(connection, query, batch_id, one) for one in connection.execute(sa.select(batch_id)).scalars()
        ]


def _read_one(
    connection: sa.Connection, query: sa.Select[tuple[object, ...]], column: sa.Column[str], batch_id: str
) -> BillEntry:
    try:
        with readable(f"what {batch_id} has cost"):
            return bill_entry(connection.execute(query.where(column == batch_id)).mappings().one())
    except DamagedEntry:
        return BillEntry(batch_id, "", "", datetime.now(UTC), answered_jobs=1)
