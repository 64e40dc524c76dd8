"""Rows sent again: exactly their lines, byte for byte, and a refusal when the stored files are not what was sent."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import PathError, StorageError, UsageError
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.requests.selection import write_selected
from support.extent import in_part, tries

FAST = settings(max_examples=tries(60, 12), suppress_health_check=[HealthCheck.function_scoped_fixture])


def line(key: str, text: str = "hi") -> bytes:
    request = {"contents": [{"parts": [{"text": text}]}]}
    return json.dumps({"key": key, "request": request}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Batch:
    """A batch's request lines and keys as they are stored, and the files of a second attempt."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests = directory / "requests.jsonl"
        self.keys = directory / "keys.jsonl"
        self.sha256 = ""

    def store(self, *rows: bytes) -> None:
        given = self.directory / "given.jsonl"
        given.write_bytes(b"".join(rows))
        stored = write_request_copy(given, self.requests, task="generate", keys_path=self.keys, max_file_bytes=10**9)
        self.sha256 = stored.sha256
        given.unlink()

    def select(self, wanted: Collection[str] | Path, **options: Any) -> RequestFile:
        options = {"sha256": self.sha256} | options
        return write_selected(
            self.requests, self.keys, wanted, self.directory / "again.jsonl", self.directory / "again.keys", **options
        )

    def assert_refused(self, wanted: Collection[str] | Path, words: str, **options: Any) -> None:
        before = sorted(self.directory.iterdir())
        with pytest.raises(StorageError, match=words):
            self.select(wanted, **options)
        assert sorted(self.directory.iterdir()) == before


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path)


@in_part
@FAST
@given(keys=st.lists(st.text(min_size=1, max_size=9), unique=True, min_size=1, max_size=40), data=st.data())
def test_any_choice_of_lines_is_copied_in_order_byte_for_byte(
    batch: Batch, keys: list[str], data: st.DataObject
) -> None:
    wanted = data.draw(st.sets(st.sampled_from(keys), min_size=1))
    rows = [line(key, key[::-1]) for key in keys]
    batch.store(*rows)
    expected = b"".join(row for key, row in zip(keys, rows, strict=True) if key in wanted)
    listed = batch.directory / "wanted"
    listed.write_text("".join(json.dumps(key) + "\n" for key in sorted(wanted)), encoding="utf-8")

    for form in (frozenset(wanted), sorted(wanted), listed):
        selected = batch.select(form)

        assert selected.path.read_bytes() == expected
        assert (selected.count, selected.size_bytes) == (len(wanted), len(expected))
        assert selected.sha256 == hashlib.sha256(expected).hexdigest()
        assert [json.loads(key) for key in selected.keys_path.read_bytes().split(b"\n")[:-1]] == [
            key for key in keys if key in wanted
        ]
    listed.unlink()


def test_a_large_file_is_walked_in_pieces(batch: Batch) -> None:
    rows = [line(f"row-{number}", "x" * 200) for number in range(20_000)]
    batch.store(*rows)

    selected = batch.select({f"row-{number}" for number in range(0, 20_000, 100)})

    assert selected.path.read_bytes() == b"".join(rows[::100])


def test_lines_of_other_writers_are_found_too(batch: Batch) -> None:
    rows = [
        b'{"request":{"contents":[{"parts":[{"text":"x"}]}]},"key":"last"}\n',
        b'{ "key" : "\\u00fc" , "request" : {"contents":[{"parts":[{"text":"x"}]}]} }\n',
        b'{"key":"no line end","request":{"contents":[{"parts":[{"text":"x"}]}]}}',
    ]
    batch.store(*rows)
    batch.requests.write_bytes(b"".join(rows))

    assert batch.select({"last", "ü", "no line end"}, sha256="").path.read_bytes() == b"".join(rows) + b"\n"


def test_files_that_were_changed_are_refused_and_nothing_is_written(batch: Batch) -> None:
    rows = [line("a"), line("b"), line("c")]
    batch.store(*rows)
    keys = batch.keys.read_bytes()

    batch.requests.write_bytes(b"".join(rows).replace(b"hi", b"ho", 1))
    batch.assert_refused({"b"}, r"requests\.jsonl has changed since its lines were sent\.")
    batch.requests.write_bytes(line("a") + b"x" * (21 * 1024**2) + b"\n" + line("c"))
    batch.assert_refused({"c"}, r"requests\.jsonl has changed", sha256="")

    not_its_keys = r"keys\.jsonl no longer matches requests\.jsonl line by line"
    for content, wanted in (
        (b"".join((rows[1], rows[0], rows[2])), {"b"}),
        (b"".join(rows[:2]), {"b"}),
        (b"".join((*rows, line("d"))), {"b"}),
        (b"".join((rows[0], b"no JSON\n", rows[2])), {"b"}),
    ):
        batch.requests.write_bytes(content)
        batch.assert_refused(wanted, not_its_keys, sha256="")

    batch.requests.write_bytes(b"".join(rows))
    for damaged in (b'"a"\n"b\n"c"\n', b'"a"\n7\n"c"\n', b'"a"\n"\xff"\n"c"\n'):
        batch.keys.write_bytes(damaged)
        batch.assert_refused({"a"}, r"keys\.jsonl, a list of keys, is damaged")
    batch.keys.write_bytes(keys)
    batch.assert_refused({"a", "nobody"}, r"requests\.jsonl holds 1 of the 2 requests to be resent")
    batch.keys.write_bytes(b'"a"\n"a"\n"c"\n')
    batch.assert_refused({"a"}, not_its_keys)


def test_nothing_wanted_and_files_that_are_gone_are_refused(batch: Batch) -> None:
    batch.store(line("a"))
    with pytest.raises(UsageError, match="No rows were selected"):
        batch.select(())
    for gone in (batch.directory / "no such list", batch.keys, batch.requests):
        gone.unlink(missing_ok=True)
        with pytest.raises(PathError, match=f"{gone.name} cannot be read"):
            batch.select(gone if gone.name == "no such list" else {"a"})
