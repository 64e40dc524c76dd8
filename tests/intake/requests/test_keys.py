"""Keys in order and repeated keys, for few and for very many, exact whatever the hashes do."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.intake.requests.keys import KeyLog, Keys, Repeats


def log_of(directory: Path, *runs: list[str]) -> KeyLog:
    log = KeyLog(directory / "keys.jsonl")
    for keys in runs:
        log.extend(Keys(keys))
    return log


def test_different_keys_have_no_repeats(tmp_path: Path) -> None:
    with log_of(tmp_path, [f"row-{number}" for number in range(100_000)]) as log:
        assert log.repeats(20) == Repeats(0, ())


@settings(max_examples=40)
@given(st.lists(st.lists(st.text(alphabet="ab\n\U0001f600é9", min_size=1, max_size=3), min_size=1), min_size=1))
def test_every_repeat_is_found_whatever_order_keys_come_in(runs: list[list[str]]) -> None:
    keys = [key for run in runs for key in run]

    with TemporaryDirectory() as name, log_of(Path(name), *runs) as log:
        repeats = log.repeats(1000)

    expected = [number for number, key in enumerate(keys, 1) if key in keys[: number - 1]]
    assert (repeats.count, [problem.line for problem in repeats.problems]) == (len(expected), expected)


@pytest.mark.parametrize("late", ["row-7", "row-99999", "row-150000"])
def test_one_key_out_of_order_behind_very_many_is_found(tmp_path: Path, late: str) -> None:
    numbered = [[f"row-{number}" for number in range(first, first + 500)] for first in range(0, 150_000, 500)]
    with log_of(tmp_path, *numbered, [late]) as log:
        repeats = log.repeats(20)

    assert [problem.key for problem in repeats.problems] == ([late] if late != "row-150000" else [])


def test_a_repeated_key_names_both_lines(tmp_path: Path) -> None:
    with log_of(tmp_path, ["a", "é\n", "b"], ["c", "é\n", "a", "a"]) as log:
        repeats = log.repeats(20)

    assert repeats.count == 3
    assert [(problem.line, problem.key, problem.message) for problem in repeats.problems] == [
        (5, "é?", "`key` is the same as that of line 2."),
        (6, "a", "`key` is the same as that of line 1."),
        (7, "a", "`key` is the same as that of line 1."),
    ]


def test_lines_without_a_key_are_counted_in_line_numbers(tmp_path: Path) -> None:
    log = KeyLog(tmp_path / "keys.jsonl")
    with log:
        log.skip_line()
        log.extend(Keys(["a"]))
        log.skip_line()
        log.skip_line()
        log.extend(Keys(["b", "a"]))
        [problem] = log.repeats(20).problems

    assert (problem.line, problem.message) == (6, "`key` is the same as that of line 2.")


def test_the_first_repeats_are_described_and_all_counted(tmp_path: Path) -> None:
    with log_of(tmp_path, ["a"] * 1000) as log:
        repeats = log.repeats(20)

    assert (repeats.count, len(repeats.problems)) == (999, 20)


def test_a_file_given_twice_over_is_counted_without_holding_all_its_keys(tmp_path: Path) -> None:
    keys = [f"row-{number}" for number in range(150_000)]
    with log_of(tmp_path, keys, keys) as log:
        repeats = log.repeats(3)

    assert repeats.count == 150_000
    assert all(problem.line > 150_000 for problem in repeats.problems)


def test_keys_of_one_hash_are_told_apart(tmp_path: Path) -> None:
    """Suspects are confirmed by the keys themselves: equal hashes alone refuse nothing."""

    class Colliding(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    log = KeyLog(tmp_path / "keys.jsonl")
    with log:
        keys = Keys(["b", "a"])
        keys.keys = [Colliding("b"), Colliding("a")]
        log.extend(keys)
        assert log.repeats(20) == Repeats(0, ())


def test_the_keys_file_appears_only_when_it_is_kept(tmp_path: Path) -> None:
    with log_of(tmp_path, ["a"]) as log:
        assert not log.path.exists()
        log.keep()
        assert log.path.read_bytes() == b'"a"\n'
    assert list(tmp_path.iterdir()) == [log.path]

    with log_of(tmp_path, ["b"]):
        pass
    assert log.path.read_bytes() == b'"a"\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that fails like a full disk")
@pytest.mark.parametrize("step", ["extend", "repeats", "keep"])
def test_a_full_disk_is_reported_at_every_step(tmp_path: Path, step: str) -> None:
    (tmp_path / "keys.jsonl.part").symlink_to("/dev/full")
    log = KeyLog(tmp_path / "keys.jsonl")
    with log, pytest.raises(StorageError, match="The list of keys could not be written: No space left"):
        log.extend(Keys(["a" * 1000, "a" * 1000]))
        if step == "extend":
            log.extend(Keys(["b" * 1000] * 2000))
        elif step == "repeats":
            log.repeats(20)
        else:
            log.keep()
    assert list(tmp_path.iterdir()) == []
