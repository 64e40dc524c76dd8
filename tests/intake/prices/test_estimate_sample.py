"""The sample of an estimate: few lines out of many, whatever the file's size, and figures over all of them."""

from pathlib import Path

import pytest

from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.intake.prices.estimate import (
    Sample,
    Sampler,
    sample_file,
)
from support.requests import ask, lines, sample_of


def test_a_million_rows_are_sampled_as_twenty_lines_over_the_whole_file() -> None:
    sampler = Sampler()
    line = b'{"key":"%07d","request":{"contents":[{"parts":[{"text":"short"}]}]}}\n'
    for start in range(0, 1_000_000, 4000):
        sampler.feed(b"".join([line % number for number in range(start, start + 4000)]), rows=4000)
    sample = sampler.sample()
    numbers = [found.number for found in sample.lines]

    assert sample.rows == 1_000_000
    assert sample.size_bytes == 1_000_000 * len(line % 0)
    assert len(set(numbers)) == 20
    assert numbers == sorted(numbers)
    assert numbers[0] < 300_000
    assert numbers[-1] > 700_000


def test_the_sample_does_not_depend_on_how_the_file_is_cut() -> None:
    data = lines(ask(f"text {number}", maxOutputTokens=number) for number in range(5000)).rstrip(b"\n")
    whole, cut = Sampler(), Sampler()
    whole.feed(data)
    for line in data.splitlines(keepends=True):
        cut.feed(line)
        cut.feed(b"")

    assert whole.sample() == cut.sample()
    assert whole.sample().rows == 5000
    assert whole.sample().cap_tokens == sum(range(5000))


def test_every_line_has_about_the_same_chance() -> None:
    rows = 400
    drawn: list[int] = []
    for seed in range(200):
        sampler = Sampler(seed=seed)
        sampler.feed(lines([ask("x")] * rows))
        drawn += [line.number for line in sampler.sample().lines]

    halves = sum(number <= rows // 2 for number in drawn) / len(drawn)
    assert len(drawn) == 4000
    assert 0.45 < halves < 0.55


def test_a_small_file_is_its_own_sample() -> None:
    sample = sample_of(ask("one"), ask("two"))
    assert [line.number for line in sample.lines] == [1, 2]
    assert [line.request for line in sample.lines] == [ask("one"), ask("two")]
    assert Sampler().sample() == Sample(0, 0, (), 0, 0)


def test_lines_that_are_no_request_are_left_out_of_the_sample() -> None:
    sampler = Sampler()
    sampler.feed(b'{"key":"a"\n[1]\n{"key":"a","request":[]}\n\n' + b"[" * 100_000 + b"\n" + lines([ask()]))
    assert [line.number for line in sampler.sample().lines] == [6]
    assert sampler.sample().rows == 6


def test_caps_are_summed_over_all_lines_and_not_taken_out_of_texts() -> None:
    sampler = Sampler()
    sampler.feed(
        lines(
            [
                ask(maxOutputTokens=100),
                {**ask(), "generation_config": {"max_output_tokens": 20}},
                ask('"maxOutputTokens": 999 and "max_output_tokens":999'),
                ask(temperature=0.5),
            ]
        )
    )
    sample = sampler.sample()
    assert (sample.rows, sample.capped_rows, sample.cap_tokens) == (4, 2, 120)


def test_a_line_that_is_too_long_to_keep_is_measured_and_let_go() -> None:
    sample = sample_of(ask("x" * 2_000_000), ask("x" * 400))
    long, short = sample.lines
    assert long.request is None
    assert long.counts.total == 500_000
    assert short.request is not None


def test_a_file_gives_the_sample_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(lines(ask(f"text {number}") for number in range(3000)))
    sampler = Sampler()
    sampler.feed(path.read_bytes())
    assert sample_file(path) == sampler.sample()


def test_a_few_dear_lines_in_the_middle_of_a_large_file_are_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    cheap, dear = lines([ask("x" * 900, maxOutputTokens=10)] * 50_000), lines([ask("x" * 600)] * 3)
    path.write_bytes(cheap + dear + cheap)
    sample = sample_file(path)

    assert path.stat().st_size > 64 << 20
    assert (sample.rows, sample.capped_rows, sample.cap_tokens) == (100_003, 100_000, 1_000_000)
    assert len(sample.lines) == 20


def test_a_line_that_is_too_long_to_be_sent_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(lines([ask("x" * (21 << 20)), ask("short")]))
    assert sample_file(path).rows == 1


def test_a_file_that_is_not_there_is_a_path_error(tmp_path: Path) -> None:
    with pytest.raises(PathError, match=r"absent\.jsonl cannot be read"):
        sample_file(tmp_path / "absent.jsonl")
