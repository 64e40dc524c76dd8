"""The ledger's tables, made from the values that their rows are: a column is a field there, and a migration."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import sqlalchemy as sa

from gemini_batch_mcp.batches.ledger.entries import (
    BatchEntry,
    BillEntry,
    DamagedEntry,
    JobEntry,
    NewBatch,
    NewJob,
    QuoteEntry,
    SavedEntry,
)
from gemini_batch_mcp.domain import JobError, RowCounts, UploadedFile
from gemini_batch_mcp.text import plain_text

#: What rows are written from.
Written = NewBatch | NewJob | QuoteEntry | SavedEntry | RowCounts | JobError | UploadedFile


class _Text(sa.TypeDecorator[str]):
    """Text; a member of an enumeration is itself again when it is read, and what is not set is empty."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: type[str] = str) -> None:
        super().__init__()
        self._kind = kind

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str:
        return self._kind(value or "")


class _Moment(sa.TypeDecorator[datetime]):
    """A time: UTC, since the database keeps no zone. One of another age becomes the nearest possible one."""

    impl = sa.DateTime
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else min(max(value.replace(tzinfo=UTC), _FIRST), _LAST)


class _Json(sa.TypeDecorator[Any]):
    """A value of ours as JSON, nothing where there is none."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self._kind = kind

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:
        if value is None:
            return ""
        # As ASCII: text that a client sent may hold half a surrogate pair, which the database does not take.
        return json.dumps([_plain(part) for part in value] if isinstance(value, tuple | list) else asdict(value))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return msgspec.convert(json.loads(value), self._kind) if value else None


def _plain(part: Any) -> Any:
    return msgspec.to_builtins(part) if is_dataclass(part) else part


_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)

_PLAIN: Final[Mapping[Any, sa.types.TypeEngine[Any]]] = {
    int: sa.Integer(),
    bool: sa.Boolean(),
    str: _Text(),
    datetime: _Moment(),
}


def _columns(value: type, *, prefix: str = "", leave_out: Collection[str] = ()) -> Iterator[sa.Column[Any]]:
    """Yield a column for each field of a dataclass, of the same name; one that holds a dataclass ends with `_json`."""
    hints = get_type_hints(value)
    for name in (field.name for field in fields(value) if field.name not in leave_out):
        kind = _without_none(hints[name])
        column = f"{prefix}{name}_json" if is_dataclass(kind) else f"{prefix}{name}"
        yield sa.Column(column, _type_of(kind), key=f"{prefix}{name}")


def _without_none(hint: Any) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if isinstance(hint, UnionType) and len(kinds) == 1 else hint


def _type_of(kind: Any) -> sa.types.TypeEngine[Any]:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if get_origin(kind) is Literal:
        return _Text()
    return _Json(kind) if is_dataclass(kind) or get_origin(kind) is tuple else _Text(kind)


metadata = sa.MetaData()

batches = sa.Table("batches", metadata, *_columns(BatchEntry, leave_out=("jobs", "forgotten", "lacks_requests")))
jobs = sa.Table(
    "jobs",
    metadata,
    *_columns(JobEntry, leave_out=("counts", "error")),
    *_columns(RowCounts, prefix="rows_"),
    *_columns(JobError, prefix="error_"),
)
saved_files = sa.Table(
    "saved_files",
    metadata,
    sa.Column("path", sa.Text),
    sa.Column("batch_id", sa.Text),
    *_columns(SavedEntry),
)
attachments = sa.Table(
    "attachments",
    metadata,
    sa.Column("batch_id", sa.Text),
    *_columns(UploadedFile, leave_out=("state",)),
)
deleted_batches = sa.Table("deleted_batches", metadata, *_columns(BillEntry, leave_out=("is_deleted",)))
quotes = sa.Table("quotes", metadata, *_columns(QuoteEntry))
withdrawals = sa.Table(
    "withdrawals",
    metadata,
    sa.Column("order_sha256", sa.Text),
    sa.Column("withdrawn_at", _Moment),
)

#: The secrets that this ledger has been cleaned of, as HMACs.
cleanings = sa.Table("cleanings", metadata, sa.Column("mark", sa.Text))
salts = sa.Table("salts", metadata, sa.Column("salt", sa.Text))


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Tell of an entry that cannot be read: `what`, such as "the batch reviews-abc123".

    Raises:
        DamagedEntry: it cannot.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, msgspec.MsgspecError) as error:
        raise DamagedEntry(
            f"The ledger's entry for {what} cannot be read ({plain_text(str(error), 120)}). Nothing else is affected.",
            "If a newer version has written it, upgrade gemini-batch-mcp. Otherwise stop all servers, move "
            "ledger.sqlite3 out of the GEMINI_BATCH_HOME directory and start again: all batches are then restored from "
            "their directories.",
        ) from None


def batch_entry(row: sa.RowMapping, of_batch: tuple[JobEntry, ...]) -> BatchEntry:
    """Return the batch that a row of `batches` describes."""
    return BatchEntry(**_members(row, batches), jobs=of_batch)


def job_entry(row: sa.RowMapping) -> JobEntry:
    """Return the job that a row of `jobs` describes."""
    members = _members(row, jobs)
    counts = RowCounts(**{field.name: max(0, members.pop(f"rows_{field.name}")) for field in fields(RowCounts)})
    error = JobError(**{field.name: members.pop(f"error_{field.name}") for field in fields(JobError)})
    return JobEntry(**members, counts=counts, error=error if error.message else None)


def bill_entry(row: sa.RowMapping) -> BillEntry:
    """Return the bill that a row with the columns of `deleted_batches` describes."""
    return BillEntry(**_members(row, deleted_batches))


def quote_entry(row: sa.RowMapping) -> QuoteEntry:
    """Return what a row of `quotes` describes."""
    return QuoteEntry(**_members(row, quotes))


def uploaded_file(row: sa.RowMapping) -> UploadedFile:
    """Return the file that a row of `attachments` describes."""
    members = _members(row, attachments)
    del members["batch_id"]
    return UploadedFile(**members, state="ACTIVE")


def _members(row: sa.RowMapping, table: sa.Table) -> dict[str, Any]:
    members = {column.key: row[column.key] for column in table.columns}
    for column in table.columns:
        # The database keeps whatever it is given, text in a column of numbers included.
        if isinstance(column.type, sa.Integer) and not isinstance(members[column.key], int | NoneType):
            raise ValueError(f"{column.name} is {members[column.key]!r}")
    return members


def values_of(value: Written, table: sa.Table, *, prefix: str = "") -> dict[str, Any]:
    """Return the fields of a value that are columns of a table, by their column."""
    names = (field.name for field in fields(value) if f"{prefix}{field.name}" in table.columns)
    return {f"{prefix}{name}": getattr(value, name) for name in names}
