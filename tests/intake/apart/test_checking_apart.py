"""Lines that another process checks are found to be what this one finds, and what it cannot do is left to this one."""

import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from gemini_batch_mcp.digests import RequestDigest
from gemini_batch_mcp.errors import RequestProblems
from gemini_batch_mcp.intake.apart.checking import Apart, Stopped
from gemini_batch_mcp.intake.apart.surveyed import IDENTITIES, KEYS, Surveyed, Wanted
from gemini_batch_mcp.intake.prices.survey import Limits, Surveyor
from gemini_batch_mcp.intake.requests.identities import Identities
from gemini_batch_mcp.intake.requests.reader import check_file
from support.conversation import line

ROWS = 3000
MODEL = "gemini-3-flash-preview"


def wanted(tmp_path: Path, text: str, name: str = "there") -> Wanted:
    path, directory = (tmp_path / "lines.jsonl").resolve(), tmp_path.resolve() / name
    path.write_text(text, encoding="utf-8")
    directory.mkdir()
    return Wanted(path, directory, "0" * 64, MODEL, "generate", Limits(1000, 200_000), True, True, True)


def checked_here(want: Wanted) -> Surveyed:
    surveyor = Surveyor(MODEL, limits=want.limits)
    digest = RequestDigest.of(MODEL, "generate")
    identities = Identities(surveyor, want.directory / IDENTITIES, digest, needs_schema=want.needs_schema)
    keys = want.directory / KEYS
    try:
        lines = check_file(want.path, task="generate", keys_path=keys, sha256=want.sha256, onlooker=identities)
    finally:
        identities.close()
    return Surveyed.of(lines, surveyor, identities)


def test_it_finds_what_this_process_finds(tmp_path: Path) -> None:
    schema = {"responseSchema": {"type": "OBJECT"}, "maxOutputTokens": 50}
    text = "".join(
        f"{line(f'k{number}', f'kettle {number} ' * 9, generationConfig=schema)}\n" for number in range(ROWS)
    )
    there = wanted(tmp_path, text)
    seen: list[int] = []
    found = Apart().run(there, seen.append)
    here = replace(there, directory=tmp_path.resolve() / "here")
    here.directory.mkdir()
    expected = checked_here(here)

    assert found is not None
    assert (found.surveyor.survey(), found.surveyor.requests()) == (
        expected.surveyor.survey(),
        expected.surveyor.requests(),
    )
    assert (found.terms, found.sizes) == (expected.terms, expected.sizes)
    assert found.lines.identities_path is not None and expected.lines.identities_path is not None
    assert found.lines.count == len(found.sizes) == ROWS
    assert found.lines.asked_schema == expected.lines.asked_schema
    for name in (KEYS, IDENTITIES):
        assert (there.directory / name).read_bytes() == (here.directory / name).read_bytes()
    assert seen and seen == sorted(seen) and seen[-1] <= ROWS, "it says how far it is"


def test_wrong_lines_are_told_as_here(tmp_path: Path) -> None:
    want = wanted(tmp_path, f'{line("a")}\n{{"key":"b","request":{{}}}}\n{line("a")}\n')
    with pytest.raises(RequestProblems) as here:
        checked_here(want)
    with pytest.raises(RequestProblems) as there:
        Apart().run(want, lambda rows: None)

    assert str(there.value) == str(here.value)
    assert there.value.problem_count == here.value.problem_count == 2
    assert not (want.directory / KEYS).exists()


@pytest.mark.parametrize(
    "text",
    [f"\ufeff{line('a')}\n", f"{line('a')}\r\n", f"{line('a', brandNew=1)}\n", ""],
    ids=["a mark", "line ends to be mended", "a member to be looked up", "no file of requests"],
)
def test_what_it_cannot_do_is_left_to_this_process(tmp_path: Path, text: str) -> None:
    assert Apart().run(wanted(tmp_path, text), lambda rows: None) is None


def test_one_that_is_stopped_ends_at_once(tmp_path: Path) -> None:
    """No process of it is left."""
    want = wanted(tmp_path, f"{line('a')}\n" * 400_000)
    apart = Apart()
    before = set(psutil.Process().children())
    threading.Timer(0.3, apart.stop).start()
    with pytest.raises(Stopped):
        apart.run(want, lambda rows: None)
    with pytest.raises(Stopped):
        apart.run(want, lambda rows: None)
    assert set(psutil.Process().children()) <= before
