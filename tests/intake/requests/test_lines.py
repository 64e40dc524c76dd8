"""Lines out of a file, and the decoders in front of the exact check: learned from the file, and never more lenient."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.requests.lines import LineChecker, LineSplitter, LongLine, examine, pieces, split_lines
from gemini_batch_mcp.settings import MAX_LINE_BYTES

HELLO = [{"parts": [{"text": "hi"}]}]


def line(separators: tuple[str, str] = (",", ":"), **members: Any) -> bytes:
    return json.dumps({"key": "k", "request": {"contents": HELLO, **members}}, separators=separators).encode()


def learned(*kinds: bytes, task: Task = "generate") -> LineChecker:
    """A checker that has seen enough lines of each kind to have built a decoder for it."""
    checker = LineChecker(task)
    for kind in kinds:
        for number in range(70):
            assert not checker.examine(kind, number).checked.problem_count
    return checker


@given(st.lists(st.binary(max_size=30).filter(lambda row: b"\n" not in row), max_size=20), st.integers(1, 50))
def test_pieces_joined_are_the_file_and_end_with_a_line_end(rows: list[bytes], block: int) -> None:
    content = b"\n".join(rows)
    splitter = LineSplitter()
    found = [
        piece for start in range(0, len(content), block) for piece in splitter.feed(content[start : start + block])
    ]
    found += splitter.end()

    assert all(isinstance(piece, bytes) and piece for piece in found)
    assert b"".join(piece for piece in found if isinstance(piece, bytes)) == content
    assert all(piece.endswith(b"\n") for piece in found[:-1] if isinstance(piece, bytes))


@pytest.mark.parametrize("more", [0, 1, 1 << 20, 5 << 20])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nz\n"])
def test_a_line_over_the_limit_is_read_past_without_being_kept(more: int, end: bytes) -> None:
    size = MAX_LINE_BYTES + (2 << 20) + more
    found = list(pieces(io.BytesIO(b"a\n" + b"x" * size + end)))

    assert found == [b"a\n", LongLine(size), *([b"z\n"] if b"z" in end else [])]


def test_a_line_just_over_the_limit_reaches_the_check() -> None:
    content = b"x" * (MAX_LINE_BYTES + 1) + b"\n"

    [piece] = pieces(io.BytesIO(content))

    assert isinstance(piece, bytes)
    [checked] = [examine(row, 1, "generate").checked for row in split_lines(piece)]
    assert checked.problems[0].message.startswith("The line has 20,971,521 bytes")


def test_small_files_are_checked_without_building_decoders() -> None:
    checker = LineChecker("generate")
    for number in range(63):
        checker.examine(line(), number)

    assert checker.keys(line(), [line()], 0) is None


@pytest.mark.parametrize(
    "kind",
    [
        line(),
        line((", ", ": ")),
        line(generation_config={"max_output_tokens": 5}),
        line(generationConfig={"max_output_tokens": 5, "topK": 40.0}, system_instruction=HELLO[0]),
        line(contents=[{"parts": [{"inlineData": {"mimeType": "a/b", "data": "QUJD"}, "thoughtSignature": "QQ=="}]}]),
        line(tools=[{"functionDeclarations": [{"name": "f", "parameters": {"properties": {"key": {"type": 1}}}}]}]),
        line(generationConfig={"responseJsonSchema": {"key": ["key", {"request": 1}]}}, labels={"key": "x"}),
        b'{"request":{"contents":[{"parts":[{"text":"x"}]}]},"key":"k"}',
    ],
)
def test_lines_of_a_kind_that_was_learned_are_taken_at_once(kind: bytes) -> None:
    keys = learned(kind).keys(kind, [kind] * 5, 0)

    assert keys is not None and keys.keys == ["k"] * 5


def test_embedding_lines_are_learned_too() -> None:
    kind = b'{"key":"e","request":{"content":{"parts":[{"text":"x"}]},"task_type":"CLUSTERING"}}'

    assert learned(kind, task="embed").keys(kind, [kind], 0) is not None


@given(st.lists(st.sampled_from([b"", b"x", b"y" * 1023, b"z" * 1024, b"w" * 5000]), min_size=1), st.booleans())
def test_lines_are_cut_at_their_ends_whatever_their_length(rows: list[bytes], ends: bool) -> None:
    rows = rows if ends or rows[-1] else [*rows, b"last"]

    assert split_lines(b"\n".join(rows) + (b"\n" if ends else b"")) == rows


def test_a_few_large_lines_are_enough_to_learn_from() -> None:
    kind = with_data("QUJD" * 100_000)
    checker = LineChecker("generate")
    for number in range(3):
        assert not checker.examine(kind, number).checked.problem_count

    assert checker.keys(kind, [kind], 0) is not None


#: Base64 and what is none, around the size of a slice: whether the decoders take it at once, and whether it is right.
DATA: list[tuple[Any, bool, bool]] = [
    ("", True, True),
    ("QUJD", True, True),
    ("-_8", True, True),
    ("QQ==", True, True),
    ("QUJD" * 40_000 + "QQ==", True, True),
    ("QUJD" * 40_000 + "QQ", True, True),
    ("QUJD" * 16_384 + "QUI=", True, True),
    ("QUJD" * 16_383 + "QQ==", True, True),
    ("QUJD" * 40_000 + "Q", False, False),
    ("QUJD" * 40_000 + "QQ=", False, False),
    ("QUJD" * 20_000 + "=" + "QUJD" * 20_000, False, False),
    ("QUJD" * 20_000 + " " + "QUJ" * 20_000, False, False),
    ("QUJD" * 20_000 + "\x00" * 4, False, False),
    ("QQ==QQ==", False, False),
    ("=", False, False),
    ("QUJ\n", False, False),
    ('QQ"A', False, False),
    ('"', False, False),
    ("QUé=", False, False),
    (None, False, False),
    (7, False, False),
    (["QUJD"], False, False),
    ({"a\\": "QUJD"}, False, False),
]


def with_data(data: Any) -> bytes:
    return line(contents=[{"parts": [{"inlineData": {"mimeType": "a/b", "data": data}}]}])


@pytest.mark.parametrize(("data", "is_taken", "is_right"), DATA)
def test_base64_is_checked_to_its_last_letter(data: Any, is_taken: bool, is_right: bool) -> None:
    row = with_data(data)

    assert (learned(with_data("QUJD")).keys(row, [row], 0) is not None) is is_taken
    assert (examine(row, 1, "generate").checked.problem_count == 0) is is_right


@pytest.mark.parametrize(
    ("escaped", "is_right"),
    [
        (b"\\/9j\\/4AAQ", True),
        (b"\\u002b8A=", True),
        (b"QUJD\\u0051\\u0051==", True),
        (b"QUJD\\n", False),
        (b"\\u00208A=", False),
        (b"QUJD\\u0051=", False),
    ],
)
def test_base64_may_have_escaped_letters(escaped: bytes, is_right: bool) -> None:
    row = with_data("QUJD").replace(b"QUJD", escaped)

    assert (learned(with_data("QUJD")).keys(row, [row], 0) is not None) is is_right
    assert (examine(row, 1, "generate").checked.problem_count == 0) is is_right


def test_one_other_line_sends_all_of_them_to_the_closer_look() -> None:
    checker = learned(line())

    assert checker.keys(b"", [line(), line(tools=[]), b"no JSON"], 0) is None
    assert checker.examine(b"no JSON", 9).checked.problems[0].line == 9


def test_kinds_that_take_turns_are_each_taken_by_their_own_decoder() -> None:
    kinds = [line(), line(system_instruction=HELLO[0]), line(contents=[{"parts": [{"fileData": {"fileUri": "u"}}]}])]
    checker = learned(*kinds)

    for kind in kinds * 3:
        assert checker.examine(kind, 1).checked.key == "k"
        assert checker.keys(kind, [kind], 0) is not None


def test_more_kinds_than_decoders_are_still_checked() -> None:
    names = ["system_instruction", "generation_config", "tool_config", "cached_content", "safety_settings"]
    values: dict[str, Any] = {"system_instruction": HELLO[0], "cached_content": "c", "safety_settings": []}
    kinds = [
        line(toolConfig={}, **{name: values.get(name, {}) for name in chosen})
        for chosen in [names[:end] for end in range(1, 6)] + [names[start:] for start in range(1, 5)] + [names[1:3]]
        if "tool_config" not in chosen
    ]
    kinds += [line(serviceTier="flex", **{name: values.get(name, {})}) for name in names]
    checker = learned(*kinds)

    assert {checker.examine(kind, 1).checked.key for kind in kinds} == {"k"}


#: Right for a lenient reader, wrong for ours; each close to a line that decoders take.
EDGES = [
    b'{"key":"a","key":"b","request":{"contents":[{"parts":[{"text":"x"}]}]}}',
    b'{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]},"key":"b"}',
    b'{"request":{"contents":[{"parts":[{"text":"x"}]}]},"key":"a","key":"b"}',
    line(generationConfig={"responseJsonSchema": json.loads("[" * 98 + "]" * 98)}),
    line(generationConfig={"responseJsonSchema": [10**309]}),
    line(contents=[{"parts": [{"functionCall": {"name": "f", "args": []}}]}]),
    line(contents=[{"parts": [{"text": "x", "fileData": {"fileUri": "u"}}]}]),
    line(contents=[{"parts": [{"thought": True}]}]),
    line(contents=[{"parts": [{"inlineData": {"mimeType": "a/b", "data": "Q"}}]}]),
    line(contents=[{"parts": [{"inlineData": {"mimeType": "a/b", "data": 5}}]}]),
    line(contents=[{"parts": [{"text": "x", "thoughtSignature": "Q"}, {"text": "x", "thoughtSignature": "QQ"}]}]),
    line(contents=[{"parts": [{"text": "x", "thoughtSignature": 5}]}]),
    line(generationConfig={"topK": 1.5}),
    line(generationConfig={"temperature": 1e39, "presencePenalty": 1e39}),
    line(generationConfig={"presencePenalty": -1e39}),
    line(safetySettings=[{"category": 2**31, "threshold": 1}]),
    line(generationConfig={"responseSchema": {"maxItems": -1}}),
    line()[:-1],
    line() + b"}",
    line() + line(),
    b"\xef\xbb\xbf" + line(),
    line().replace(b"hi", b"h\xff"),
    line().replace(b"hi", b"\\ud800"),
    b'{"key":"","request":{"contents":[{"parts":[{"text":"x"}]}]}}',
    b'{"key":"%s","request":{"contents":[{"parts":[{"text":"x"}]}]}}' % (b"k" * 1025),
]


@pytest.mark.parametrize("edge", EDGES)
def test_a_learned_decoder_is_never_more_lenient_than_the_exact_check(edge: bytes) -> None:
    checker = learned(
        line(),
        line(contents=[{"parts": [{"inlineData": {"mimeType": "a/b", "data": "QQ=="}}]}], generationConfig={"topK": 1}),
    )

    assert checker.keys(edge, [edge], 0) is None
    assert checker.examine(edge, 3) == examine(edge, 3, "generate")
    assert checker.examine(edge, 3).checked.problem_count


@pytest.mark.parametrize("levels", [60, 78, 85, 97])
def test_deep_but_right_lines_are_right_for_both(levels: int) -> None:
    checker = learned(line(contents=[{"parts": [{"text": "x", "partMetadata": {}}]}]))
    deep = line(generationConfig={"responseJsonSchema": json.loads("[" * levels + "]" * levels)})

    assert not checker.examine(deep, 1).checked.problem_count


def test_schemas_deeper_than_decoders_follow_are_right_for_the_exact_check() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(12):
        schema = {"type": "ARRAY", "items": schema}
    checker = learned(line())

    assert checker.keys(b"", [line(generationConfig={"responseSchema": schema})], 0) is None
    assert not checker.examine(line(generationConfig={"responseSchema": schema}), 1).checked.problem_count


@pytest.mark.parametrize("wrap", [{"items": None}, {"anyOf": [None]}, {"properties": {"a": None}}])
def test_schemas_nested_without_end_are_refused(wrap: dict[str, Any]) -> None:
    text = json.dumps(wrap).split("null")
    nested = text[0] * 120 + "{}" + text[1] * 120
    row = b'{"key":"k","request":{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"responseSchema":%s}}}'

    [problem] = examine(row % nested.encode(), 1, "generate").checked.problems

    assert "is nested too deeply" in problem.message and len(problem.message) < 150
