"""The ledger of batches and jobs: what was ordered, what was sent, and how far it got.

A row is written before every step that could cost money, so that a crash leaves a trace and a repeat is recognised:

    reserved → uploaded → unknown → submitted → finished → collected        (failed and cancelled end a job early)
    reserved → calling → finished → collected                               (rows called one by one; see `calls`)

`unknown` is written before the create leaves and overwritten by its reply: while it stands, a job may or may not exist
at Gemini, and nothing is created again before the remote list has been searched.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger import _bills, _donors, _quotes, _saves
from gemini_batch_mcp.batches.ledger._cleaning import clean_once
from gemini_batch_mcp.batches.ledger._database import NO_SECRETS, Database, Hook
from gemini_batch_mcp.batches.ledger._tables import (
    attachments,
    batch_entry,
    batches,
    job_entry,
    jobs,
    readable,
    salts,
    saved_files,
    uploaded_file,
    values_of,
    withdrawals,
)
from gemini_batch_mcp.batches.ledger.entries import (
    UNSETTLED,
    BatchEntry,
    Charge,
    JobEntry,
    Lack,
    NewBatch,
    NewJob,
    Stage,
)
from gemini_batch_mcp.domain import Account, JobError, JobState, RowCounts, RowOutcomes, UploadedFile
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.intake.prices.price_list import CallTier
from gemini_batch_mcp.paths import slug
from gemini_batch_mcp.redaction import Secrets

#: No look-alikes: these ids are read aloud and typed.
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


class QuoteUsed(UsageError):
    """What the user agreed to has been submitted already."""


def attempt_name(batch_id: str, attempt: int) -> str:
    """Return what a retry is called where it is said what was paid for."""
    return f"{batch_id}, attempt {attempt}"


class Ledger:
    """The ledger of one state directory. Every method is one transaction; safe between threads and processes.

    It has batches with their jobs, and beside them the files written for the user, files attached and orders quoted.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._transaction = database.transaction
        self.quotes = _quotes.Quotes(database)
        self.saves = _saves.Saves(database)
        self.bills = _bills.Bills(database)
        self.donors = _donors.Donors(database)
        #: At its opening, of secrets that an earlier version had written into it.
        self.was_cleaned = False

    @classmethod
    def open(cls, path: Path, hook: Hook | None = None, secrets: Secrets = NO_SECRETS) -> Self:
        """Open or create the ledger at `path`; `hook` is called around every transaction that writes.

        What is in it, and what is written into it, is free of `secrets`.

        Raises:
            StorageError: the file cannot be created, read or understood.
        """
        ledger = cls(Database.open(path, hook, secrets))
        ledger.was_cleaned = clean_once(ledger.database, secrets)
        return ledger

    def close(self) -> None:
        """Release every connection."""
        self.database.close()

    def salt(self) -> str:
        """Return what this ledger's fingerprints of keys are salted with."""
        with self._transaction() as connection:
            return str(connection.execute(sa.select(salts.c.salt)).scalar_one())

    def claim(self, account: Account, *, before: str = "", batch_id: str = "") -> None:
        """Write down that all jobs of the account `before`, or those of a batch that have none, are of this one."""
        values = {"account": account.fingerprint, "key_origin": account.key_origin}
        which = jobs.c.account == before if before else sa.and_(jobs.c.batch_id == batch_id, jobs.c.account == "")
        with self._transaction("claim") as connection:
            connection.execute(jobs.update().where(which).values(**values))

    def take_over(self, batch_id: str, account: Account) -> bool:
        """Give a batch of which nothing was sent another account; what was uploaded does not count any more.

        False when something was sent.
        """
        of_batch = jobs.c.batch_id == batch_id
        called = sa.and_(jobs.c.tier != "", jobs.c.created_at.is_not(None))
        sent = sa.or_(jobs.c.name.is_not(None), jobs.c.sent_at.is_not(None), called)
        with self._transaction("take_over") as connection:
            if connection.execute(sa.select(jobs.c.id).where(of_batch, sent)).first() is not None:
                return False
            values = {"account": account.fingerprint, "key_origin": account.key_origin}
            connection.execute(jobs.update().where(of_batch).values(**values))
            source = sa.select(batches.c.source).where(batches.c.id == batch_id).scalar_subquery()
            is_own_upload = sa.and_(of_batch, jobs.c.stage == Stage.UPLOADED, jobs.c.uploaded_file != source)
            connection.execute(jobs.update().where(is_own_upload).values(stage=Stage.RESERVED, uploaded_file=""))
            connection.execute(attachments.delete().where(attachments.c.batch_id == batch_id))
            return True

    def standing(self, order_sha256: str, earlier: Sequence[str]) -> BatchEntry | None:
        """Return the batch that stands for an order, None when none does.

        Under one of `earlier` an older version may have written the order down.
        """
        with self._transaction() as connection:
            return self._standing(connection, order_sha256, earlier)

    def reserve(self, new: NewBatch, *, always: bool = False, on_quote: bool = False) -> tuple[BatchEntry, bool]:
        """Write the reservation for an order: the batch and True, or the one that stands for it already and False.

        What was said about its cost is used up with it, so that no second order is paid on that. `always` writes a new
        one also beside one that stands: a deliberate resubmission. One that is still on its way to Gemini is returned
        all the same: asked for twice, before anybody could have seen it, it is the same wish. Not so one of another
        account, which may never get there.

        Raises:
            QuoteUsed: `on_quote` says that the user agreed to what was said, and another order was paid on it just now.
        """
        with self._transaction("reserve") as connection:
            standing = self._standing(connection, new.order_sha256, new.earlier_sha256)
            if standing is not None:
                is_of_this = all(job.account in ("", new.account.fingerprint) for job in standing.jobs)
                if not (always and (standing.is_submitted or not is_of_this)):
                    self._join(connection, standing.id)
                    return standing, False
            batch_id = self._insert_batch(connection, new)
            uploaded = {"stage": Stage.UPLOADED, "uploaded_file": new.uploaded_file} if new.uploaded_file else {}
            connection.execute(_new_job(batch_id, 1, 1, new.model, new.account, tier=new.tier, **uploaded))
            if not _quotes.use(connection, new.order_sha256, batch_id) and on_quote:
                raise QuoteUsed(
                    "Another order was just submitted for the figure that the user agreed to.",
                    "Nothing more was submitted. Make the same call without confirm and show the user its figure.",
                )
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

    def add_attempt(
        self,
        batch_id: str,
        attempt: int,
        model: str,
        parts: Sequence[NewJob],
        account: Account,
        *,
        quoted_as: str = "",
        tier: CallTier = "",
    ) -> bool:
        """Reserve a retry and cut it into jobs; False when there is one with this number already.

        What was said about its cost, under the fingerprint `quoted_as`, is used up with it.
        """
        with self._transaction("add_attempt") as connection:
            query = sa.select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.attempt >= attempt)
            if connection.execute(query).first() is not None:
                return False
            for shard, part in enumerate(parts, 1):
                values = {"tier": tier, **values_of(part, jobs)}
                connection.execute(_new_job(batch_id, shard, attempt, model, account, **values))
            connection.execute(batches.update().where(batches.c.id == batch_id).values(callers=1))
            _quotes.use(connection, quoted_as, attempt_name(batch_id, attempt))
            return True

    def drop_attempt(self, batch_id: str, attempt: int) -> None:
        """Forget a retry of which nothing has left this machine."""
        with self._transaction("drop_attempt") as connection:
            same = (jobs.c.batch_id == batch_id, jobs.c.attempt == attempt, jobs.c.sent_at.is_(None))
            connection.execute(jobs.delete().where(*same, jobs.c.stage.in_((Stage.RESERVED, Stage.FAILED))))
            _quotes.release(connection, attempt_name(batch_id, attempt))

    def unproved(self, order_sha256: str) -> tuple[BatchEntry, ...]:
        """Return the batches of an order with a job that was refused after its create had left, newest first."""
        with self._transaction() as connection:
            refused = sa.select(jobs.c.batch_id).where(
                jobs.c.stage == Stage.FAILED, jobs.c.sent_at.is_not(None), jobs.c.name.is_(None)
            )
            query = sa.select(batches.c.id).where(batches.c.order_sha256 == order_sha256, batches.c.id.in_(refused))
            found = connection.execute(query.order_by(batches.c.created_at.desc())).scalars().all()
            return tuple(self._load(connection, batch_id) for batch_id in found)

    def enqueued_tokens(self, model: str, account: Account, *, since: datetime) -> int:
        """Return the estimated input tokens of all jobs that hold a place at Gemini for a model, or may hold one.

        Those of another account hold theirs in another project.

        A job from before `since` holds none any more, even if its end has never been seen.
        """
        with self._transaction() as connection:
            held = jobs.c.stage.in_((Stage.SUBMITTED, Stage.UNKNOWN))
            is_young = sa.func.coalesce(jobs.c.created_at, batches.c.created_at) >= since
            of_batch = jobs.join(batches, batches.c.id == jobs.c.batch_id)
            tokens = sa.select(sa.func.coalesce(sa.func.sum(jobs.c.input_tokens), 0)).select_from(of_batch)
            is_here = jobs.c.account.in_(("", account.fingerprint))
            return int(connection.execute(tokens.where(jobs.c.model == model, held, is_young, is_here)).scalar_one())

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
                    batch_id=batch_id,
                    shard=1,
                    attempt=1,
                    stage=Stage.SUBMITTED,
                    state=JobState.UNSPECIFIED,
                    name=name,
                    account=new.account.fingerprint,
                    key_origin=new.account.key_origin,
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

    def answered_alike(self, template_sha256: str, *, limit: int) -> tuple[BatchEntry, ...]:
        """Return batches that ask the same of their rows and have a result table, newest first."""
        with self._transaction() as connection:
            has_table = sa.and_(sa.type_coerce(batches.c.rows, sa.Text) != "", batches.c.is_deleting.is_(False))
            query = sa.select(batches.c.id).where(batches.c.template_sha256 == template_sha256, has_table)
            found = connection.execute(query.order_by(batches.c.created_at.desc()).limit(limit)).scalars().all()
            return tuple(self._load(connection, batch_id) for batch_id in found)

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
        """Set members of one batch, named as those of `BatchEntry`."""
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
        """Set members of one job, named as those of `JobEntry`; with `expected`, only while it is in that stage.

        Raises:
            StorageError: `name` is a Gemini job that another batch holds already.
        """
        if counts is not None:
            values |= values_of(counts, jobs, prefix="rows_")
        if error is not None:
            values |= values_of(error, jobs, prefix="error_")
        statement = jobs.update().where(jobs.c.id == job_id)
        if expected is not None:
            statement = statement.where(jobs.c.stage == expected)
        with self._transaction("update_job") as connection:
            connection.execute(statement.values(**values))

    def move_job(self, job_id: int, *, expected: Stage, stage: Stage, **values: Any) -> bool:
        """Move a job to another stage, unless somebody has moved it meanwhile; returns whether it was moved.

        One that was withdrawn is not moved to where its create, or its calls, leave.
        """
        with self._transaction("move_job") as connection:
            statement = jobs.update().where(jobs.c.id == job_id, jobs.c.stage == expected)
            if stage in (Stage.UNKNOWN, Stage.CALLING):
                statement = statement.where(jobs.c.withdrawn_at.is_(None))
            return bool(connection.execute(statement.values(stage=stage, **values)).rowcount)

    def record_collected(
        self,
        batch_id: str,
        rows: RowOutcomes | None,
        charges: Sequence[Charge] | None,
        answer_counts: Mapping[int, int | None],
    ) -> None:
        """Note how a batch's rows ended by its table, what is billed, and that the answers of these jobs are in it.

        `answer_counts` says by job how many there are; None for a job that ended without any.
        """
        with self._transaction("record_collected") as connection:
            connection.execute(batches.update().where(batches.c.id == batch_id).values(rows=rows, charges=charges))
            for job_id, count in answer_counts.items():
                counted = {} if count is None else {"answer_count": count, "lack": Lack.NOTHING}
                collected = jobs.update().where(jobs.c.id == job_id).values(stage=Stage.COLLECTED, **counted)
                connection.execute(collected)

    def join(self, batch_id: str) -> BatchEntry | None:
        """Count one more call that is told that a batch is on its way; what was withdrawn of it may be sent again.

        Returns None when there is no such batch any more.
        """
        with self._transaction("join") as connection:
            return self._load(connection, batch_id) if self._join(connection, batch_id) else None

    def withdraw(self, batch_id: str) -> bool:
        """Take one call's wish back: once no other call has it, no create of the batch leaves any more.

        Returns whether that is so.
        """
        with self._transaction("withdraw") as connection:
            of_batch = batches.c.id == batch_id
            connection.execute(batches.update().where(of_batch).values(callers=batches.c.callers - 1))
            callers = connection.execute(sa.select(batches.c.callers).where(of_batch)).scalar()
            if callers is None or callers > 0:
                return False
            unsent = (jobs.c.batch_id == batch_id, jobs.c.stage.in_((Stage.RESERVED, Stage.UPLOADED)))
            connection.execute(jobs.update().where(*unsent).values(withdrawn_at=datetime.now(UTC)))
            return True

    def take_back(self, batch_id: str, attempt: int, wish: str) -> tuple[JobEntry, ...]:
        """Forget an attempt that was withdrawn before anything of it was sent, and note when that was under `wish`.

        Returns the jobs that are forgotten: none where something was sent, or somebody wants it again.
        """
        with self._transaction("take_back") as connection:
            query = sa.select(batches.c.id).where(batches.c.id == batch_id, batches.c.callers <= 0)
            if connection.execute(query).first() is None:
                return ()
            same = tuple(job for job in self._load(connection, batch_id).jobs if job.attempt == attempt)
            if any(job.name or job.is_unproved or job.withdrawn_at is None for job in same):
                return ()
            connection.execute(jobs.delete().where(jobs.c.batch_id == batch_id, jobs.c.attempt == attempt))
            paid_for = attempt_name(batch_id, attempt)
            if attempt == 1:
                paid_for = batch_id
                connection.execute(attachments.delete().where(attachments.c.batch_id == batch_id))
                connection.execute(batches.delete().where(batches.c.id == batch_id))
            _quotes.release(connection, paid_for)
            connection.execute(withdrawals.delete().where(withdrawals.c.order_sha256 == wish))
            connection.execute(withdrawals.insert().values(order_sha256=wish, withdrawn_at=datetime.now(UTC)))
            return same

    def end_withdrawal(self, wish: str) -> datetime | None:
        """Return when the same wish was withdrawn before anything of it was sent, and forget that; None for never.

        Only then anything is written.
        """
        same = withdrawals.c.order_sha256 == wish
        with self._transaction() as connection:
            withdrawn_at = connection.execute(sa.select(withdrawals.c.withdrawn_at).where(same)).scalar()
        if withdrawn_at is not None:
            with self._transaction("end_withdrawal") as connection:
                connection.execute(withdrawals.delete().where(same))
        return withdrawn_at

    def forget(self, batch_id: str) -> None:
        """Remove a batch, its jobs and its list of saved files from the ledger. What it has cost stays known."""
        with self._transaction("forget") as connection:
            _bills.keep(connection, batch_id)
            for table in (saved_files, attachments, jobs):
                connection.execute(table.delete().where(table.c.batch_id == batch_id))
            connection.execute(batches.delete().where(batches.c.id == batch_id))

    def attachments(self, batch_id: str) -> Mapping[str, UploadedFile]:
        """Return the files uploaded for a batch's rows to refer to, by the sha256 of their content."""
        with self._transaction() as connection:
            query = sa.select(attachments).where(attachments.c.batch_id == batch_id)
            with readable(f"the files of {batch_id}"):
                rows = connection.execute(query).mappings()
                return {file.sha256: file for file in map(uploaded_file, rows)}

    def record_attachment(self, batch_id: str, sha256: str, uploaded: UploadedFile) -> None:
        """Remember where the content `sha256` is at Gemini."""
        values = {**values_of(uploaded, attachments), "batch_id": batch_id, "sha256": sha256}
        with self._transaction("record_attachment") as connection:
            same = (attachments.c.batch_id == batch_id, attachments.c.sha256 == sha256)
            connection.execute(attachments.delete().where(*same))
            connection.execute(attachments.insert().values(**values))

    def _join(self, connection: sa.Connection, batch_id: str) -> bool:
        joined = batches.update().where(batches.c.id == batch_id).values(callers=batches.c.callers + 1)
        connection.execute(jobs.update().where(jobs.c.batch_id == batch_id).values(withdrawn_at=None))
        return bool(connection.execute(joined).rowcount)

    def _standing(self, connection: sa.Connection, order_sha256: str, earlier: Sequence[str]) -> BatchEntry | None:
        query = sa.select(batches.c.id).where(batches.c.order_sha256.in_((order_sha256, *earlier)))
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
        values = {**values_of(new, batches), "id": batch_id, "created_at": new.created_at or datetime.now(UTC)}
        connection.execute(batches.insert().values(**values))
        return batch_id

    def _cut(self, connection: sa.Connection, job: JobEntry, parts: Sequence[NewJob]) -> None:
        """Give `job` the first part and write a job for each further one."""
        query = sa.select(sa.func.max(jobs.c.shard)).where(
            jobs.c.batch_id == job.batch_id, jobs.c.attempt == job.attempt
        )
        last = int(connection.execute(query).scalar_one())
        connection.execute(jobs.update().where(jobs.c.id == job.id).values(**values_of(parts[0], jobs)))
        account = Account(job.account, job.key_origin)
        for shard, part in enumerate(parts[1:], last + 1):
            connection.execute(_new_job(job.batch_id, shard, job.attempt, job.model, account, **values_of(part, jobs)))

    def _load(self, connection: sa.Connection, batch_id: str) -> BatchEntry:
        query = sa.select(jobs).where(jobs.c.batch_id == batch_id)
        in_order = query.order_by(jobs.c.attempt, jobs.c.first_row, jobs.c.shard)
        with readable(f"the batch {batch_id}"):
            row = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().one()
            return batch_entry(row, tuple(job_entry(job) for job in connection.execute(in_order).mappings()))


def _new_job(batch_id: str, shard: int, attempt: int, model: str, account: Account, **values: Any) -> sa.Insert:
    whose = {"account": account.fingerprint, "key_origin": account.key_origin}
    fresh = {"stage": Stage.RESERVED, "state": JobState.QUEUED, **whose}
    return jobs.insert().values(batch_id=batch_id, shard=shard, attempt=attempt, model=model, **{**fresh, **values})
