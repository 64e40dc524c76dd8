"""The ledger of batches and jobs: what was ordered, what was sent, and how far it got.

A row is written before every step that could cost money, so that a crash leaves a trace and a repeat is recognised:

    reserved → uploaded → unknown → submitted → finished → collected        (failed and cancelled end a job early)

`unknown` is written before the create leaves and overwritten by its reply: while it stands, a job may or may not exist
at Gemini, and nothing is created again before the remote list has been searched.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger._files import LedgerFiles
from gemini_batch_mcp.batches.ledger._records import batch_entry, batch_values, job_entry
from gemini_batch_mcp.batches.ledger._tables import attachments, batches, jobs, saved_files
from gemini_batch_mcp.batches.ledger.entries import UNSETTLED, BatchEntry, JobEntry, NewBatch, NewJob, Stage
from gemini_batch_mcp.domain import JobError, JobState, RowCounts
from gemini_batch_mcp.paths import slug

#: No look-alikes: these ids are read aloud and typed.
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class Ledger(LedgerFiles):
    """The database of one state directory. Every method is one transaction; safe between threads and processes."""

    def standing(self, order_sha256: str) -> BatchEntry | None:
        """Return the batch that stands for an order, None when none does."""
        with self._transaction() as connection:
            return self._standing(connection, order_sha256)

    def reserve(self, new: NewBatch, *, always: bool = False) -> tuple[BatchEntry, bool]:
        """Write the reservation for an order: the batch and True, or the one that stands for it already and False.

        `always` writes a new one also beside one that stands: a deliberate resubmission. One that is still on its way
        to Gemini is returned all the same: asked for twice, before anybody could have seen it, it is the same wish.
        """
        with self._transaction("reserve") as connection:
            standing = self._standing(connection, new.order_sha256)
            if standing is not None and not (always and standing.is_submitted):
                return standing, False
            batch_id = self._insert_batch(connection, new)
            uploaded = {"stage": Stage.UPLOADED, "uploaded_file": new.uploaded_file} if new.uploaded_file else {}
            connection.execute(_new_job(batch_id, 1, 1, new.model, **uploaded))
            return self._load(connection, batch_id), True

    def plan(self, batch_id: str, attempt: int, parts: Sequence[NewJob]) -> bool:
        """Cut an attempt into jobs, once its lines are known; False when somebody has done so, or has cancelled it."""
        with self._transaction("plan") as connection:
            query = sa.select(jobs).where(jobs.c.batch_id == batch_id, jobs.c.attempt == attempt)
            found = [job_entry(row) for row in connection.execute(query).mappings()]
            if len(found) != 1 or found[0].size_bytes or found[0].stage is not Stage.RESERVED:
                return False
            self._cut(connection, found[0], parts)
            return True

    def split_job(self, job: JobEntry, parts: Sequence[NewJob]) -> bool:
        """Replace a job that Gemini has never had by smaller ones; False when it has been changed meanwhile."""
        with self._transaction("split_job") as connection:
            query = sa.select(jobs.c.id).where(jobs.c.id == job.id, jobs.c.stage == Stage.RESERVED)
            if connection.execute(query).first() is None:
                return False
            self._cut(connection, job, parts)
            return True

    def add_attempt(self, batch_id: str, attempt: int, model: str, parts: Sequence[NewJob]) -> bool:
        """Reserve a retry and cut it into jobs; False when there is one with this number already."""
        with self._transaction("add_attempt") as connection:
            query = sa.select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.attempt >= attempt)
            if connection.execute(query).first() is not None:
                return False
            for shard, part in enumerate(parts, 1):
                connection.execute(_new_job(batch_id, shard, attempt, model, **_part(part)))
            return True

    def drop_attempt(self, batch_id: str, attempt: int) -> None:
        """Forget a retry of which nothing has left this machine."""
        with self._transaction("drop_attempt") as connection:
            same = (jobs.c.batch_id == batch_id, jobs.c.attempt == attempt)
            connection.execute(jobs.delete().where(*same, jobs.c.stage.in_((Stage.RESERVED, Stage.FAILED))))

    def enqueued_tokens(self, model: str, *, since: datetime) -> int:
        """Return the estimated input tokens of all jobs that hold a place at Gemini for a model, or may hold one.

        A job from before `since` holds none any more, even if its end has never been seen.
        """
        with self._transaction() as connection:
            held = jobs.c.stage.in_((Stage.SUBMITTED, Stage.UNKNOWN))
            is_young = sa.func.coalesce(jobs.c.created_at, batches.c.created_at) >= since
            of_batch = jobs.join(batches, batches.c.id == jobs.c.batch_id)
            tokens = sa.select(sa.func.coalesce(sa.func.sum(jobs.c.input_tokens), 0)).select_from(of_batch)
            return int(connection.execute(tokens.where(jobs.c.model == model, held, is_young)).scalar_one())

    def unsettled_ids(self) -> tuple[str, ...]:
        """Return the batches ordered here of which something is left to be done, oldest first."""
        with self._transaction() as connection:
            open_jobs = sa.select(jobs.c.batch_id).where(jobs.c.stage.in_(UNSETTLED))
            query = sa.select(batches.c.id).where(batches.c.is_ours, batches.c.id.in_(open_jobs))
            return tuple(connection.execute(query.order_by(batches.c.created_at, batches.c.id)).scalars())

    def adopt(self, new: NewBatch, name: str) -> BatchEntry:
        """Return the batch that holds the job `name`, writing one for a job made elsewhere if there is none."""
        with self._transaction("adopt") as connection:
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
        """Set columns of one batch. `warnings` is a sequence of sentences, `estimate` an Estimate."""
        if "warnings" in values:
            values["warnings"] = json.dumps(list(values["warnings"]))
        if "estimate" in values:
            values["estimate_json"] = json.dumps(asdict(values.pop("estimate")))
        with self._transaction("update_batch") as connection:
            connection.execute(batches.update().where(batches.c.id == batch_id).values(**values))

    def update_job(
        self,
        job_id: int,
        *,
        expected: Stage | None = None,
        counts: RowCounts | None = None,
        error: JobError | None = None,
        **values: Any,
    ) -> None:
        """Set columns of one job; with `expected`, only while it is in that stage.

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
        statement = jobs.update().where(jobs.c.id == job_id)
        if expected is not None:
            statement = statement.where(jobs.c.stage == expected)
        with self._transaction("update_job") as connection:
            connection.execute(statement.values(**values))

    def move_job(self, job_id: int, *, expected: Stage, stage: Stage, **values: Any) -> bool:
        """Move a job to another stage, unless somebody has moved it meanwhile; returns whether it was moved."""
        with self._transaction("move_job") as connection:
            statement = jobs.update().where(jobs.c.id == job_id, jobs.c.stage == expected)
            return bool(connection.execute(statement.values(stage=stage, **values)).rowcount)

    def forget(self, batch_id: str) -> None:
        """Remove a batch, its jobs and its list of saved files from the ledger."""
        with self._transaction("forget") as connection:
            for table in (saved_files, attachments, jobs):
                connection.execute(table.delete().where(table.c.batch_id == batch_id))
            connection.execute(batches.delete().where(batches.c.id == batch_id))

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
        connection.execute(batches.insert().values(**batch_values(new, batch_id)))
        return batch_id

    def _cut(self, connection: sa.Connection, job: JobEntry, parts: Sequence[NewJob]) -> None:
        """Give `job` the first part and write a job for each further one."""
        query = sa.select(sa.func.max(jobs.c.shard)).where(
            jobs.c.batch_id == job.batch_id, jobs.c.attempt == job.attempt
        )
        last = int(connection.execute(query).scalar_one())
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(**_part(parts[0])))
        for shard, part in enumerate(parts[1:], last + 1):
            connection.execute(_new_job(job.batch_id, shard, job.attempt, job.model, **_part(part)))

    def _load(self, connection: sa.Connection, batch_id: str) -> BatchEntry:
        row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().one()
        query = sa.select(jobs).where(jobs.c.batch_id == batch_id)
        in_order = query.order_by(jobs.c.attempt, jobs.c.first_row, jobs.c.shard)
        return batch_entry(row, tuple(job_entry(job) for job in connection.execute(in_order).mappings()))


def _new_job(batch_id: str, shard: int, attempt: int, model: str, **values: Any) -> sa.Insert:
    fresh = {"stage": Stage.RESERVED, "state": JobState.QUEUED}
    return jobs.insert().values(batch_id=batch_id, shard=shard, attempt=attempt, model=model, **{**fresh, **values})


def _part(part: NewJob) -> Mapping[str, Any]:
    return {
        "first_row": part.first_row,
        "request_count": part.request_count,
        "first_byte": part.first_byte,
        "size_bytes": part.size_bytes,
        "sha256": part.sha256,
        "input_tokens": part.input_tokens,
    }
