"""The identities of requests as they are written down: in order, and as the engine reads them."""

from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.intake.requests.identities import IdentityFile, write_identities
from support.requests import ask, lines


@pytest.mark.parametrize("count", [0, 1, 70_000])
def test_the_engine_reads_identities_as_they_were_written(tmp_path: Path, count: int) -> None:
    """Of none, of one, and of more than a page holds."""
    found = [number.to_bytes(16, "big") for number in range(count)]
    with IdentityFile(tmp_path / "identities.parquet") as file:
        for start in range(0, count, 700):
            file.add(found[start : start + 700])
    rows = duckdb.execute(f"SELECT identity FROM read_parquet('{tmp_path / 'identities.parquet'}')")
    assert [row[0].bytes for row in rows.fetchall()] == found


def test_identities_taken_later_are_those_of_the_requests_whatever_their_keys(tmp_path: Path) -> None:
    requests, path = tmp_path / "requests.jsonl", tmp_path / "identities.parquet"
    requests.write_bytes(lines([ask("one"), ask("two"), ask("one")]))
    write_identities(requests, path, RequestDigest.of("gemini-3-flash-preview", "generate"))
    one, two, again = duckdb.execute(f"SELECT identity FROM read_parquet('{path}')").fetchall()
    assert one == again != two
