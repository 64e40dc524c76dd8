"""JSON, lines of text and damaged Parquet as sources, each with every cell or with the line and the reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from source_kit import outcome

#: A description, the file's name, its bytes, and what comes of it.
SOURCES: Final[tuple[tuple[str, str, bytes, Mapping[str, Any]], ...]] = (
    (
        "JSON rows with different members",
        "t.json",
        b'[{"a":"1"},{"b":"2"},{"a":"3","b":"4"}]',
        {
            "columns": ["a", "b"],
            "rows": [["1", ""], ["", "2"], ["3", "4"]],
            "warnings": ["Members that rows lack count as empty: a in 1, b in 1."],
        },
    ),
    (
        "JSON with line ends and a mark",
        "t.json",
        b'\xef\xbb\xbf[\n  {\n    "a": "1"\n  },\n  {"a": "2"}\n]\n',
        {"columns": ["a"], "rows": [["1"], ["2"]]},
    ),
    (
        "an empty JSON list",
        "t.json",
        b"[]",
        {"refused": "t.json has no rows."},
    ),
    (
        "one JSON object",
        "t.json",
        b'{"data":[{"a":1}]}',
        {"refused": "t.json holds one object; it must hold a list of objects."},
    ),
    (
        "a JSON list of lists",
        "t.json",
        b"[[1,2],\n[3,4]]",
        {
            "problems": [
                "1: The item that starts here is a list, not an object.",
                "2: The item that starts here is a list, not an object.",
            ]
        },
    ),
    (
        "JSON that breaks off",
        "t.json",
        b'[{"a":1},\n{"a":2',
        {"problems": ["2: The JSON is wrong here: the item is no JSON."]},
    ),
    (
        "JSON with a comma too many",
        "t.json",
        b'[{"a":1},\n]',
        {"problems": ["2: The JSON is wrong here: there is a comma too many before ]."]},
    ),
    (
        "JSON without a comma",
        "t.json",
        b'[{"a":1}\n{"a":2}]',
        {"problems": ["2: The JSON is wrong here: a comma is missing."]},
    ),
    (
        "JSON with more after the list",
        "t.json",
        b'[{"a":1}]\n[]',
        {"problems": ["2: The JSON is wrong here: something follows the list."]},
    ),
    (
        "a JSON member twice",
        "t.json",
        b'[{"a":1,"a":2}]',
        {"problems": ["1: The item that starts here gives `a` more than once."]},
    ),
    (
        "JSON with NaN",
        "t.json",
        b'[{"a":1},\n{"a":NaN}]',
        {"problems": ["2: The item that starts here holds a value that cannot be read, such as NaN."]},
    ),
    (
        "rows without members",
        "t.json",
        b"[{},{}]",
        {"refused": "t.json has rows without any member."},
    ),
    (
        "JSON lines",
        "t.jsonl",
        b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n',
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "JSON lines with blanks and CRLF",
        "t.jsonl",
        b'{"id":1}\r\n\r\n{"id":2}',
        {"columns": ["id"], "rows": [["1"], ["2"]]},
    ),
    (
        "JSON lines with errors",
        "t.jsonl",
        b'{"id":1}\n{"id":\n[1]\n{"id":4}\n"x"\n',
        {
            "problems": [
                "2: The line ends before its JSON does.",
                "3: The line is a list, not an object.",
                "5: The line is text, not an object.",
            ]
        },
    ),
    (
        "a JSON line with half a surrogate",
        "t.jsonl",
        b'{"id":1}\n{"id":"\\ud800"}\n',
        {"problems": ["2: The line holds half of a surrogate pair, \\ud800."]},
    ),
    (
        "JSON lines with escapes",
        "t.ndjson",
        b'{"a":"\\u00fc\\n\\"\\\\\\u2028\\ud83d\\ude00\\u0000"}\n',
        {"columns": ["a"], "rows": [['\xfc\n"\\\u2028\U0001f600\x00']]},
    ),
    (
        "JSON lines in UTF-16",
        "t.jsonl",
        b'\xff\xfe{\x00"\x00a\x00"\x00:\x00"\x00\xfc\x00"\x00}\x00\n\x00',
        {"columns": ["a"], "rows": [["\xfc"]], "warnings": ["t.jsonl is not UTF-8; it was read as UTF-16."]},
    ),
    (
        "lines of text",
        "t.txt",
        b'one\ntwo, "three"\n',
        {"columns": ["text"], "rows": [["one"], ['two, "three"']]},
    ),
    (
        "lines of text with blanks and CRLF",
        "t.txt",
        b"one\r\n\r\n  \r\ntwo\r\n",
        {"columns": ["text"], "rows": [["one"], ["two"]], "warnings": ["2 blank lines were left out."]},
    ),
    (
        "lines of text in Windows-1252",
        "t.txt",
        b"M\xfcller\n",
        {
            "columns": ["text"],
            "rows": [["M\xfcller"]],
            "warnings": ["t.txt is not UTF-8; it was read as Windows-1252 (Latin-1)."],
        },
    ),
    (
        "text of one blank line",
        "t.txt",
        b"\n",
        {"refused": "t.txt is empty."},
    ),
    (
        "a damaged Parquet file",
        "t.parquet",
        b"PAR1 not really PAR1",
        {"refused": "t.parquet is damaged or no Parquet file."},
    ),
    (
        "an empty Parquet file",
        "t.parquet",
        b"",
        {"refused": "t.parquet is damaged or no Parquet file."},
    ),
)


@pytest.mark.parametrize(("name", "data", "expected"), [source[1:] for source in SOURCES], ids=[s[0] for s in SOURCES])
def test_rows_are_read_exactly_or_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes, expected: Mapping[str, Any]
) -> None:
    source = tmp_path / name
    source.write_bytes(data)

    assert outcome(source) == expected
    assert source.read_bytes() == data
