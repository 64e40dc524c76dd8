"""Headers, odd cells and encodings of CSV, each with every cell or with the line and the reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from source_kit import outcome

#: A description, the file's name, its bytes, and what comes of it.
SOURCES: Final[tuple[tuple[str, str, bytes, Mapping[str, Any]], ...]] = (
    (
        "column names that differ in case",
        "t.csv",
        b"id,text,TEXT\n1,a,b\n",
        {"columns": ["id", "text", "TEXT"], "rows": [["1", "a", "b"]]},
    ),
    (
        "column names with spaces and line ends",
        "t.csv",
        b'"customer id"," the\ntext "\n1,a\n',
        {"columns": ["customer id", "the text"], "rows": [["1", "a"]]},
    ),
    (
        "column names with quotes and SQL",
        "t.csv",
        b'"a\'b","x""y","c0; DROP TABLE t"\n1,2,3\n',
        {"columns": ["a'b", 'x"y', "c0; DROP TABLE t"], "rows": [["1", "2", "3"]]},
    ),
    (
        "no header",
        "t.csv",
        b"1,2024-01-05,3.5\n2,2024-01-06,4.5\n",
        {"refused": "t.csv has no header: its first line is 1, 2024-01-05, 3.5."},
    ),
    (
        "a header and nothing else",
        "t.csv",
        b"id,text\n",
        {"refused": "t.csv has no rows."},
    ),
    (
        "an empty file",
        "t.csv",
        b"",
        {"refused": "t.csv is empty."},
    ),
    (
        "spaces and line ends only",
        "t.csv",
        b" \n\n \n",
        {"refused": "t.csv is empty."},
    ),
    (
        "one column",
        "t.csv",
        b"text\na\nb\n",
        {"columns": ["text"], "rows": [["a"], ["b"]]},
    ),
    (
        "one column of prose with commas",
        "t.csv",
        b"text\nHello, world\nOne, two, three\nplain\n",
        {"columns": ["text"], "rows": [["Hello, world"], ["One, two, three"], ["plain"]]},
    ),
    (
        "one column with blank lines",
        "t.csv",
        b"text\na\n\nb\n",
        {"columns": ["text"], "rows": [["a"], ["b"]]},
    ),
    (
        "numbers, dates and zeros as written",
        "t.csv",
        b"zip,price,date,big,exp,flag\n007,1.10,2024-01-05,123456789012345678901234567890,1e5,TRUE\n",
        {
            "columns": ["zip", "price", "date", "big", "exp", "flag"],
            "rows": [["007", "1.10", "2024-01-05", "123456789012345678901234567890", "1e5", "TRUE"]],
        },
    ),
    (
        "words that mean null elsewhere",
        "t.csv",
        b"a,b,c,d\nNULL,NA,null,nan\n",
        {"columns": ["a", "b", "c", "d"], "rows": [["NULL", "NA", "null", "nan"]]},
    ),
    (
        "spaces around cells",
        "t.csv",
        b"id,text\n 1 , a \n",
        {"columns": ["id", "text"], "rows": [[" 1 ", " a "]]},
    ),
    (
        "formulas of spreadsheets",
        "t.csv",
        b'id,text\n1,=HYPERLINK("http://x";A1)\n2,+1+2\n3,@SUM(A1)\n4,-2\n',
        {
            "columns": ["id", "text"],
            "rows": [["1", '=HYPERLINK("http://x";A1)'], ["2", "+1+2"], ["3", "@SUM(A1)"], ["4", "-2"]],
        },
    ),
    (
        "braces of a prompt",
        "t.csv",
        b"id,text\n1,{{id}} and {{nothing}}\n",
        {"columns": ["id", "text"], "rows": [["1", "{{id}} and {{nothing}}"]]},
    ),
    (
        "a hash at the start of a row",
        "t.csv",
        b"id,text\n#1,a\n",
        {"columns": ["id", "text"], "rows": [["#1", "a"]]},
    ),
    (
        "U+2028 and other separators in cells",
        "t.csv",
        b"id,text\n1,a\xe2\x80\xa8b\xe2\x80\xa9c\xc2\x85d\x0be\x0cf\n",
        {"columns": ["id", "text"], "rows": [["1", "a\u2028b\u2029c\x85d\x0be\x0cf"]]},
    ),
    (
        "control characters in cells",
        "t.csv",
        b"id,text\n1,a\x01b\x02c\x1fd\x7fe\x08\n",
        {"columns": ["id", "text"], "rows": [["1", "a\x01b\x02c\x1fd\x7fe\x08"]]},
    ),
    (
        "a NUL in a cell",
        "t.csv",
        b"id,text\n1,a\x00b\n",
        {"problems": ["2: The file holds a NUL byte: it is no plain text."]},
    ),
    (
        "emoji and right-to-left marks",
        "t.csv",
        "id,text\n1,\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \u202eabc\n".encode(),
        {
            "columns": ["id", "text"],
            "rows": [["1", "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \u202eabc"]],
        },
    ),
    (
        "UTF-8 with a byte-order mark",
        "t.csv",
        b"\xef\xbb\xbfid,text\n1,\xc3\xbc\n",
        {"columns": ["id", "text"], "rows": [["1", "\xfc"]]},
    ),
    (
        "a byte-order mark before a quoted name",
        "t.csv",
        b'\xef\xbb\xbf"id","text"\n1,\xc3\xbc\n',
        {"columns": ["id", "text"], "rows": [["1", "\xfc"]]},
    ),
    (
        "UTF-16 LE with a mark",
        "t.csv",
        b"\xff\xfei\x00d\x00\t\x00t\x00e\x00x\x00t\x00\r\x00\n\x001\x00\t\x00\xfc\x00\r\x00\n\x00",
        {
            "columns": ["id", "text"],
            "rows": [["1", "\xfc"]],
            "warnings": ["t.csv is not UTF-8; it was read as UTF-16."],
        },
    ),
    (
        "UTF-16 BE with a mark",
        "t.csv",
        b"\xfe\xff\x00i\x00d\x00,\x00t\x00e\x00x\x00t\x00\n\x001\x00,e\xe5g,\x00\n",
        {
            "columns": ["id", "text"],
            "rows": [["1", "\u65e5\u672c"]],
            "warnings": ["t.csv is not UTF-8; it was read as UTF-16."],
        },
    ),
    (
        "UTF-16 LE without a mark",
        "t.csv",
        b"i\x00d\x00,\x00t\x00e\x00x\x00t\x00\n\x001\x00,\x00p\x00l\x00a\x00i\x00n\x00\n\x00",
        {
            "columns": ["id", "text"],
            "rows": [["1", "plain"]],
            "warnings": ["t.csv is not UTF-8; it was read as UTF-16."],
        },
    ),
    (
        "UTF-16 that breaks off",
        "t.csv",
        b"\xff\xfei\x00d\x00,\x00t\x00e\x00x\x00t\x00\n\x001\x00,\x00\xfc\x00\n\x00A",
        {"problems": ["3: The file says that it is UTF-16, and is not."]},
    ),
    (
        "Latin-1",
        "t.csv",
        b"id;text\n1;M\xfcller gr\xfc\xdft\n2;Caf\xe9\n",
        {
            "columns": ["id", "text"],
            "rows": [["1", "M\xfcller gr\xfc\xdft"], ["2", "Caf\xe9"]],
            "warnings": ["t.csv is not UTF-8; it was read as Windows-1252 (Latin-1)."],
        },
    ),
    (
        "Windows-1252 with curly quotes",
        "t.csv",
        b"id,text\n1,\x93quoted\x94 \x96 5 \x80\n",
        {
            "columns": ["id", "text"],
            "rows": [["1", "\u201cquoted\u201d \u2013 5 \u20ac"]],
            "warnings": ["t.csv is not UTF-8; it was read as Windows-1252 (Latin-1)."],
        },
    ),
    (
        "one damaged byte in UTF-8",
        "t.csv",
        b"id,text\n1,\xc3\xbc\n2,\xc3\xa9\n3,\xff\n",
        {"problems": ["4: The byte 0xff is not UTF-8."]},
    ),
    (
        "bytes that no encoding has",
        "t.csv",
        b"id,text\n1,a\n2,\x81\x8d\n",
        {"problems": ["3: The byte 0x81 is neither UTF-8 nor Windows-1252 (Latin-1)."]},
    ),
    (
        "an Excel workbook by another name",
        "t.csv",
        b"PK\x03\x04rest of the archive",
        {"refused": "t.csv is a ZIP archive or an Excel workbook, no text."},
    ),
    (
        "a PDF by another name",
        "t.csv",
        b"%PDF-1.7\n...",
        {"refused": "t.csv is a PDF document, no text."},
    ),
    (
        "a Parquet file by another name",
        "t.csv",
        b"PAR1\x15\x04",
        {"refused": "t.csv is a Parquet file, no text."},
    ),
    (
        "bytes at random",
        "t.csv",
        b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00",
        {"problems": ["1: The file holds a NUL byte: it is no plain text."]},
    ),
    (
        "an unknown kind of file",
        "t.xlsx",
        b"PK\x03\x04",
        {"refused": "t.xlsx is no table by its name."},
    ),
    (
        "JSON rows",
        "t.json",
        b'[{"id":1,"text":"a"},{"id":2,"text":null}]',
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", ""]]},
    ),
    (
        "JSON numbers as written",
        "t.json",
        b'[{"a":1.10,"b":12345678901234567890123,"c":1e400,"d":-0.0,"e":true}]',
        {"columns": ["a", "b", "c", "d", "e"], "rows": [["1.10", "12345678901234567890123", "1e400", "-0.0", "true"]]},
    ),
    (
        "JSON with nested values",
        "t.json",
        b'[{"id":1,"tags":["a", "b"],"who":{"name":"x","n":1.50}}]',
        {"columns": ["id", "tags", "who"], "rows": [["1", '["a", "b"]', '{"name":"x","n":1.50}']]},
    ),
)


@pytest.mark.parametrize(("name", "data", "expected"), [source[1:] for source in SOURCES], ids=[s[0] for s in SOURCES])
def test_a_text_is_read_exactly_or_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes, expected: Mapping[str, Any]
) -> None:
    source = tmp_path / name
    source.write_bytes(data)

    assert outcome(source) == expected
    assert source.read_bytes() == data
