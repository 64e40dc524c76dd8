"""Seeded random and mutated lines: whatever comes, there is an answer, and quick and exact check agree on it.

`fuzz(200_000, seed)` is the longest run; `make matrix` runs a tenth of it for each seed, the suite a part of that.
"""

import json
import random
from typing import Any

import pytest

from gemini_batch_mcp.intake.requests.lines import LineChecker, examine
from gemini_batch_mcp.intake.templates import TEMPLATES, read_template
from gemini_batch_mcp.intake.validator.validate import check_line
from support.extent import in_part, tries

SUITE_LINES = tries(20_000, 4_000)

TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\",
    b" null ",
    b" true ",
    b" NaN ",
    b" -Infinity ",
    b" 1e999 ",
    b" -0 ",
    b" 1E+2 ",
    b'""',
    b"{}",
    b"[]",
    b"\\ud800",
    b"\\u0000",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\r",
    b'"key":"z",',
    b'"request":{},',
    b'"text":"x",',
    b'"generationConfig":{"topK":1},',
    b"[" * 200,
    b'{"a":' * 150,
    b"9" * 400,
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    10**30,
    "",
    "x",
    "STRING",
    "\U0001f642\u2028",
    [],
    [[]],
    {},
    {"parts": "x"},
    {"text": "x", "inlineData": {}},
    [{"role": "user", "parts": [{"text": "x"}]}],
]


def seeds() -> list[bytes]:
    lines = [line.encode() for template in TEMPLATES for line in read_template(template.name).splitlines()]
    return [
        *lines,
        b'{"key":"k","request":{"contents":"hi","system_instruction":"x","thinking_config":{}}}',
        b"{}",
        b"",
    ]


def mutated_bytes(line: bytes, chance: random.Random) -> bytes:
    data = bytearray(line)
    for _ in range(chance.randint(1, 4)):
        at, end = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(TOKENS)
            case 1:
                del data[at : min(end, at + 20)]
            case 2:
                data[at:at] = data[at : min(end, at + 60)]
            case 3:
                del data[at:]
            case _:
                data[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(data)


def mutated_value(value: Any, chance: random.Random) -> Any:
    """Replace, rename or drop one node somewhere below `value`."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(VALUES)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [*value[:at], mutated_value(value[at], chance), *value[at + 1 :]]
    name = chance.choice(list(value))
    rest = {other: member for other, member in value.items() if other != name}
    match chance.randrange(5):
        case 0:
            return rest
        case 1:
            return {**rest, chance.choice([name.upper(), f"{name}_x", "type", "config", "model"]): value[name]}
        case _:
            return {**rest, name: mutated_value(value[name], chance)}


def fuzz(count: int, seed: int) -> int:
    """Check `count` lines; return how many were right."""
    chance = random.Random(seed)
    lines = seeds()
    checker = LineChecker("generate")
    right = 0
    for number in range(1, count + 1):
        line = chance.choice(lines)
        if chance.random() < 0.5 and line.startswith(b'{"'):
            line = json.dumps(mutated_value(json.loads(line), chance), separators=(",", ":")).encode()
        elif chance.random() < 0.9:
            line = mutated_bytes(line, chance)
        right += agrees(line, number, checker)
    return right


def agrees(line: bytes, number: int, checker: LineChecker) -> bool:
    """Assert everything that must hold for any line; return whether it is right as it is."""
    checked = check_line(line, number, "generate")
    assert (checked.problem_count == 0) == (checked.problems == ())
    assert len(checked.problems) <= checked.problem_count
    for problem in checked.problems:
        assert problem.line == number and problem.message and problem.fix
        assert len(problem.message) < 700 and len(problem.fix) < 400
        assert problem.message.isprintable() and problem.fix.isprintable() and problem.key.isprintable()

    quick = checker.examine(line, number)
    if quick.blank:
        assert not line.strip()
        return False
    exact = examine(line, number, "generate")
    if quick != exact:
        # The one thing that decoders do not see.
        assert not quick.checked.problems and {problem.fix for problem in exact.checked.problems} == {
            "Keep one of them."
        }
        if any("`key`" in problem.message for problem in exact.checked.problems):
            # The first and the last key are the same: no reader of JSON would take another one.
            assert line.startswith(b'{"key":' + json.dumps(quick.checked.key).encode())
        return False
    if quick.slips:
        assert checked.problem_count and check_line(quick.line, number, "generate").problem_count == 0
    else:
        assert (quick.checked.problem_count == 0) == (checked.problem_count == 0)
    if not checked.problem_count:
        members = json.loads(line)
        assert members["key"] == checked.key == quick.checked.key
        assert members["request"]["contents"][0]["parts"]
    return not checked.problem_count


@in_part
@pytest.mark.parametrize("seed", [1, 2])
def test_any_line_gets_an_answer_and_both_checks_agree(seed: int) -> None:
    right = fuzz(SUITE_LINES // 2, seed)

    assert 0.05 < right / (SUITE_LINES // 2) < 0.95
