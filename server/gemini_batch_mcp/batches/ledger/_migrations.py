"""The ordered migrations that lead to the ledger's tables.

A migration, once released, is never edited: a change is a new function at the end of `MIGRATIONS`. Each runs in the
transaction that records it, and is literal SQL, so that a later change to the values cannot alter history.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePath

import sqlalchemy as sa

from gemini_batch_mcp.errors import StorageError


def _m001_batches_and_jobs(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        """
        CREATE TABLE batches (
            id TEXT PRIMARY KEY,
            order_sha256 TEXT NOT NULL,
            display_name TEXT NOT NULL,
            model TEXT NOT NULL,
            task TEXT NOT NULL,
            delivery TEXT NOT NULL,
            source TEXT NOT NULL,
            is_ours BOOLEAN NOT NULL,
            created_at DATETIME NOT NULL,
            request_count INTEGER NOT NULL DEFAULT 0,
            size_bytes INTEGER NOT NULL DEFAULT 0,
            request_sha256 TEXT NOT NULL DEFAULT '',
            warnings TEXT NOT NULL DEFAULT '[]',
            failure TEXT NOT NULL DEFAULT ''
        )
        """
    )
    connection.exec_driver_sql("CREATE INDEX batches_order ON batches (order_sha256)")
    connection.exec_driver_sql("CREATE INDEX batches_display_name ON batches (display_name)")
    connection.exec_driver_sql(
        """
        CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            batch_id TEXT NOT NULL REFERENCES batches (id),
            shard INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            stage TEXT NOT NULL,
            state TEXT NOT NULL,
            wire_state TEXT NOT NULL DEFAULT '',
            name TEXT UNIQUE,
            uploaded_file TEXT NOT NULL DEFAULT '',
            responses_file TEXT NOT NULL DEFAULT '',
            request_count INTEGER NOT NULL DEFAULT 0,
            rows_total INTEGER NOT NULL DEFAULT 0,
            rows_succeeded INTEGER NOT NULL DEFAULT 0,
            rows_failed INTEGER NOT NULL DEFAULT 0,
            rows_pending INTEGER NOT NULL DEFAULT 0,
            error_code INTEGER NOT NULL DEFAULT 0,
            error_message TEXT NOT NULL DEFAULT '',
            created_at DATETIME,
            ended_at DATETIME,
            answers_sha256 TEXT NOT NULL DEFAULT '',
            UNIQUE (batch_id, shard, attempt)
        )
        """
    )


def _m002_saved_files(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        """
        CREATE TABLE saved_files (
            path TEXT PRIMARY KEY,
            batch_id TEXT NOT NULL REFERENCES batches (id),
            sha256 TEXT NOT NULL
        )
        """
    )


def _m003_shards_and_waits(connection: sa.Connection) -> None:
    for table, column, kind in (
        ("batches", "order_json", "TEXT NOT NULL DEFAULT ''"),
        ("batches", "content_sha256", "TEXT NOT NULL DEFAULT ''"),
        ("batches", "request_path", "TEXT NOT NULL DEFAULT ''"),
        ("batches", "estimate_json", "TEXT NOT NULL DEFAULT ''"),
        ("jobs", "model", "TEXT NOT NULL DEFAULT ''"),
        ("jobs", "first_row", "INTEGER NOT NULL DEFAULT 0"),
        ("jobs", "first_byte", "INTEGER NOT NULL DEFAULT 0"),
        ("jobs", "size_bytes", "INTEGER NOT NULL DEFAULT 0"),
        ("jobs", "sha256", "TEXT NOT NULL DEFAULT ''"),
        ("jobs", "input_tokens", "INTEGER NOT NULL DEFAULT 0"),
        ("jobs", "wait_reason", "TEXT NOT NULL DEFAULT ''"),
        ("jobs", "wait_until", "DATETIME"),
        ("jobs", "waits", "INTEGER NOT NULL DEFAULT 0"),
        ("jobs", "moved_at", "DATETIME"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    connection.exec_driver_sql("CREATE INDEX jobs_stage ON jobs (stage)")


def _m004_attachments_and_quotes(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        """
        CREATE TABLE attachments (
            batch_id TEXT NOT NULL REFERENCES batches (id),
            sha256 TEXT NOT NULL,
            name TEXT NOT NULL,
            uri TEXT NOT NULL,
            mime_type TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            expires_at DATETIME,
            PRIMARY KEY (batch_id, sha256)
        )
        """
    )
    connection.exec_driver_sql(
        """
        CREATE TABLE quotes (
            order_sha256 TEXT PRIMARY KEY,
            source TEXT NOT NULL,
            quoted_at DATETIME NOT NULL
        )
        """
    )


def _m005_tagged_digests(connection: sa.Connection) -> None:
    for table, column, name in (("jobs", "answers_sha256", "answers_digest"), ("saved_files", "sha256", "digest")):
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME COLUMN {column} TO {name}")
        connection.exec_driver_sql(f"UPDATE {table} SET {name} = 'sha256:' || {name} WHERE {name} <> ''")  # noqa: S608 - our own names


def _m006_delivery(connection: sa.Connection) -> None:
    for column, kind in (
        ("lack", "TEXT NOT NULL DEFAULT ''"),
        ("looks", "INTEGER NOT NULL DEFAULT 0"),
        ("look_again_at", "DATETIME"),
        ("seen_digest", "TEXT NOT NULL DEFAULT ''"),
        # NULL: collected by a version that did not count.
        ("answer_count", "INTEGER"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE jobs ADD COLUMN {column} {kind}")
    connection.exec_driver_sql(
        "UPDATE jobs SET lack = 'output' WHERE responses_file = '' AND "
        "(stage = 'finished' OR stage = 'collected' AND state = 'JOB_STATE_EXPIRED')"
    )


def _m007_kinds_of_files(connection: sa.Connection) -> None:
    """Put to each order's fingerprint how its source is read: the same bytes under another ending are another order.

    It is put to it and not computed anew: not all that is part of one now is in the ledger (how files were attached).
    """
    forms = {
        ".csv": "delimited ,",
        ".tsv": "delimited \t",
        ".json": "json-list ",
        ".jsonl": "json-lines ",
        ".ndjson": "json-lines ",
        ".parquet": "parquet ",
        ".txt": "text-lines ",
    }
    # Where the order was not kept yet, its source was all the same.
    query = "SELECT id, order_sha256, source FROM batches WHERE order_sha256 <> ''"
    for batch_id, before, source in connection.exec_driver_sql(query).all():
        form = forms.get(PurePath(source).suffix.lower(), "")
        after = hashlib.sha256(f"order-1 {before} {form}".encode()).hexdigest()
        connection.exec_driver_sql("UPDATE batches SET order_sha256 = ? WHERE id = ?", (after, batch_id))


def _m008_sent(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN sent_at DATETIME")
    # What was refused for a quota may have been created all the same; so may what got no reply.
    connection.exec_driver_sql(
        "UPDATE jobs SET sent_at = (SELECT created_at FROM batches WHERE id = batch_id) "
        "WHERE name IS NULL AND (stage = 'unknown' OR stage IN ('reserved', 'uploaded') AND waits > 0)"
    )


def _m009_answers_to_quotes(connection: sa.Connection) -> None:
    for column, kind in (
        # NULL: quoted by a version that did not keep the figure.
        ("figure", "TEXT"),
        ("declined_at", "DATETIME"),
        ("paid_for", "TEXT NOT NULL DEFAULT ''"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE quotes ADD COLUMN {column} {kind}")


def _m010_accounts(connection: sa.Connection) -> None:
    for column in ("account", "key_origin"):
        connection.exec_driver_sql(f"ALTER TABLE jobs ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql("CREATE TABLE salts (salt TEXT NOT NULL)")
    connection.exec_driver_sql("INSERT INTO salts VALUES (?)", (secrets.token_hex(16),))


def _m011_row_outcomes(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN rows_json TEXT NOT NULL DEFAULT ''")
    # A job made elsewhere was entered with the time at which it was first looked at.
    connection.exec_driver_sql(
        "UPDATE batches SET created_at = (SELECT min(jobs.created_at) FROM jobs WHERE jobs.batch_id = batches.id) "
        "WHERE NOT is_ours AND EXISTS "
        "(SELECT 1 FROM jobs WHERE jobs.batch_id = batches.id AND jobs.created_at IS NOT NULL)"
    )


def _m012_deleting(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN is_deleting BOOLEAN NOT NULL DEFAULT 0")


def _m013_withdrawals(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN withdrawn_at DATETIME")
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN callers INTEGER NOT NULL DEFAULT 1")
    connection.exec_driver_sql(
        "CREATE TABLE withdrawals (order_sha256 TEXT PRIMARY KEY, withdrawn_at DATETIME NOT NULL)"
    )


def _m014_cleanings(connection: sa.Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE cleanings (mark TEXT PRIMARY KEY)")


def _m015_what_saved_files_hold(connection: sa.Connection) -> None:
    for column, kind in (
        # Empty: written by a version that only knew whole tables, and wrote other columns.
        ("wish", "TEXT NOT NULL DEFAULT ''"),
        ("row_count", "INTEGER NOT NULL DEFAULT 0"),
        ("notes", "TEXT NOT NULL DEFAULT ''"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE saved_files ADD COLUMN {column} {kind}")


def _m016_charges(connection: sa.Connection) -> None:
    # Empty: collected by a version that did not note what was billed.
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN charges TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql(
        """
        CREATE TABLE deleted_batches (
            batch_id TEXT PRIMARY KEY,
            display_name TEXT NOT NULL,
            model TEXT NOT NULL,
            created_at DATETIME NOT NULL,
            charges TEXT NOT NULL,
            unknown_rows INTEGER NOT NULL,
            answered_jobs INTEGER NOT NULL
        )
        """
    )


def _m017_skipped_lines(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN skipped_count INTEGER NOT NULL DEFAULT 0")


def _m018_templates(connection: sa.Connection) -> None:
    # Empty: ordered by a version that did not note what asks the same of other rows.
    connection.exec_driver_sql("ALTER TABLE batches ADD COLUMN template_sha256 TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql("CREATE INDEX batches_template ON batches (template_sha256)")


def _m019_reuse(connection: sa.Connection) -> None:
    for column, kind in (
        ("reused_count", "INTEGER NOT NULL DEFAULT 0"),
        ("identical_count", "INTEGER NOT NULL DEFAULT 0"),
        ("donors", "TEXT NOT NULL DEFAULT '[]'"),
        ("is_anew", "BOOLEAN NOT NULL DEFAULT 0"),
    ):
        connection.exec_driver_sql(f"ALTER TABLE batches ADD COLUMN {column} {kind}")


def _m020_calls(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN tier TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN lost_rows INTEGER NOT NULL DEFAULT 0")


#: In order, for ever.
MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _m001_batches_and_jobs,
    _m002_saved_files,
    _m003_shards_and_waits,
    _m004_attachments_and_quotes,
    _m005_tagged_digests,
    _m006_delivery,
    _m007_kinds_of_files,
    _m008_sent,
    _m009_answers_to_quotes,
    _m010_accounts,
    _m011_row_outcomes,
    _m012_deleting,
    _m013_withdrawals,
    _m014_cleanings,
    _m015_what_saved_files_hold,
    _m016_charges,
    _m017_skipped_lines,
    _m018_templates,
    _m019_reuse,
    _m020_calls,
)


def migrate(connection: sa.Connection) -> None:
    """Apply what is pending, inside the caller's transaction.

    Raises:
        StorageError: the ledger was written by a newer version.
    """
    connection.exec_driver_sql(
        "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)"
    )
    applied = set(connection.exec_driver_sql("SELECT name FROM migrations").scalars())
    known = {migration.__name__ for migration in MIGRATIONS}
    if newer := sorted(applied - known):
        raise StorageError(
            f"This ledger was written by a newer version (it knows {newer[0]!r}).",
            "Upgrade gemini-batch-mcp, or set GEMINI_BATCH_HOME to another directory.",
        )
    for migration in MIGRATIONS:
        if migration.__name__ not in applied:
            migration(connection)
            connection.exec_driver_sql(
                "INSERT INTO migrations VALUES (?, ?)", (migration.__name__, datetime.now(UTC).isoformat())
            )
