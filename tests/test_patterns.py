"""Patterns and texts that keep a backtracking engine busy for hours: each is judged, or said not to be, in seconds."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.batches.jobs.finding import plain_display_name
from gemini_batch_mcp.domain import Job, JobState
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.files.planning import column_of
from gemini_batch_mcp.intake.openai._messages import Unconvertible, _media
from gemini_batch_mcp.intake.tables._csv import count_records, open_csv, survey
from gemini_batch_mcp.intake.template import compile_template, places
from gemini_batch_mcp.intake.validator.json_text import JsonFault, parse
from gemini_batch_mcp.patterns import pattern_warnings, patterns_of
from gemini_batch_mcp.results.structured.checking import AnswerCheck
from gemini_batch_mcp.results.visible import visible
from gemini_batch_mcp.text import plain_text, safe_text
from support.extent import in_part, long, part

#: Of the processor, since the machine may be busy: one text may take 10^9 steps.
MOST_SECONDS: Final = 10.0
LONG: Final = 50_000


#: What each call took, by what was called with what.
SECONDS: Final[dict[str, float]] = {}


@contextmanager
def in_seconds(name: str = "") -> Iterator[None]:
    """Let a call take so much of the processor and no more; it is told by the running test and `name`."""
    start = time.process_time()
    yield
    seconds = time.process_time() - start
    SECONDS[f"{os.environ['PYTEST_CURRENT_TEST'].split('::')[-1]} {name}"] = seconds
    assert seconds < MOST_SECONDS, name


@pytest.fixture(scope="module", autouse=True)
def _tell_slowest() -> Iterator[None]:
    """Print the slowest call of all, for who runs this with -s."""
    yield
    if SECONDS:
        slowest = max(SECONDS, key=lambda name: SECONDS[name])
        sys.stdout.write(f"\n{len(SECONDS):,} calls; the slowest: {slowest}, {SECONDS[slowest]:.2f} s\n")


#: Pattern, the text that it fails on late, and whether it occurs there; None for what RE2 does not judge.
CATASTROPHES: Final[dict[str, tuple[str, str, bool | None]]] = {
    "a group repeated twice over": (r"^(a+)+$", "a" * LONG + "!", False),
    "stars in stars": (r"^((a*)*)*$", "a" * LONG + "!", False),
    "a group of stars with an end": (r"^(a*)*b$", "a" * LONG, False),
    "two ways to take a letter": (r"^(a|a)*$", "a" * LONG + "!", False),
    "one letter or two": (r"^(a|aa)+$", "a" * LONG + "!", False),
    "one letter or none": (r"^(a|a?)+$", "a" * LONG + "!", False),
    "two classes that overlap": (r"^([a-z]|[a-m])*$", "a" * LONG + "!", False),
    "digits by two names": (r"^(\d|[0-9])+$", "1" * LONG + "x", False),
    "words by two names": (r"^(\w|[a-z_])+$", "a" * LONG + "!", False),
    "anything, often": (r"^(.*)*$", "a" * LONG + "\n", False),
    "anything, in turns": (r"(.*)(.*)(.*)(.*)(.*)x$", "a" * LONG, False),
    "anything, twelve times": (r"^(.*,){12}P$", "1," * LONG, False),
    "spaces, then an end": (r"\s+$", " " * LONG + "x", False),
    "spaces around": (r"^\s*(.*?)\s*$x", " " * LONG, False),
    "spaces between words": (r"^(\s*\w+\s*)+$", "a " * LONG + "!", False),
    "words with spaces": (r"^(\w+\s?)*$", "word " * LONG + "!", False),
    "numbers with commas": (r"^(\d+,?)+$", "1" * LONG + "x", False),
    "numbers with points": (r"^(\d+\.?\d*)+$", "1" * LONG + "x", False),
    "a mail address": (r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}$", "a" * LONG, False),
    "a mail address of names": (r"^([\w.-]+)*@([\w.-]+)*$", "a." * LONG + "!", False),
    "a link": (r"^(https?://)?([\w-]+\.?)+(/[\w-]+)*/?$", "a-" * LONG + "!", False),
    "a host name": (r"^(([a-z0-9]+-*)*[a-z0-9]+\.)+[a-z]{2,}$", "a" * LONG, False),
    "a path": (r"^(/?[^/]+)+$", "a" * LONG + "/", False),
    "a tag": (r"<([a-z]+)(\s+[a-z]+=\"[^\"]*\")*\s*>", "<a" + ' b="c"' * LONG, False),
    "a comment": (r"/\*(.|\n)*\*/", "/*" + "*" * LONG, False),
    "a quoted text": (r'^"(\\.|[^"])*"$', '"' + "\\a" * LONG, False),
    "a quoted text by two names": (r'^"([^"\\]|\\.|\\)*"$', '"' + "\\" * LONG, False),
    "backslashes": (r"^(\\\\|\\)*$", "\\" * LONG + "x", False),
    "braces": (r"^(\{|\{\{)*\}$", "{" * LONG, False),
    "brackets": (r"^(\[*\]*)*x$", "[" * LONG, False),
    "quotes": (r"^('|''|\"|\"\")*x$", "'\"" * LONG, False),
    "lines": (r"^(([^\n]*)\n?)*x$", "a\n" * LONG, False),
    "binary digits": (r"^(0|1|01|10)*2$", "01" * LONG, False),
    "syllables": (r"^(ab|a|b)*c$", "ab" * LONG, False),
    "letters of any language": (r"^(\w+)+$", "ä" * LONG + "!", False),
    "an optional letter a thousand times": (r"^(a?){1000}a{1000}$", "a" * LONG, False),
    "counts in counts": (r"^((a{1,30}){1,30})+$", "a" * LONG + "!", False),
    "more counts in counts": (r"^(((a{1,100}){1,100}){1,100})$", "a" * LONG, None),
    "a count beyond the most": (r"^a{1,100000}$", "a" * LONG, None),
    "a look ahead": (r"^(?=(a+))\1b$", "a" * LONG, None),
    "a look back": (r"(?<=(a+)+)b$", "a" * LONG, None),
    "a reference back": (r"^(a+)+\1$", "a" * LONG + "!", None),
    "a condition": (r"^(a)?(?(1)b|c)+$", "ab" * LONG, None),
    "no end of a group": (r"((((((((((a", "a", None),
    "a hundred thousand groups": ("(" * 100_000 + "a" + ")" * 100_000, "b", False),
    "half a surrogate pair": ("\ud800+", "a", None),
}


#: Where a pattern may stand, and the answer that holds the text there.
PLACES: Final[dict[str, tuple[Callable[[str], dict[str, Any]], Callable[[str], Any]]]] = {
    "the answer": (lambda pattern: {"type": "string", "pattern": pattern}, lambda text: text),
    "a member": (
        lambda pattern: {"type": "object", "properties": {"code": {"type": "string", "pattern": pattern}}},
        lambda text: {"code": text},
    ),
    "an item of Gemini's own": (
        lambda pattern: {"type": "ARRAY", "items": {"type": "STRING", "pattern": pattern, "nullable": True}},
        lambda text: ["x", text],
    ),
    "a name": (lambda pattern: {"type": "object", "propertyNames": {"pattern": pattern}}, lambda text: {text: 1}),
}


@pytest.mark.parametrize("name", CATASTROPHES)
def test_a_schemas_pattern_is_judged_in_seconds_or_not_at_all_and_that_is_said(name: str) -> None:
    pattern, text, occurs = CATASTROPHES[name]
    for place, (schema, answer) in PLACES.items():
        with in_seconds():
            said = pattern_warnings(schema(pattern))
            fault = AnswerCheck(schema(pattern)).fault(json.dumps(answer(text)))
        if occurs is None:
            assert fault == "", place
            assert "not checked in the answers" in said[0], place
        else:
            assert said == (), place
            assert fault.endswith("does not match its pattern"), place


def test_names_by_pattern_are_not_judged() -> None:
    schema = {"type": "object", "patternProperties": {"^(a+)+$": {"type": "string"}}, "additionalProperties": False}
    with in_seconds():
        assert AnswerCheck(schema).fault(json.dumps({"a" * LONG + "!": 1})) == ""


def test_a_text_too_long_for_a_large_pattern_is_told_as_such() -> None:
    check = AnswerCheck({"type": "string", "pattern": r"(x.{0,900}y)|(.{0,900}z)|(.{0,900}w)|(.{3,900}v)"})
    with in_seconds():
        assert check.fault(json.dumps("aé" * LONG)) == (
            "the answer is too long for its pattern to be checked (100,000 characters)"
        )
        assert check.fault('"xy"') == ""


@long
def test_a_list_without_repeats_is_checked_in_seconds() -> None:
    check = AnswerCheck({"type": "array", "uniqueItems": True, "items": {"type": "object"}})
    items = [{"n": number, "of": [True, 1]} for number in range(LONG)]
    with in_seconds():
        assert check.fault(json.dumps(items)) == ""
        assert check.fault(json.dumps([*items, {"of": [True, 1.0], "n": 7.0}])) == "the answer contains an item twice"
        assert check.fault(json.dumps([{"n": 1}, {"n": True}])) == ""


@pytest.mark.parametrize(
    ("pattern", "fits", "other"),
    [
        (r"^\w+$", "Müller_2", "a b"),
        (r"^[\w .'-]{1,60}$", "José d'Or-Łąk", "a;b"),
        (r"^\d{4}-\d{2}$", "2026-11", "2026-1x"),
        (r"^\W+$", "?!", "é"),
        (r"^\D\S$", "ab", "1b"),
        (r"^\u00fc[\u4e00-\u9fff]$", "ü字", "uz"),
        (r"^a\Z", "a", "ab"),
        (r"^[]\w]+$", "a]", "["),
        (r"^[^]\d]+$", "a[", "]"),
        (r"^[a[]\w$", "[a", "b"),
        (r"^[\d[:upper:]]+$", "A1", "a1"),
        (r"^\\w$", "\\w", "x"),
        (r"^[A-Z]{2}\d{2}[A-Z0-9]{4}\d{7}([A-Z0-9]?){0,16}$", "DE44500105175407324931", "DE4"),
        (r"^.{1,500}$", "ü" * 500, "ü" * 501),
        (r"b", "abc", "ac"),
    ],
)
def test_usual_patterns_mean_what_they_mean_to_python(pattern: str, fits: str, other: str) -> None:
    judged = patterns_of({"pattern": pattern})[pattern]
    assert judged is not None
    python = re.compile(pattern.replace("[:upper:]", "A-Z"))
    assert (judged.fits(fits), judged.fits(other)) == (True, False)
    assert (bool(python.search(fits)), bool(python.search(other))) == (True, False)


def test_half_a_surrogate_pair_in_an_answer_is_a_letter_like_any_other() -> None:
    check = AnswerCheck({"type": "string", "pattern": "^.b$"})
    assert check.fault('"\\ud800b"') == ""
    assert check.fault('"\\ud800c"') == "the answer does not match its pattern"


def test_a_warning_names_the_patterns_that_are_not_checked_and_no_other() -> None:
    bad = {"type": "string", "pattern": "(?=a)"}
    schema = {
        "properties": {
            "a": bad,
            "good": {"pattern": "a"},
            "pattern": {"anyOf": [bad, {"type": "null"}]},
            "c": {"items": bad, "example": {"pattern": "("}},
            "d": bad,
        }
    }
    assert pattern_warnings(schema) == (
        "`response_schema.properties.a.pattern`, `response_schema.properties.pattern.anyOf[0].pattern`, "
        "`response_schema.properties.c.items.pattern` and 1 more are not checked in the answers: lookaround, "
        "backreferences, and patterns that are too large cannot be checked in bounded time.",
    )
    assert pattern_warnings({"properties": {"good": {"pattern": "a"}}}) == ()


def test_a_schema_of_large_patterns_is_compiled_up_to_a_limit() -> None:
    with in_seconds():
        patterns = patterns_of({"anyOf": [{"pattern": rf"^\w{{1,150}}{number}$"} for number in range(500)]})
    judged = [pattern is not None for pattern in patterns.values()]
    assert 5 < judged.count(True) < 20
    assert judged == sorted(judged, reverse=True)


#: Texts that restart, nest or run on, whatever reads them.
TEXTS: Final[dict[str, str]] = {
    "spaces after braces": "{{" + " " * LONG,
    "spaces and a name after braces": "{{" + " " * LONG + "a" + " " * LONG,
    "spaces between braces": "{{" + " " * LONG + "}}",
    "braces with spaces, often": "{{ " * LONG,
    "braces": "{" * LONG,
    "braces that close": "{{" * LONG + "}}" * LONG,
    "escaped braces": "\\{{" * LONG,
    "backslashes": "\\" * LONG,
    "spaces": " " * LONG + "x",
    "tabs and spaces": "\t " * LONG + "x",
    "lines": "\n" * LONG + "x",
    "returns": "\r" * LONG + "x",
    "quotes": '"' * LONG + "x",
    "quotes and commas": '",' * LONG,
    "quotes that open": '"a,' * LONG,
    "quotes in threes": '""",' * LONG,
    "escaped quotes": '\\"' * LONG,
    "brackets": "[" * LONG,
    "brackets with spaces": " [" * LONG,
    "a tag that never ends": "x" + " " * LONG + "[a/1.1",
    "tags": " [a/1.1]" * LONG + "x",
    "slashes and numbers": "[" + "/1.1" * LONG,
    "links": "http://" * LONG,
    "schemes": "a.b-c+" * LONG,
    "keys": "key=" * LONG,
    "keys of Google's kind": "AIza" * LONG,
    "bearers": "bearer " * LONG,
    "escapes of a terminal": "\x1b[" * LONG,
    "escapes of a terminal, numbered": "\x1b[" + "1;" * LONG,
    "titles of a terminal": "\x1b]" * LONG,
    "data links": "data:" * LONG,
    "parameters of a data link": "data:a/b" + ";a" * LONG,
    "parameters of a data link, empty": "data:a/b" + ";" * LONG + "base64",
    "a data link in a data link": "data:a/b;base64," * LONG,
    "a media type of points": "data:" + "a." * LONG + "/" + "b." * LONG,
    "parts of a media type": "a/" * LONG,
    "JSON lists": "[" * LONG + "]" * LONG,
    "JSON objects": '{"a":' * LONG,
    "commas of JSON": "[" + "," * LONG,
    "a JSON text of escapes": '"' + "\\u" * LONG,
    "words of Python": "[" + "None," * LONG,
    "a number": "1" * LONG,
    "a number with points": "1." * LONG,
    "marks that hide": "\u202e" * LONG,
    "letters with marks": "a\u0301\ufe0f" * LONG,
}


def _quietly(work: Callable[[str], Any]) -> Callable[[str], None]:
    def run(text: str) -> None:
        with suppress(BatchError, JsonFault, Unconvertible):
            work(text)

    return run


def _display_name(text: str) -> str:
    job = Job(name="batches/a", state=JobState.PENDING, model="m", display_name=text)
    return plain_display_name(job)


READERS: Final[dict[str, Callable[[str], None]]] = {
    "a prompt": _quietly(lambda text: compile_template(text, ["a"], "prompt")),
    "the names in a prompt": _quietly(places),
    "`attach`": _quietly(column_of),
    "a message": _quietly(lambda text: safe_text(text, len(text))),
    "a message on one line": _quietly(lambda text: plain_text(text, len(text))),
    "an answer": _quietly(visible),
    "a job's name": _quietly(_display_name),
    "a data link": _quietly(lambda text: _media(text, "url")),
    "JSON": _quietly(lambda text: parse(text.encode())),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_text_is_read_in_seconds(reader: str) -> None:
    for name, text in TEXTS.items():
        with in_seconds(name):
            READERS[reader](text)


@in_part
@long
def test_every_text_is_read_as_csv_in_seconds(tmp_path: Path) -> None:
    for name in part(list(TEXTS), 3):
        text = TEXTS[name]
        path = tmp_path / "t.csv"
        for content in (text, "a,b\n1," + text, 'a,b\n"x\\"y",2\n' + text + "\n", "sep=;\na;b\n" + text):
            path.write_bytes(content.encode())
            with in_seconds(f"{name}, {content[:4]!r}"), suppress(BatchError):
                table = open_csv(path, tmp_path)
                survey(table)
                count_records(table)
