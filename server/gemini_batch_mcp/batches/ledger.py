"""The ledger: what was ordered, what was sent, and how far it got. The only room that talks to the database.

A row is written before every step that could cost money, so that a crash leaves a trace and a repeat is recognised:

    reserved → uploaded → unknown → submitted → finished → collected        (failed and cancelled end a job early)

`unknown` is written before the create leaves and overwritten by its reply: while it stands, a job may or may not exist
at Gemini, and nothing is created again before the remote list has been searched.
"""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from gemini_batch_mcp.batches.entries import BatchEntry, JobEntry, NewBatch, Stage
from gemini_batch_mcp.batches.schema import batches, jobs, migrate, saved_files
from gemini_batch_mcp.domain import JobError, JobState, RowCounts
from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.paths import is_free_name_of, slug

#: No look-alikes: these ids are read aloud and typed.
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class Ledger:
    """The database of one state directory. Every method is one transaction; safe between threads and processes."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Open or create the SQLite ledger at `path` and bring it to the current schema.

        Raises:
            StorageError: the file cannot be created, read or understood.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"The state directory {path.parent} cannot be created ({error.strerror}).",
                "Set GEMINI_BATCH_HOME to a directory that can be written.",
            ) from None
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30, "isolation_level": None})
        sa.event.listen(engine, "connect", _configure_connection)
        sa.event.listen(engine, "begin", _begin_immediate)
        ledger = cls(engine)
        with ledger._transaction() as connection:
            migrate(connection)
        return ledger

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def reserve(self, new: NewBatch, *, always: bool = False) -> tuple[BatchEntry, bool]:
        """Write the reservation for an order: the batch and True, or the one that stands for it already and False.

        `always` writes a new one in any case: a deliberate resubmission.
        """
        with self._transaction() as connection:
            if not always and (standing := self._standing(connection, new.order_sha256)):
                return standing, False
            batch_id = self._insert_batch(connection, new)
            stage = Stage.UPLOADED if new.uploaded_file else Stage.RESERVED
            connection.execute(
                jobs.insert().values(
                    batch_id=batch_id,
                    shard=1,
                    attempt=1,
                    stage=stage,
                    state=JobState.QUEUED,
                    uploaded_file=new.uploaded_file,
                )
            )
            return self._load(connection, batch_id), True

    def adopt(self, new: NewBatch, name: str) -> BatchEntry:
        """Return the batch that holds the job `name`, writing one for a job made elsewhere if there is none."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(jobs.c.batch_id).where(jobs.c.name == name)).first()
            if row is not None:
                return self._load(connection, row.batch_id)
            batch_id = self._insert_batch(connection, new)
            connection.execute(
                jobs.insert().values(
                    batch_id=batch_id, shard=1, attempt=1, stage=Stage.SUBMITTED, state=JobState.UNSPECIFIED, name=name
                )
            )
            return self._load(connection, batch_id)

    def batch(self, batch_id: str) -> BatchEntry | None:
        """Return one batch, None when there is no such id."""
        with self._transaction() as connection:
            found = connection.execute(sa.select(batches.c.id).where(batches.c.id == batch_id)).first()
            return self._load(connection, batch_id) if found is not None else None

    def batch_of_job(self, name: str) -> BatchEntry | None:
        """Return the batch that the Gemini job `name` belongs to, None when it is not in the ledger."""
        with self._transaction() as connection:
            found = connection.execute(sa.select(jobs.c.batch_id).where(jobs.c.name == name)).first()
            return self._load(connection, found.batch_id) if found is not None else None

    def batches_named(self, display_name: str) -> tuple[BatchEntry, ...]:
        """Return the batches with exactly this display name, newest first."""
        with self._transaction() as connection:
            query = sa.select(batches.c.id).where(batches.c.display_name == display_name)
            found = connection.execute(query.order_by(batches.c.created_at.desc())).all()
            return tuple(self._load(connection, row.id) for row in found)

    def batch_ids(self, *, offset: int = 0, limit: int = 1000) -> tuple[str, ...]:
        """Return ids of batches, newest first."""
        with self._transaction() as connection:
            query = sa.select(batches.c.id).order_by(batches.c.created_at.desc(), batches.c.id)
            return tuple(connection.execute(query.offset(offset).limit(limit)).scalars())

    def known_jobs(self, names: Sequence[str]) -> frozenset[str]:
        """Return those of `names` that belong to a batch of this ledger."""
        with self._transaction() as connection:
            return frozenset(connection.execute(sa.select(jobs.c.name).where(jobs.c.name.in_(names))).scalars())

    def update_batch(self, batch_id: str, **values: Any) -> None:
        """Set columns of one batch. `warnings` may be given as a sequence of sentences."""
        if "warnings" in values:
            values["warnings"] = json.dumps(list(values["warnings"]))
        with self._transaction() as connection:
            connection.execute(batches.update().where(batches.c.id == batch_id).values(**values))

    def update_job(
        self, job_id: int, *, counts: RowCounts | None = None, error: JobError | None = None, **values: Any
    ) -> None:
        """Set columns of one job.

        Raises:
            StorageError: `name` is a Gemini job that another batch holds already.
        """
        if counts is not None:
            values.update(
                rows_total=counts.total,
                rows_succeeded=counts.succeeded,
                rows_failed=counts.failed,
                rows_pending=counts.pending,
            )
        if error is not None:
            values.update(error_code=error.code, error_message=error.message)
        with self._transaction() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job_id).values(**values))

    def move_job(self, job_id: int, *, expected: Stage, stage: Stage, **values: Any) -> bool:
        """Move a job to another stage, unless somebody has moved it meanwhile; returns whether it was moved."""
        with self._transaction() as connection:
            statement = jobs.update().where(jobs.c.id == job_id, jobs.c.stage == expected)
            return bool(connection.execute(statement.values(stage=stage, **values)).rowcount)

    def forget(self, batch_id: str) -> None:
        """Remove a batch, its jobs and its list of saved files from the ledger."""
        with self._transaction() as connection:
            for table in (saved_files, jobs):
                connection.execute(table.delete().where(table.c.batch_id == batch_id))
            connection.execute(batches.delete().where(batches.c.id == batch_id))

    def record_saved(self, batch_id: str, path: Path, sha256: str) -> None:
        """Remember that `path` was written for this batch, with these bytes."""
        with self._transaction() as connection:
            connection.execute(saved_files.delete().where(saved_files.c.path == str(path)))
            connection.execute(saved_files.insert().values(path=str(path), batch_id=batch_id, sha256=sha256))

    def saved_sha256(self, batch_id: str, path: Path) -> str:
        """Return the hash of what was written to `path` for this batch, empty when it was not."""
        with self._transaction() as connection:
            query = sa.select(saved_files.c.sha256).where(
                saved_files.c.path == str(path), saved_files.c.batch_id == batch_id
            )
            return connection.execute(query).scalar() or ""

    def saved_beside(self, batch_id: str, path: Path) -> tuple[Path, ...]:
        """Return files written for this batch under a free name beside `path`, because that was somebody else's."""
        with self._transaction() as connection:
            query = sa.select(saved_files.c.path).where(saved_files.c.batch_id == batch_id)
            written = [Path(saved) for saved in connection.execute(query.order_by(saved_files.c.path)).scalars()]
        return tuple(saved for saved in written if is_free_name_of(path, saved))

    def _standing(self, connection: sa.Connection, order_sha256: str) -> BatchEntry | None:
        query = sa.select(batches.c.id).where(batches.c.order_sha256 == order_sha256)
        for batch_id in connection.execute(query.order_by(batches.c.created_at.desc())).scalars().all():
            entry = self._load(connection, batch_id)
            if entry.is_standing:
                return entry
        return None

    def _insert_batch(self, connection: sa.Connection, new: NewBatch) -> str:
        taken = sa.select(batches.c.id)
        stem = slug(new.display_name)
        while True:
            batch_id = f"{stem}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(6))}"
            if connection.execute(taken.where(batches.c.id == batch_id)).first() is None:
                break
        connection.execute(
            batches.insert().values(
                id=batch_id,
                order_sha256=new.order_sha256,
                display_name=new.display_name,
                model=new.model,
                task=new.task,
                delivery=new.delivery,
                source=new.source,
                is_ours=new.is_ours,
                created_at=datetime.now(UTC),
            )
        )
        return batch_id

    def _load(self, connection: sa.Connection, batch_id: str) -> BatchEntry:
        row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().one()
        query = sa.select(jobs).where(jobs.c.batch_id == batch_id).order_by(jobs.c.attempt, jobs.c.shard)
        entries = tuple(_job_entry(job) for job in connection.execute(query).mappings())
        return replace(_batch_entry(row), jobs=entries)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection inside one immediate transaction; database failures become StorageError."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise StorageError(
                "The ledger refused an entry that contradicts another one (a Gemini job that is already recorded).",
                "Call list_jobs to see what is recorded.",
            ) from None
        except DBAPIError as error:
            raise StorageError(
                f"The ledger could not be read or written ({type(error.orig).__name__}: {error.orig}).",
                "Check that the state directory exists, has space and can be written; GEMINI_BATCH_HOME names it.",
            ) from None


def _configure_connection(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # WAL lets one process write while others read; FULL keeps a committed reservation through a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail with SQLITE_BUSY instead of waiting for its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _batch_entry(row: Any) -> BatchEntry:
    return BatchEntry(
        id=row["id"],
        order_sha256=row["order_sha256"],
        display_name=row["display_name"],
        model=row["model"],
        task=row["task"],
        delivery=row["delivery"],
        source=row["source"],
        created_at=row["created_at"].replace(tzinfo=UTC),
        request_count=row["request_count"],
        size_bytes=row["size_bytes"],
        request_sha256=row["request_sha256"],
        is_ours=row["is_ours"],
        warnings=tuple(json.loads(row["warnings"])),
        failure=row["failure"],
    )


def _job_entry(row: Any) -> JobEntry:
    return JobEntry(
        id=row["id"],
        batch_id=row["batch_id"],
        shard=row["shard"],
        attempt=row["attempt"],
        stage=Stage(row["stage"]),
        state=JobState(row["state"]),
        wire_state=row["wire_state"],
        name=row["name"] or "",
        uploaded_file=row["uploaded_file"],
        responses_file=row["responses_file"],
        request_count=row["request_count"],
        counts=RowCounts(row["rows_total"], row["rows_succeeded"], row["rows_failed"], row["rows_pending"]),
        error=JobError(row["error_code"], row["error_message"]) if row["error_message"] else None,
        created_at=_utc(row["created_at"]),
        ended_at=_utc(row["ended_at"]),
        answers_sha256=row["answers_sha256"],
    )


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None else None
