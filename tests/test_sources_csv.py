"""CSV as people have it: delimiters, quotes and line ends, each with every cell or with the line and the reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from source_kit import outcome

#: A description, the file's name, its bytes, and what comes of it.
SOURCES: Final[tuple[tuple[str, str, bytes, Mapping[str, Any]], ...]] = (
    (
        "commas",
        "t.csv",
        b"id,text\n1,a\n2,b\n",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "semicolons",
        "t.csv",
        b"id;text\n1;a,b\n2;c\n",
        {"columns": ["id", "text"], "rows": [["1", "a,b"], ["2", "c"]]},
    ),
    (
        "semicolons with decimal commas",
        "t.csv",
        b"id;price\n1;1,50\n2;2,75\n",
        {"columns": ["id", "price"], "rows": [["1", "1,50"], ["2", "2,75"]]},
    ),
    (
        "tabs in a tsv",
        "t.tsv",
        b"id\ttext\n1\ta,b;c\n",
        {"columns": ["id", "text"], "rows": [["1", "a,b;c"]]},
    ),
    (
        "tabs in a csv",
        "t.csv",
        b"id\ttext\n1\ta\n2\tb\n",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "commas in a tsv",
        "t.tsv",
        b"id,text\n1,a\n",
        {"columns": ["id", "text"], "rows": [["1", "a"]]},
    ),
    (
        "pipes",
        "t.csv",
        b"id|text\n1|a\n",
        {"columns": ["id", "text"], "rows": [["1", "a"]]},
    ),
    (
        "a separator line of a spreadsheet",
        "t.csv",
        b"sep=;\nid;text\n1;a,b\n",
        {"columns": ["id", "text"], "rows": [["1", "a,b"]]},
    ),
    (
        "quotes around cells",
        "t.csv",
        b'"id","text"\n"1","a"\n',
        {"columns": ["id", "text"], "rows": [["1", "a"]]},
    ),
    (
        "a comma inside quotes",
        "t.csv",
        b'id,text\n1,"a, b"\n',
        {"columns": ["id", "text"], "rows": [["1", "a, b"]]},
    ),
    (
        "quotes inside quotes",
        "t.csv",
        b'id,text\n1,"she said ""no"""\n',
        {"columns": ["id", "text"], "rows": [["1", 'she said "no"']]},
    ),
    (
        "a line end inside quotes",
        "t.csv",
        b'id,text\n1,"a\nb"\n2,c\n',
        {"columns": ["id", "text"], "rows": [["1", "a\nb"], ["2", "c"]]},
    ),
    (
        "CRLF inside quotes",
        "t.csv",
        b'id,text\r\n1,"a\r\nb"\r\n2,c\r\n',
        {"columns": ["id", "text"], "rows": [["1", "a\r\nb"], ["2", "c"]]},
    ),
    (
        "LF inside quotes of a CRLF file",
        "t.csv",
        b'id,text\r\n1,"a\nb"\r\n2,c\r\n',
        {"columns": ["id", "text"], "rows": [["1", "a\nb"], ["2", "c"]]},
    ),
    (
        "blank lines inside quotes",
        "t.csv",
        b'id,text\n1,"a\n\n\nb"\n',
        {"columns": ["id", "text"], "rows": [["1", "a\n\n\nb"]]},
    ),
    (
        "an empty quoted cell",
        "t.csv",
        b'id,text\n"",""\n',
        {"columns": ["id", "text"], "rows": [["", ""]]},
    ),
    (
        "inch marks in plain cells",
        "t.csv",
        b'id,text\n1,5" disc\n2,3.5" disc\n3,c\n',
        {"columns": ["id", "text"], "rows": [["1", '5" disc'], ["2", '3.5" disc'], ["3", "c"]]},
    ),
    (
        "backslash escapes",
        "t.csv",
        b'id,text\n1,"say \\"no\\", twice"\n2,b\n',
        {"columns": ["id", "text"], "rows": [["1", 'say "no", twice'], ["2", "b"]]},
    ),
    (
        "backslashes that escape nothing",
        "t.csv",
        b'id,path\n1,C:\\new\\table\n2,"C:\\dir, x"\n',
        {"columns": ["id", "path"], "rows": [["1", "C:\\new\\table"], ["2", "C:\\dir, x"]]},
    ),
    (
        "a quote that is never closed",
        "t.csv",
        b'id,text\n1,"abc\n2,d\n3,e\n',
        {"problems": ["2: A quote is not closed, or text follows the closing quote."]},
    ),
    (
        "text after a closing quote",
        "t.csv",
        b'id,text\n1,"a" b\n2,c\n',
        {"problems": ["2: A quote is not closed, or text follows the closing quote."]},
    ),
    (
        "CRLF",
        "t.csv",
        b"id,text\r\n1,a\r\n2,b\r\n",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "CR only",
        "t.csv",
        b"id,text\r1,a\r2,b\r",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "CRLF and LF mixed",
        "t.csv",
        b'id,text\r\n1,"a\r\nb"\n2,c\r\n',
        {
            "columns": ["id", "text"],
            "rows": [["1", "a\r\nb"], ["2", "c"]],
            "warnings": ["Line ends of different kinds were read as the same."],
        },
    ),
    (
        "no line end at the end",
        "t.csv",
        b"id,text\n1,a\n2,b",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "blank lines between rows",
        "t.csv",
        b"id,text\n\n1,a\n\n\n2,b\n\n",
        {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "b"]]},
    ),
    (
        "blank lines before the header",
        "t.csv",
        b"\n\nid,text\n1,a\n",
        {"columns": ["id", "text"], "rows": [["1", "a"]]},
    ),
    (
        "a row too short",
        "t.csv",
        b"id,text\n1,a\n2\n3,c\n",
        {"problems": ["3: The row has 1 cell; the header has 2."]},
    ),
    (
        "a row too long",
        "t.csv",
        b"id,text\n1,a\n2,b,c\n",
        {"problems": ["3: The row has 3 cells; the header has 2."]},
    ),
    (
        "ragged rows after cells with line ends",
        "t.csv",
        b'id,text\n1,"a\nb\nc"\n2\n3,d,e\n',
        {"problems": ["5: The row has 1 cell; the header has 2.", "6: The row has 3 cells; the header has 2."]},
    ),
    (
        "empty cells at the end of a row",
        "t.csv",
        b"id,text\n1,\n,b\n",
        {"columns": ["id", "text"], "rows": [["1", ""], ["", "b"]]},
    ),
    (
        "an empty name in the header",
        "t.csv",
        b",text\n0,a\n1,b\n",
        {
            "columns": ["column_1", "text"],
            "rows": [["0", "a"], ["1", "b"]],
            "warnings": ["Column 1 of t.csv has no name in the header; it is called column_1."],
        },
    ),
    (
        "only empty names in the header",
        "t.csv",
        b",,\n1,2,3\n",
        {"refused": "t.csv has only empty names in its header."},
    ),
    (
        "a column name twice",
        "t.csv",
        b"id,text,text\n1,a,b\n",
        {"refused": "t.csv has more than one column named text."},
    ),
)


@pytest.mark.parametrize(("name", "data", "expected"), [source[1:] for source in SOURCES], ids=[s[0] for s in SOURCES])
def test_a_csv_is_read_exactly_or_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes, expected: Mapping[str, Any]
) -> None:
    source = tmp_path / name
    source.write_bytes(data)

    assert outcome(source) == expected
    assert source.read_bytes() == data
