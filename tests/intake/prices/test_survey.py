"""What a pass over lines finds out about their price: bounds of every line, however written, and a fair sample."""

import json
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.domain import JsonObject, Task
from gemini_batch_mcp.intake.prices._sample import Sampler
from gemini_batch_mcp.intake.prices.survey import CACHE, FILE, Limits, Survey, Surveyor, Unbounded
from gemini_batch_mcp.intake.requests.reader import check_file
from gemini_batch_mcp.intake.requests.selection import WantedLines
from gemini_batch_mcp.intake.validator.terms import Terms, terms_of
from support.requests import ask, lines, surveyed, with_part

PNG = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}


def passed(tmp_path: Path, data: bytes, *, task: Task = "generate", limits: Limits | None = None) -> Survey:
    """What the pass over a file of ready requests finds out."""
    (tmp_path / "requests.jsonl").write_bytes(data)
    surveyor = Surveyor("", task, limits=limits)
    path, keys = tmp_path / "requests.jsonl", tmp_path / "keys.jsonl"
    check_file(path, task=task, keys_path=keys, sha256="", onlooker=surveyor)
    return surveyor.survey()


# Bounds


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ('"maxOutputTokens":10000', 10_000),
        ('"maxOutputTokens": 1e4', 10_000),
        ('"maxOutputTokens":1E+04', 10_000),
        ('"maxOutputTokens":10000.0', 10_000),
        ('"maxOutputTokens":"10000"', 10_000),
        ('"max_output_tokens":1e4', 10_000),
        ('"maxOutputTokens":10000,"candidateCount":3', 30_000),
        ('"max_output_tokens":1e4,"candidate_count":2', 20_000),
        ('"maxOutputTokens":999999', 65_536),
        ('"candidateCount":2', 131_072),
        ('"maxOutputTokens":null', 65_536),
        ('"stopSequences":["maxOutputTokens\\":5"]', 65_536),
    ],
)
@pytest.mark.parametrize("rows", [1, 200], ids=["one line", "enough lines for a decoder"])
def test_the_bound_of_a_line_is_the_parsed_value_however_it_is_written(
    tmp_path: Path, written: str, tokens: int, rows: int
) -> None:
    name = "generation_config" if "_" in written else "generationConfig"
    frame = '{"key":"k%d","request":{"contents":[{"parts":[{"text":"hi \\"maxOutputTokens\\": 7"}]}],"%s":{%s}}}\n'
    survey = passed(tmp_path, "".join(frame % (number, name, written) for number in range(rows)).encode())
    assert survey.most.output_tokens == rows * tokens
    is_capped = written.startswith('"max') and "null" not in written
    assert survey.uncapped_rows == (0 if is_capped else rows)


def test_labels_and_texts_of_that_name_bound_nothing(tmp_path: Path) -> None:
    labelled = {**ask('"maxOutputTokens": 5'), "labels": {"maxOutputTokens": "5", "max_output_tokens": "5"}}
    survey = passed(tmp_path, lines([labelled] * 150))
    assert (survey.uncapped_rows, survey.most.output_tokens) == (150, 150 * 65_536)


def test_every_line_counts_in_files_of_mixed_kinds_whichever_decoder_takes_it(tmp_path: Path) -> None:
    kinds: Sequence[JsonObject] = [
        ask("plain"),
        ask("capped", maxOutputTokens=100),
        {**ask("snake"), "generation_config": {"max_output_tokens": 20, "candidate_count": 2}},
        with_part(PNG, generationConfig={"maxOutputTokens": 7}),
        {**ask("search"), "tools": [{"googleSearch": {}}], "generationConfig": {"maxOutputTokens": 1}},
        {**ask("cache"), "cachedContent": "cachedContents/x", "generationConfig": {"maxOutputTokens": 1}},
        with_part({"fileData": {"fileUri": "gs://b/x.mp4", "mimeType": "video/mp4"}}),
    ]
    requests = [kinds[number * number % 7] for number in range(1400)]
    expected, found = surveyed(*requests).survey(), passed(tmp_path, lines(requests))

    assert found.most.output_tokens == expected.most.output_tokens
    assert (found.media, found.most.media) == (expected.media, expected.most.media)
    assert found.most.text == pytest.approx(expected.most.text)
    assert (found.uncapped_rows, found.unbounded) == (expected.uncapped_rows, expected.unbounded)


def test_what_has_no_bound_is_counted_with_its_first_line(tmp_path: Path) -> None:
    requests = [
        ask("plain"),
        *[{**ask("search"), "tools": [{"google_search": {}}, {"functionDeclarations": [{"name": "f"}]}]}] * 100,
        {**ask("cache"), "cached_content": "cachedContents/x"},
        *[ask("plain")] * 5,
        *[with_part({"file_data": {"file_uri": "files/x", "mime_type": "audio/mpeg"}})] * 2,
        with_part({"fileData": {"fileUri": "files/y", "mimeType": "image/png"}}),
    ]
    assert set(passed(tmp_path, lines(requests)).unbounded) == {
        Unbounded("googleSearch", 100, 2),
        Unbounded(CACHE, 1, 102),
        Unbounded(FILE, 2, 108),
    }


def test_an_empty_list_of_tools_and_functions_cost_nothing_by_themselves() -> None:
    for tools in ([], None, [{"functionDeclarations": [{"name": "f"}]}], [{"googleSearch": None}]):
        assert terms_of({**ask(), "tools": tools}) == Terms()


def test_media_inside_function_answers_count_too() -> None:
    part = {"functionResponse": {"name": "f", "response": {}, "parts": [PNG]}}
    assert surveyed(with_part(part)).survey().media.image == 1120


def test_long_prompts_are_told_line_by_line(tmp_path: Path) -> None:
    limits = Limits(long_prompt_tokens=200_000)
    short, long = ask("x" * 100, maxOutputTokens=5), ask("x" * 300_000, maxOutputTokens=7)
    pdf = with_part({"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0A" * 9000}})
    found = passed(tmp_path, lines([*[short] * 90, long, *[short] * 9, pdf]), limits=limits)

    assert found.most_of_long.rows == 2
    assert found.most_of_long.output_tokens == 7 + 65_536
    assert found.most.rows == 101


def test_keys_and_the_frame_are_no_tokens(tmp_path: Path) -> None:
    text = {"content": {"parts": [{"text": "word"}]}}
    found = passed(tmp_path, lines([text] * 1000), task="embed")
    # Four letters are two tokens at most; the spaces of the frame are a few.
    assert found.most.text < 1000 * 9
    assert found.most.output_tokens == 0


@pytest.mark.parametrize(
    "text", ["word " * 50, "1234567 " * 30, "привет мир " * 20, "日本語 " * 40, "🙂" * 60, '"\\\n' * 30]
)
def test_the_weight_of_a_text_is_not_below_a_token_for_each_character_beyond_ascii(text: str) -> None:
    weight = surveyed(ask(text)).survey().most.text
    assert weight >= sum(0.5 if character.isascii() else 1 for character in text)
    assert weight >= sum(character.isdigit() for character in text)


# The sample


def sampled(rows: int, seed: int = 0) -> list[int]:
    sampler = Sampler(lambda number, line: line, seed)
    for start in range(0, rows, 4000):
        sampler.feed([b"%d" % number for number in range(start, min(start + 4000, rows))])
    assert all(int(line) + 1 == number for number, line in sampler.lines)
    return [number for number, _ in sampler.lines]


def test_a_million_rows_are_sampled_as_twenty_lines_over_the_whole_file() -> None:
    numbers = sampled(1_000_000)
    assert len(set(numbers)) == 20
    assert numbers == sorted(numbers)
    assert numbers[0] < 300_000
    assert numbers[-1] > 700_000


def test_every_line_has_about_the_same_chance() -> None:
    drawn = [number for seed in range(200) for number in sampled(400, seed)]
    assert len(drawn) == 4000
    assert 0.45 < sum(number <= 200 for number in drawn) / len(drawn) < 0.55


def test_the_same_lines_give_the_same_survey_however_they_are_cut(tmp_path: Path) -> None:
    requests = [ask(f"text {number}", maxOutputTokens=number % 9 + 1) for number in range(3000)]
    found, one_by_one = passed(tmp_path, lines(requests)), surveyed(*requests).survey()
    assert found.lines == one_by_one.lines
    assert len(found.lines) == 20
    assert found.most.output_tokens == one_by_one.most.output_tokens
    assert passed(tmp_path, lines(requests)) == found


def test_a_small_file_is_its_own_sample() -> None:
    surveyor = surveyed(ask("one"), ask("two"))
    assert [line.number for line in surveyor.survey().lines] == [1, 2]
    assert surveyor.requests() == {1: ask("one"), 2: ask("two")}


def test_a_line_that_is_too_long_to_keep_is_measured_and_let_go() -> None:
    surveyor = surveyed(ask("x" * 2_000_000), ask("x" * 400))
    long, _ = surveyor.survey().lines
    assert long.counts.total == 500_000
    assert set(surveyor.requests()) == {2}


def test_a_pass_that_begins_anew_forgets_what_it_saw() -> None:
    surveyor = surveyed(ask(), ask())
    surveyor.begin()
    assert surveyor.survey() == Surveyor("").survey()


def test_terms_are_read_from_structs_as_from_objects(tmp_path: Path) -> None:
    config: dict[str, Any] = {"maxOutputTokens": 9, "mediaResolution": "MEDIA_RESOLUTION_LOW"}
    own = {**PNG, "mediaResolution": {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}}
    requests = [{"contents": [{"parts": [PNG, own, {"text": "x"}]}], "generationConfig": config}] * 100
    assert passed(tmp_path, lines(requests)).media.image == 100 * (280 + 2240)
    assert json.loads(lines(requests).splitlines()[0])["request"]["generationConfig"] == config


# Some of the lines


def test_what_some_lines_take_is_known_without_reading_the_others(tmp_path: Path) -> None:
    """Exactly but for their texts, and these as if all lines were alike; where some are not, it is not known."""
    asked = [ask(f"a text with the number {number}") for number in range(9000)]
    path, wanted = tmp_path / "all.jsonl", bytes(number % 3 == 0 for number in range(len(asked)))
    path.write_bytes(lines(asked))
    encoded = path.read_bytes().splitlines(keepends=True)
    surveyor, terms = Surveyor(""), terms_of(asked[0])
    check_file(path, task="generate", keys_path=tmp_path / "keys.jsonl", sha256="", onlooker=surveyor)
    sizes, chosen = [*map(len, encoded)], [*compress(encoded, wanted)]
    with WantedLines(path, sizes, wanted) as some:
        assert [*some] == chosen
        part = surveyor.of_some(wanted, sizes, some, terms)
        assert (
            surveyor.of_some(wanted, sizes, some, terms_of({**asked[0], "cachedContent": "cachedContents/a"})) is None
        )
    assert part is not None
    found, exact = part.survey(), passed(tmp_path, b"".join(chosen))
    assert found.lines == exact.lines
    assert (found.rows, found.uncapped_rows) == (exact.rows, exact.uncapped_rows) == (3000, 3000)
    # Lines that are looked at alone come without their ends.
    assert found.text_bytes == pytest.approx(exact.text_bytes, rel=0.01)
    assert found.most.output_tokens == exact.most.output_tokens
    # Of many lines that come together, digits are counted in a part.
    assert found.most.text == pytest.approx(exact.most.text, rel=0.1)
    path.write_bytes(lines([*asked, with_part(PNG)]))
    check_file(path, task="generate", keys_path=tmp_path / "keys.jsonl", sha256="", onlooker=surveyor)
    with WantedLines(path, sizes, wanted) as some:
        assert surveyor.of_some(wanted, sizes, some, terms) is None
