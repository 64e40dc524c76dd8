"""What the sandbox remembers, on disk: files, uploads, jobs and every create, in one SQLite file.

Bytes lie beside it: `uploads/` (unfinished), `files/` (uploaded and generated), `jobs/` (the rows of unfinished jobs).
The state survives a killed process, and several processes may share one directory; it is not meant to survive a
power cut, so nothing is synced to the disk.
"""

import dataclasses
import secrets
import sqlite3
import string
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from gemini_batch_mcp.domain import Task

_ID_LETTERS: Final = string.ascii_lowercase + string.digits
#: How long a process waits for another one's transaction.
_BUSY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file at the Files API. Times are nanoseconds since 1970; `expire_ns` is 0 when it never expires."""

    name: str
    display_name: str
    mime_type: str
    size_bytes: int
    sha256: str
    source: str
    create_ns: int
    update_ns: int
    expire_ns: int = 0


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """A resumable upload. `declared_bytes` is -1 when the start gave no length; `status` as in X-Goog-Upload-Status."""

    upload_id: str
    file_name: str
    display_name: str
    mime_type: str
    declared_bytes: int
    received_bytes: int
    status: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A batch job. `state` is the wire name; `held` means that only commands move it."""

    name: str
    task: Task
    model: str
    display_name: str
    input_file: str
    webhook: str
    priority: int
    row_count: int
    token_count: int
    create_ns: int
    update_ns: int
    state: str = "BATCH_STATE_PENDING"
    held: bool = False
    reads: int = 0
    succeeded: int = 0
    failed: int = 0
    end_ns: int = 0
    cancel_ns: int = 0
    #: google.rpc.Status as JSON, empty when there is none.
    error: str = ""
    responses_file: str = ""
    #: Of a job of Vertex AI what its create said beyond the rest, as JSON; empty for a job of the Developer API.
    cloud: str = ""

    @property
    def is_inline(self) -> bool:
        """True when the rows came inside the create."""
        return not self.input_file

    @property
    def is_done(self) -> bool:
        """True when nothing moves the job any more."""
        return self.end_ns > 0


@dataclass(frozen=True, slots=True)
class CreateRecord:
    """One effective create; kept when the job is deleted."""

    name: str
    display_name: str
    model: str
    task: Task
    row_count: int
    create_ns: int


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """An object in Cloud Storage; `name` begins with its bucket. `metadata` is JSON."""

    name: str
    generation: str
    size_bytes: int
    crc32c: int
    content_type: str
    metadata: str
    create_ns: int


Record = TypeVar("Record", FileRecord, UploadRecord, JobRecord, CreateRecord, ObjectRecord)

_TABLES: Final = {
    FileRecord: "files",
    UploadRecord: "uploads",
    JobRecord: "jobs",
    CreateRecord: "creates",
    ObjectRecord: "objects",
}


def new_id(length: int) -> str:
    """Return a random id of lowercase letters and digits."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(length))


class State:
    """The records of one directory. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("uploads", "files", "jobs", "objects"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            directory / "state.sqlite3", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._database.row_factory = sqlite3.Row
        self._close = weakref.finalize(self, self._database.close)
        self._prepare()

    def close(self) -> None:
        """Let go of the database."""
        self._close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("PRAGMA journal_mode=WAL")
        with self.transaction():
            for record, table in _TABLES.items():
                first, *others = (field.name for field in dataclasses.fields(record))
                columns = ", ".join([f"{first} PRIMARY KEY", *others])
                self._database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
                known = {row["name"] for row in self._database.execute(f"PRAGMA table_info({table})")}
                for name in others:
                    if name not in known:  # what an earlier version has left
                        self._database.execute(f"ALTER TABLE {table} ADD COLUMN {name} DEFAULT ''")
            self._database.execute("CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (create_ns, name)")
            self._database.execute("CREATE INDEX IF NOT EXISTS files_by_age ON files (create_ns, name)")

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Everything inside happens at once or not at all, for threads and processes alike."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def save(self, record: FileRecord | UploadRecord | JobRecord | CreateRecord | ObjectRecord) -> None:
        """Write the record, replacing the one of the same name."""
        # Table and column names in these statements are literals of this file (S608); values are always bound.
        values = dataclasses.astuple(record)
        marks = ", ".join("?" * len(values))
        with self._lock:
            self._database.execute(f"INSERT OR REPLACE INTO {_TABLES[type(record)]} VALUES ({marks})", values)  # noqa: S608

    def file(self, name: str) -> FileRecord | None:
        """Return the file of that name, expired or not."""
        return self._one(FileRecord, "name", name)

    def upload(self, upload_id: str) -> UploadRecord | None:
        """Return the upload of that id."""
        return self._one(UploadRecord, "upload_id", upload_id)

    def job(self, name: str) -> JobRecord | None:
        """Return the job of that name."""
        return self._one(JobRecord, "name", name)

    def remove_file(self, name: str) -> None:
        """Forget a file and its bytes."""
        self._delete("files", name)
        self.file_path(name).unlink(missing_ok=True)

    def remove_job(self, name: str) -> None:
        """Forget a job with its rows and inlined answers; a result file stays."""
        self._delete("jobs", name)
        self.rows_path(name).unlink(missing_ok=True)
        self.answers_path(name).unlink(missing_ok=True)

    def files(self, limit: int, after: tuple[int, str] | None, alive_at_ns: int) -> list[FileRecord]:
        """Return unexpired files, newest first, those behind `after` (create time, name)."""
        clause, values = _behind(after)
        where = f"(expire_ns = 0 OR expire_ns > ?) AND {clause}"
        return self._many(FileRecord, where, [alive_at_ns, *values], limit)

    def jobs(
        self, limit: int, after: tuple[int, str] | None, created_until_ns: int, *, is_cloud: bool = False
    ) -> list[JobRecord]:
        """Return jobs of one API created up to a time, newest first, those behind `after` (create time, name)."""
        clause, values = _behind(after)
        where = f"create_ns <= ? AND (cloud <> '') = ? AND {clause}"
        return self._many(JobRecord, where, [created_until_ns, is_cloud, *values], limit)

    def object(self, name: str) -> ObjectRecord | None:
        """Return the object of that name."""
        return self._one(ObjectRecord, "name", name)

    def objects(self, prefix: str) -> list[ObjectRecord]:
        """Return the objects whose names begin so, by their names."""
        found = self._many(ObjectRecord, "substr(name, 1, ?) = ?", [len(prefix), prefix], -1)
        return sorted(found, key=lambda record: record.name)

    def remove_object(self, name: str) -> None:
        """Forget an object."""
        self._delete("objects", name)

    def expired_files(self, now_ns: int) -> list[FileRecord]:
        """Return the files whose time is over."""
        return self._many(FileRecord, "expire_ns > 0 AND expire_ns <= ?", [now_ns], -1)

    def unfinished_jobs(self) -> list[JobRecord]:
        """Return the jobs that still move."""
        return self._many(JobRecord, "end_ns = 0", [], -1)

    def creates(self) -> list[CreateRecord]:
        """Return every effective create, newest first."""
        return self._many(CreateRecord, "1", [], -1)

    def stored_bytes(self, alive_at_ns: int) -> int:
        """Return the size of all files that have not expired."""
        query = "SELECT COALESCE(SUM(size_bytes), 0) FROM files WHERE expire_ns = 0 OR expire_ns > ?"
        with self._lock:
            return int(self._database.execute(query, [alive_at_ns]).fetchone()[0])

    def file_path(self, name: str) -> Path:
        """Return where the bytes of a file lie."""
        return self.directory / "files" / name.removeprefix("files/")

    def upload_path(self, upload_id: str) -> Path:
        """Return where the bytes of an unfinished upload lie."""
        return self.directory / "uploads" / upload_id

    def rows_path(self, job_name: str) -> Path:
        """Return where the rows of an unfinished job lie."""
        return self.directory / "jobs" / f"{job_name.removeprefix('batches/')}.jsonl"

    def answers_path(self, job_name: str) -> Path:
        """Return where the inlined answers of a finished job lie."""
        return self.rows_path(job_name).with_suffix(".answers.json")

    def _one(self, kind: type[Record], column: str, value: str) -> Record | None:
        found = self._rows(f"SELECT * FROM {_TABLES[kind]} WHERE {column} = ?", [value])  # noqa: S608
        return msgspec.convert(found[0], kind, strict=False) if found else None

    def _many(self, kind: type[Record], where: str, values: list[Any], limit: int) -> list[Record]:
        query = f"SELECT * FROM {_TABLES[kind]} WHERE {where} ORDER BY create_ns DESC, name DESC LIMIT {limit}"  # noqa: S608
        return msgspec.convert(self._rows(query, values), list[kind], strict=False)  # type: ignore[valid-type]  # a type made at run time

    def _rows(self, query: str, values: list[Any]) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self._database.execute(query, values)]

    def _delete(self, table: str, name: str) -> None:
        with self._lock:
            self._database.execute(f"DELETE FROM {table} WHERE name = ?", [name])  # noqa: S608


def _behind(after: tuple[int, str] | None) -> tuple[str, list[Any]]:
    if after is None:
        return "1", []
    return "(create_ns, name) < (?, ?)", list(after)
