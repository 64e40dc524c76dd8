"""Rows laid against many earlier batches at once: each takes its answer from the first that has one."""

import hashlib
import random
from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.intake.requests.identities import IdentityFile
from gemini_batch_mcp.results.reuse.giving import Giving
from gemini_batch_mcp.results.reuse.matching import matching
from gemini_batch_mcp.results.reuse.spared_files import RawAnswers, SparedFiles


def batch(place: Path, name: str, answers: list[int]) -> Giving:
    """A batch that has answered these requests: number n in line n of its second file."""
    index = place / f"{name}.index"
    duckdb.execute(
        f"""COPY (SELECT md5(number::VARCHAR)::UUID AS identity, 1 AS file, number AS line, '' AS answered_by
                  FROM (SELECT unnest(?) AS number) ORDER BY identity) TO '{index}' (FORMAT parquet)""",
        [answers],
    )
    sources = tuple(RawAnswers(name, f"{name}-{number}.jsonl", 1, 1) for number in range(2))
    return Giving(name, "", index, sources)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_each_row_takes_its_answer_from_the_first_batch_that_has_one(tmp_path: Path, count: int) -> None:
    """Of batches that have nothing, little and much to give, and the same; looked through at once, or one by one."""
    choose = random.Random(7)
    asked = [choose.randrange(40_000) for _ in range(20_000)]
    sizes = [300, 3_000, 1, 35_000, 10, 800, 35_000, 200, 5][:count]
    given = {f"b{number}": sorted(choose.sample(range(50_000), size)) for number, size in enumerate(sizes)}
    wanted: dict[int, tuple[str, int]] = {}
    for name, answers in given.items():
        for number in answers:
            wanted.setdefault(number, (name, number))
    with IdentityFile(tmp_path / "identities.parquet") as file:
        file.add([hashlib.md5(str(number).encode()).digest() for number in asked])
    batches = [batch(tmp_path, name, answers) for name, answers in given.items()]
    with matching(tmp_path / "identities.parquet", tmp_path) as rows:
        spared = rows.take_from(batches).spared(tmp_path)
        sent = rows.sent()
        rows.write(tmp_path)

    firsts: dict[int, int] = {}
    for row, number in enumerate(asked, 1):
        firsts.setdefault(number, row)
    assert [row for row, is_sent in enumerate(sent, 1) if is_sent] == sorted(
        row for number, row in firsts.items() if number not in wanted
    )
    assert spared is not None
    by = [wanted[number][0] for number in asked if number in wanted]
    assert {donor.batch_id: donor.rows for donor in spared.donors} == {
        name: by.count(name) for name in dict.fromkeys(by)
    }
    assert (spared.reused_count, spared.count) == (len(by), len(asked) - sum(sent))
    files = SparedFiles(tmp_path)
    chosen = duckdb.execute(f"FROM '{files.chosen_path}'").fetchall()
    places = {row: (files.sources()[source].path, line, who) for row, source, line, who in chosen}
    assert places == {
        row: (f"{wanted[number][0]}-1.jsonl", number, wanted[number][0])
        for number, row in firsts.items()
        if number in wanted
    }
    assert duckdb.execute(f"FROM '{files.alike_path}'").fetchall() == [
        (row, firsts[number]) for row, number in enumerate(asked, 1) if firsts[number] != row
    ]
