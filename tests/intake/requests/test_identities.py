"""The identities of requests as they are written down: in order, and as the engine reads them."""

from pathlib import Path

import duckdb
import pytest

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.intake.requests.identities import IdentityFile, identities, write_identities
from gemini_batch_mcp.intake.requests.lines import CutLines, ended_lines
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


DIGEST = RequestDigest.of("gemini-3-flash-preview", "generate")


@pytest.mark.parametrize(
    "form",
    [
        '{"key":"KEY","request":REQUEST}',
        '{"key":"KEY", "request":REQUEST}',
        '{ "key": "KEY", "request": REQUEST }',
        '{"request":REQUEST,"key":"KEY"}',
        '{"key":"{KEY}","request":REQUEST}',
        r'{"key":"\",\"request\":{KEY","request":REQUEST}',
    ],
)
def test_requests_are_told_apart_however_a_line_is_put_together(form: str) -> None:
    """Also where something in them is called `request`, and where a key looks like the end of one."""
    schema = '{"type":"OBJECT","properties":{"x":{"type":"STRING"},"request":{"type":"STRING"}}}'
    config = f'"generationConfig":{{"responseSchema":{schema}}}'
    asks = [f'{{"contents":[{{"parts":[{{"text":"{text}"}}]}}],{config}}}' for text in ("one", "two", "one")]
    piece = "".join(form.replace("KEY", f"k{n}").replace("REQUEST", ask) + "\n" for n, ask in enumerate(asks)).encode()
    one, two, again = identities(piece, ended_lines(piece), DIGEST)
    assert one == again != two
    plain = f'{{"key":"k","request":{asks[0]}}}\n'.encode()
    assert identities(plain, [plain], DIGEST) == [one]
    # Neither the end of a line nor how its lines were cut makes another request.
    assert identities(piece[:-1], ended_lines(piece[:-1]), DIGEST) == [one, two, again]
    assert identities(plain, CutLines([plain]), DIGEST) == identities(plain[:-1], [plain[:-1]], DIGEST) == [one]


@pytest.mark.parametrize("are_made", [True, False])
def test_rendered_lines_are_cut_where_their_keys_end(are_made: bool) -> None:
    """Whether keys are of one length or of several, and whatever is in them."""
    for keys in (["k8", "k9"], ["k9", "k10", r"\",\"request\":{"]):
        lines = [f'{{"key":"{key}","request":{{"n":{n},"request":{{}}}}}}\n'.encode() for n, key in enumerate(keys)]
        cut = CutLines(lines, keys_are_made=are_made)
        assert cut == lines
        assert cut.keys.decode() == "\n".join(f'"{key}"' for key in keys)
        assert cut.requests == [f'"n":{n},"request":{{}}}}}}\n'.encode() for n in range(len(keys))]
