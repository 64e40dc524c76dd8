"""The ledger: a reservation before every risk, and one job for it, whatever happens around it."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gemini_batch_mcp.batches.ledger.entries import NewBatch, SavedEntry, Stage
from gemini_batch_mcp.batches.ledger.ledger import Ledger
from gemini_batch_mcp.domain import JobError, JobState, Order, RowCounts, RowOutcomes, UploadedFile
from gemini_batch_mcp.errors import StorageError

ORDER = NewBatch(
    order_sha256="a" * 64, display_name="My reviews", model="m", task="generate", delivery="file", source="x.jsonl"
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path / "home" / "ledger.sqlite3")
    yield opened
    opened.close()


def test_a_reservation_is_there_before_anything_else(ledger: Ledger) -> None:
    batch, is_new = ledger.reserve(ORDER)

    assert is_new
    assert batch.id.startswith("my-reviews-")
    assert batch.jobs[0].stage is Stage.RESERVED
    assert batch.jobs[0].state is JobState.QUEUED
    assert batch.jobs[0].tag == f"[{batch.id}/1.1]"
    assert not batch.is_submitted


def test_the_same_order_stands_until_its_job_has_come_to_nothing(ledger: Ledger) -> None:
    batch, _ = ledger.reserve(ORDER)
    for stage in (Stage.UPLOADED, Stage.UNKNOWN, Stage.SUBMITTED, Stage.FINISHED, Stage.COLLECTED):
        ledger.update_job(batch.jobs[0].id, stage=stage)
        assert ledger.reserve(ORDER)[0].id == batch.id
    ledger.update_job(batch.jobs[0].id, stage=Stage.FAILED)

    assert ledger.reserve(ORDER)[1]


def test_an_order_for_another_model_is_another_order(ledger: Ledger) -> None:
    first, _ = ledger.reserve(ORDER)
    second, is_new = ledger.reserve(replace(ORDER, order_sha256="b" * 64))

    assert is_new
    assert second.id != first.id


def test_many_threads_reserve_one_order_once(tmp_path: Path) -> None:
    """Each thread has a ledger of its own, as processes have."""
    path = tmp_path / "ledger.sqlite3"
    Ledger.open(path).close()
    barrier = threading.Barrier(5)
    made: list[bool] = []

    def order() -> None:
        own = Ledger.open(path)
        barrier.wait()
        made.append(own.reserve(ORDER)[1])
        own.close()

    threads = [threading.Thread(target=order) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(made) == [False, False, False, False, True]


def test_what_is_written_is_read_back_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    first = Ledger.open(path)
    batch, _ = first.reserve(ORDER)
    first.update_batch(batch.id, request_count=7, warnings=["one", "two"])
    first.update_job(
        batch.jobs[0].id,
        stage=Stage.SUBMITTED,
        name="batches/abc",
        state=JobState.RUNNING,
        counts=RowCounts(7, 3, 1, 3),
        error=JobError(13, "internal"),
    )
    first.close()
    second = Ledger.open(path)
    seen = second.batch_of_job("batches/abc")
    second.close()

    assert seen is not None
    assert seen.request_count == 7
    assert seen.warnings == ("one", "two")
    assert seen.jobs[0].counts == RowCounts(7, 3, 1, 3)
    assert seen.jobs[0].error == JobError(13, "internal")
    assert seen.created_at.tzinfo is not None


def test_an_order_and_its_files_come_back_as_they_were_given(ledger: Ledger) -> None:
    """Text may hold half a surrogate pair, which the database does not take."""
    order = Order(source="/x.csv", prompt="{{a}} \ud800", response_schema={"type": "object"}, limit_rows=3)
    file = UploadedFile("files/a", 5, "c" * 64, "image/png", "ACTIVE", datetime(2030, 1, 2, tzinfo=UTC), "https://a/b")
    batch, _ = ledger.reserve(replace(ORDER, order=order, content_sha256="b" * 64))
    ledger.record_attachment(batch.id, file.sha256, file)

    seen = ledger.batch(batch.id)
    assert seen is not None
    assert seen.order == order
    assert all(getattr(seen, name) == getattr(ORDER, name) for name in ("display_name", "model", "task", "source"))
    assert (seen.estimate, seen.warnings, seen.failure, seen.jobs[0].error) == (None, (), "", None)
    assert (seen.jobs[0].name, seen.jobs[0].created_at, seen.jobs[0].counts) == ("", None, RowCounts())
    assert ledger.attachments(batch.id) == {file.sha256: file}


def test_one_gemini_job_cannot_belong_to_two_batches(ledger: Ledger) -> None:
    first, _ = ledger.reserve(ORDER)
    second, _ = ledger.reserve(replace(ORDER, order_sha256="another"))
    ledger.update_job(first.jobs[0].id, name="batches/abc")

    with pytest.raises(StorageError, match="contradicts"):
        ledger.update_job(second.jobs[0].id, name="batches/abc")


def test_a_job_made_elsewhere_is_adopted_once(ledger: Ledger) -> None:
    elsewhere = replace(ORDER, order_sha256="", is_ours=False)

    assert ledger.adopt(elsewhere, "batches/x").id == ledger.adopt(elsewhere, "batches/x").id
    assert ledger.known_jobs(["batches/x", "batches/y"]) == {"batches/x"}


def test_a_forgotten_batch_leaves_nothing(ledger: Ledger, tmp_path: Path) -> None:
    batch, _ = ledger.reserve(ORDER)
    ledger.saves.record(batch.id, tmp_path / "out.jsonl", SavedEntry("f" * 64))
    ledger.forget(batch.id)

    assert ledger.batch(batch.id) is None
    assert ledger.batches_named("My reviews") == ()
    assert ledger.saves.found(batch.id, tmp_path / "out.jsonl") is None
    assert ledger.batch_ids() == ()


def test_a_ledger_from_before_templates_were_noted_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    before = Ledger.open(path)
    old, _ = before.reserve(ORDER)
    before.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP INDEX batches_template")
        connection.execute("ALTER TABLE batches DROP COLUMN template_sha256")
        connection.execute("DELETE FROM migrations WHERE name = '_m018_templates'")
    connection.close()

    ledger = Ledger.open(path)
    new, _ = ledger.reserve(replace(ORDER, order_sha256="b" * 64, template_sha256="t" * 64))
    for batch in (old, new):
        ledger.update_batch(batch.id, rows=RowOutcomes(ok=1))
    seen = ledger.batch(old.id)
    assert seen is not None
    assert seen.template_sha256 == ""
    assert [batch.id for batch in ledger.answered_alike("t" * 64, limit=5)] == [new.id]
    ledger.close()


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Ledger.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migrations VALUES ('_m999_from_the_future', '2030-01-01')")
    connection.close()

    with pytest.raises(StorageError, match="newer version"):
        Ledger.open(path)


def test_a_file_that_is_no_ledger_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_text("this is no database, and long enough to be looked at\n" * 50)
    with pytest.raises(StorageError, match="is damaged"):
        Ledger.open(tmp_path / "ledger.sqlite3")


def test_a_state_directory_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="GEMINI_BATCH_HOME"):
        Ledger.open(tmp_path / "file" / "home" / "ledger.sqlite3")
