"""A state directory without locks, a row that cannot be read, a file of any content: how far it goes, what is said."""

import errno
import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client

from gemini_batch_mcp.assistant.server import build_server
from gemini_batch_mcp.errors import StorageError, state_failure
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, converse, line, write_lines
from support.extent import few

pytestmark = pytest.mark.anyio

#: What a ledger may hold in one row, by table and column, that nothing of ours has written.
DAMAGES = {
    ("jobs", "stage"): "flown",
    ("jobs", "state"): "JOB_STATE_OF_TOMORROW",
    ("jobs", "lack"): "everything",
    ("jobs", "created_at"): "yesterday",
    ("jobs", "rows_total"): "many",
    ("jobs", "shard"): b"\xff\x00",
    ("batches", "created_at"): "10000-01-01",
    ("batches", "order_json"): "{",
    ("batches", "warnings"): "[" * 5000,
    ("batches", "estimate_json"): '{"input_tokens": "x"}',
    ("batches", "rows_json"): "[1]",
    ("batches", "charges"): "[1]",
}
#: What is strange, and can be shown all the same.
ODD = {
    ("jobs", "created_at"): "9999-12-31 23:59:59.999999",
    ("batches", "created_at"): "0001-01-01 00:00:00.000000",
    ("jobs", "rows_failed"): -5,
    ("jobs", "attempt"): 10**15,
    ("jobs", "wire_state"): "BATCH_STATE_OF_TOMORROW",
}


async def _two_batches(talk: Conversation, data: Path) -> list[str]:
    orders = [write_lines(data / f"{name}.jsonl", [line(name)]) for name in ("good", "bad")]
    return [(await talk.call("create_batch", source=order))["batch_id"] for order in orders]


def _write(settings: Settings, batch: str, place: tuple[str, str], value: object) -> object:
    """Put a value into a row of the ledger, past the product; returns what was there."""
    table, column = place
    which = "id" if table == "batches" else "batch_id"
    with closing(sqlite3.connect(settings.home / "ledger.sqlite3")) as connection, connection:
        before = connection.execute(f"SELECT {column} FROM {table} WHERE {which} = ?", (batch,)).fetchone()[0]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {which} = ?", (value, batch))
    connection.close()
    return before


async def test_a_row_that_cannot_be_read_breaks_its_batch_and_nothing_else(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    good, bad = await _two_batches(talk, data)
    for place, value in DAMAGES.items():
        before = _write(talk.settings, bad, place, value)
        listed = await talk.call("list_jobs")
        assert [job["batch_id"] for job in listed["jobs"] if job["batch_id"]] == [good], place
        assert f"entry for the batch {bad} cannot be read" in listed["note"], (place, listed["note"])
        assert "move ledger.sqlite3" in listed["note"]
        assert (await talk.call("check_status", batch=good))["batch_id"] == good, place
        assert f"the batch {bad} cannot be read" in await talk.refusal("check_status", batch=bad), place
        # The page that follows goes on behind it.
        page = await talk.call("list_jobs", limit=1)
        assert len(page["jobs"]) == 1
        _write(talk.settings, bad, place, before)
    assert len((await talk.call("list_jobs"))["jobs"]) == 2
    for place, odd in ODD.items():
        before = _write(talk.settings, bad, place, odd)
        assert {job["batch_id"] for job in (await talk.call("list_jobs"))["jobs"]} == {good, bad}, place
        await talk.call("check_status", batch=bad)
        _write(talk.settings, bad, place, before)


async def test_another_order_is_taken_beside_a_row_that_cannot_be_read(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with converse(settings, sandbox) as talk:
        _, bad = await _two_batches(talk, data)
    _write(settings, bad, ("jobs", "shard"), b"\xff")
    async with converse(settings, sandbox) as talk:
        other = write_lines(data / "other.jsonl", [line("other")])
        assert (await talk.call("create_batch", source=other))["reused"] is False
        # Whether it stands for this one cannot be known, so it is not paid again.
        assert bad in await talk.refusal("create_batch", source=str(data / "bad.jsonl"))
    assert sandbox.creates == 3


@few(4)
@pytest.mark.parametrize("card", [b"", b"[]", b"5", b'{"jobs": 5}', b'{"jobs": [5]}', b"\xff", b"[" * 100_000, b"{}"])
async def test_a_damaged_card_is_set_aside_and_keeps_nothing_else_back(
    settings: Settings, sandbox: Sandbox, data: Path, card: bytes
) -> None:
    lost = settings.home / "batches" / "lost-abc234"
    lost.mkdir(parents=True)
    (lost / "batch.json").write_bytes(card)
    async with converse(settings, sandbox) as talk:
        created = await talk.call("create_batch", source=write_lines(data / "rows.jsonl", [line("k")]))
        assert created["reused"] is False
        assert len((await talk.call("list_jobs"))["jobs"]) == 1
    assert (lost / "batch.json.damaged").read_bytes() == card


async def test_a_job_of_another_age_is_listed_with_all_the_others(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    class Dated(httpx2.AsyncBaseTransport):
        """Says of every job that it was made at another time."""

        def __init__(self) -> None:
            self.way = sandbox.transport()
            self.time = ""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            response = await self.way.handle_async_request(request)
            content = await response.aread()
            if request.method == "GET" and "/batches" in request.url.path:
                body = response.json()
                for job in body.get("operations", [body]):
                    job["metadata"] |= {"createTime": self.time, "updateTime": self.time, "endTime": self.time}
                    job["metadata"]["batchStats"] = {"requestCount": "-3", "failedRequestCount": "x"}
                    job["metadata"]["state"] = "BATCH_STATE_OF_TOMORROW"
                return httpx2.Response(response.status_code, json=body, request=request)
            return httpx2.Response(response.status_code, headers=response.headers, content=content, request=request)

    dated = Dated()
    async with Client(build_server(settings, transport=lambda: dated), mode="auto") as client:
        source = write_lines(data / "rows.jsonl", [line("k")])
        created = await client.call_tool("create_batch", {"source": source})
        batch = (created.structured_content or {})["batch_id"]
        for dated.time in (
            "9999-12-31T23:59:59.999999999Z",
            "0001-01-01T00:00:00Z",
            "soon",
            "2026-13-45T99:00:00Z",
            "",
        ):
            calls: list[tuple[str, dict[str, Any]]] = [("list_jobs", {}), ("check_status", {"batch": batch})]
            for tool, arguments in calls:
                answer: Any = await client.call_tool(tool, arguments)
                assert not answer.is_error, (dated.time, answer.content)


def _no_locks(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("said", ["locking protocol", "disk I/O error", "database is locked"])
async def test_a_file_system_without_locks_is_named_with_what_to_do(
    settings: Settings, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    class Unlocked(sqlite3.Connection):
        """A database where no lock can be had, as SQLite tells of it."""

        def cursor(self, *arguments: Any, **options: Any) -> Any:
            raise sqlite3.OperationalError(said)

    connect = sqlite3.dbapi2.connect
    monkeypatch.setattr(sqlite3.dbapi2, "connect", lambda *a, **k: connect(*a, **k | {"factory": Unlocked}))
    async with converse(settings, sandbox) as talk:
        for tool, arguments in (
            ("create_batch", {"source": write_lines(data / "rows.jsonl", [line("k")])}),
            ("list_jobs", {}),
            ("check_status", {"batch": "x"}),
        ):
            sentence = await talk.refusal(tool, **arguments)
            for words in (str(settings.home), said, "network drive", "GEMINI_BATCH_HOME to a directory on a disk"):
                assert words in " ".join(sentence.split()), sentence
            assert "not foresee" not in sentence


async def test_a_lock_of_a_batch_that_cannot_be_had_is_told_in_the_same_way(
    talk: Conversation, sandbox: Sandbox, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(data / "rows.jsonl", [line("k")])
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", _no_locks)
        patched.setattr(fcntl, "lockf", _no_locks)
        sentence = await talk.refusal("create_batch", source=source)
    assert str(talk.settings.home) in sentence
    assert "network drives" in sentence
    assert sandbox.creates == 0
    assert (await talk.call("create_batch", source=source))["reused"] is False


def test_every_failure_of_the_state_directory_has_its_own_next_step(tmp_path: Path) -> None:
    steps = {
        state_failure(tmp_path, "The ledger", error).next_step
        for error in (
            OSError(errno.ENOLCK, "No locks available"),
            sqlite3.OperationalError("database is locked"),
            sqlite3.DatabaseError("database disk image is malformed"),
            OSError(errno.EACCES, "Permission denied"),
        )
    }
    assert len(steps) == 4
    assert isinstance(state_failure(tmp_path, "The ledger", OSError(errno.EIO, "x")), StorageError)
