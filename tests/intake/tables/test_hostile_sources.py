"""A table of hostile sources, each with its exact outcome: every text as it is sent, or the refusal with its reason."""

import gzip
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.extent import in_part, part, tries
from support.sources import (
    TEXT,
    Source,
    cut_off,
    outcome_of,
    parquet,
    previewed,
    read_as,
    refused,
    rows,
    unnamed,
    wide,
)

OPEN_QUOTE: Final = "2: A quote is not closed, or text follows the closing quote."

#: Of the widest table that is read; the time that it takes grows with the square.
COLUMNS: Final = tries(10_000, 3_000)

# fmt: off
#: Delimiters, quotes, line ends, headers.
CSV: Final[tuple[Source, ...]] = (
    rows("commas", b"id,text\n1,a\n2,b\n", "1|a", "2|b"),
    rows("semicolons", b"id;text\n1;a,b\n2;c\n", "1|a,b", "2|c"),
    rows("semicolons with decimal commas", b"id;price\n1;1,50\n2;2,75\n", "1|1,50", "2|2,75",
         prompt="{{id}}|{{price}}"),
    rows("tabs in a tsv", b"id\ttext\n1\ta,b;c\n", "1|a,b;c", file="t.tsv"),
    rows("tabs in a csv", b"id\ttext\n1\ta\n2\tb\n", "1|a", "2|b"),
    rows("commas in a tsv", b"id,text\n1,a\n", "1|a", file="t.tsv"),
    rows("pipes", b"id|text\n1|a\n", "1|a"),
    rows("a separator line of a spreadsheet", b"sep=;\nid;text\n1;a,b\n", "1|a,b"),
    rows("quotes around cells", b'"id","text"\n"1","a"\n', "1|a"),
    rows("a comma inside quotes", b'id,text\n1,"a, b"\n', "1|a, b"),
    rows("quotes inside quotes", b'id,text\n1,"she said ""no"""\n', '1|she said "no"'),
    rows("a line end inside quotes", b'id,text\n1,"a\nb"\n2,c\n', "1|a\nb", "2|c"),
    rows("CRLF inside quotes", b'id,text\r\n1,"a\r\nb"\r\n2,c\r\n', "1|a\r\nb", "2|c"),
    rows("LF inside quotes of a CRLF file", b'id,text\r\n1,"a\nb"\r\n2,c\r\n', "1|a\nb", "2|c"),
    rows("blank lines inside quotes", b'id,text\n1,"a\n\n\nb"\n', "1|a\n\n\nb"),
    rows("an empty quoted cell", b'id,text\n"",""\n', "|"),
    rows("inch marks in plain cells", b'id,text\n1,5" disc\n2,3.5" disc\n3,c\n', '1|5" disc', '2|3.5" disc', "3|c"),
    rows("backslash escapes", b'id,text\n1,"say \\"no\\", twice"\n2,b\n', '1|say "no", twice', "2|b"),
    rows("backslashes that escape nothing", b'id,path\n1,C:\\new\\table\n2,"C:\\dir, x"\n', "1|C:\\new\\table",
         "2|C:\\dir, x", prompt="{{id}}|{{path}}"),
    refused("a quote that is never closed", b'id,text\n1,"abc\n2,d\n3,e\n', OPEN_QUOTE),
    refused("text after a closing quote", b'id,text\n1,"a" b\n2,c\n', OPEN_QUOTE),
    rows("CRLF", b"id,text\r\n1,a\r\n2,b\r\n", "1|a", "2|b"),
    rows("CR only", b"id,text\r1,a\r2,b\r", "1|a", "2|b"),
    rows("CRLF and LF mixed", b'id,text\r\n1,"a\r\nb"\n2,c\r\n', "1|a\r\nb", "2|c",
         warns="Different kinds of line ends were treated alike."),
    rows("no line end at the end", b"id,text\n1,a\n2,b", "1|a", "2|b"),
    rows("blank lines between rows", b"id,text\n\n1,a\n\n\n2,b\n\n", "1|a", "2|b"),
    rows("blank lines before the header", b"\n\nid,text\n1,a\n", "1|a"),
    refused("a row too short", b"id,text\n1,a\n2\n3,c\n", "3: The row has 1 cell; the header has 2."),
    refused("a row too long", b"id,text\n1,a\n2,b,c\n", "3: The row has 3 cells; the header has 2."),
    refused("ragged rows after cells with line ends", b'id,text\n1,"a\nb\nc"\n2\n3,d,e\n',
         "5: The row has 1 cell; the header has 2.", "6: The row has 3 cells; the header has 2."),
    rows("empty cells at the end of a row", b"id,text\n1,\n,b\n", "1|", "|b"),
    rows("an empty name in the header", b",text\n0,a\n1,b\n", "0|a", "1|b", prompt="{{column_1}}|{{text}}",
         warns=unnamed(1)),
    refused("only empty names in the header", b",,\n1,2,3\n", "t.csv has a header with only empty names."),
    refused("a column name twice", b"id,text,text\n1,a,b\n", "t.csv has more than one column named text."),
    rows("a delimiter at the end of every line", b"id,text,\n1,a,\n2,b,\n", "1|a", "2|b",
         warns=unnamed(3)),
    rows("a delimiter at the end of the rows", b"id,text\n1,a,\n2,b,\n", "1|a", "2|b"),
    rows("a row of delimiters", b"id,text\n,\n1,a\n", "|", "1|a"),
    refused("a name that differs in white space only", b"id,text, text\n1,a,b\n",
         "t.csv has more than one column named text."),
    refused("a name that an empty one would get", b",column_1\n1,a\n", "t.csv has more than one column named column_1.",
         prompt="{{column_1}}"),
    rows("two empty names", b",,text\n1,2,a\n", "1|2|a", prompt="{{column_1}}|{{column_2}}|{{text}}",
         warns=(unnamed(1), unnamed(2))),
    rows("years as names", b"name,2019,2020\nA,1,2\nB,3,4\n", "A|1", "B|3", prompt="{{name}}|{{2019}}"),
    rows("a name with a delimiter", b'"id","the, text"\n1,a\n', "1|a", prompt="{{id}}|{{the, text}}"),
    refused("single quotes are no quotes", b"id,text\n1,'a,b'\n", "2: The row has 3 cells; the header has 2."),
    refused("a quote alone in a cell", b'id,text\n1,"\n2,b\n', OPEN_QUOTE),
    refused("a quote open at the end", b'id,text\n1,"abc', OPEN_QUOTE),
    rows("a carriage return inside quotes", b'id,text\n1,"a\rb"\n', "1|a\rb"),
    rows("LF before CR", b"id,text\n\r1,a\n\r2,b\n\r", "1|a", "2|b",
         warns="Different kinds of line ends were treated alike."),
    rows("unit separators", b"id\x1ftext\n1\x1fa\n", "1|a"),
    rows("a separator line in a tsv", b"sep=|\nid|text\n1|a\n", "1|a", file="t.tsv"),
    refused("a title above the header", b"Report of May\n\nid,text\n1,a\n",
         '`prompt` names the column "id", which the table does not have.'),
    rows("spaces that no keyboard has", "id,text\n1,\u00a0a\u200b\n".encode(), "1|\xa0a\u200b"),
)

#: Headers and cells that are odd, and cells that must stay as they are written.
CELLS: Final[tuple[Source, ...]] = (
    rows("column names that differ in case", b"id,text,TEXT\n1,a,b\n", "1|a|b", prompt="{{id}}|{{text}}|{{TEXT}}"),
    rows("column names with spaces and line ends", b'"customer id"," the\ntext "\n1,a\n', "1|a",
         prompt="{{customer id}}|{{the text}}"),
    rows("column names with quotes and SQL", b'"a\'b","x""y","c0; DROP TABLE t"\n1,2,3\n', "1|2|3",
         prompt='{{a\'b}}|{{x"y}}|{{c0; DROP TABLE t}}'),
    refused("no header", b"1,2024-01-05,3.5\n2,2024-01-06,4.5\n",
         "t.csv has no header: its first line is 1, 2024-01-05, 3.5."),
    refused("a header and nothing else", b"id,text\n", "t.csv has no rows."),
    refused("an empty file", b"", "t.csv is empty."),
    refused("spaces and line ends only", b" \n\n \n", "t.csv is empty."),
    rows("one column", b"text\na\nb\n", "a", "b", prompt=TEXT),
    rows("one column of prose with commas", b"text\nHello, world\nOne, two, three\nplain\n", "Hello, world",
         "One, two, three", "plain", prompt=TEXT),
    rows("one column with blank lines", b"text\na\n\nb\n", "a", "b", prompt=TEXT),
    rows("numbers, dates and zeros as written",
         b"zip,price,date,big,exp,flag\n007,1.10,2024-01-05,123456789012345678901234567890,1e5,TRUE\n",
         "007|1.10|2024-01-05|123456789012345678901234567890|1e5|TRUE",
         prompt="{{zip}}|{{price}}|{{date}}|{{big}}|{{exp}}|{{flag}}"),
    rows("words that mean null elsewhere", b"a,b,c,d\nNULL,NA,null,nan\n", "NULL|NA|null|nan",
         prompt="{{a}}|{{b}}|{{c}}|{{d}}"),
    rows("spaces around cells", b"id,text\n 1 , a \n", " 1 | a "),
    rows("formulas of spreadsheets", b'id,text\n1,=HYPERLINK("http://x";A1)\n2,+1+2\n3,@SUM(A1)\n4,-2\n',
         '1|=HYPERLINK("http://x";A1)', "2|+1+2", "3|@SUM(A1)", "4|-2"),
    rows("braces of a prompt", b"id,text\n1,{{id}} and {{nothing}}\n", "1|{{id}} and {{nothing}}"),
    rows("a hash at the start of a row", b"id,text\n#1,a\n", "#1|a"),
    rows("U+2028 and other separators in cells", b"id,text\n1,a\xe2\x80\xa8b\xe2\x80\xa9c\xc2\x85d\x0be\x0cf\n",
         "1|a\u2028b\u2029c\x85d\x0be\x0cf"),
    rows("control characters in cells", b"id,text\n1,a\x01b\x02c\x1fd\x7fe\x08\n", "1|a\x01b\x02c\x1fd\x7fe\x08"),
    refused("a NUL in a cell", b"id,text\n1,a\x00b\n", "2: The file contains a NUL byte: it isn't plain text."),
    rows("emoji and right-to-left marks",
         "id,text\n1,👩\u200d👧 \u202eabc\n".encode(),
         "1|👩\u200d👧 \u202eabc"),
)

#: Encodings, and files that are no text.
BYTES: Final[tuple[Source, ...]] = (
    rows("UTF-8 with a byte-order mark", b"\xef\xbb\xbfid,text\n1,\xc3\xbc\n", "1|ü"),
    rows("a byte-order mark before a quoted name", b'\xef\xbb\xbf"id","text"\n1,\xc3\xbc\n', "1|ü"),
    rows("UTF-16 LE with a mark",
         "\ufeffid\ttext\r\n1\tü\r\n".encode("utf-16-le"), "1|ü",
         warns=read_as("UTF-16")),
    rows("UTF-16 BE with a mark", "\ufeffid,text\n1,日本\n".encode("utf-16-be"), "1|日本",
         warns=read_as("UTF-16")),
    rows("UTF-16 LE without a mark",
         "id,text\n1,plain\n".encode("utf-16-le"), "1|plain",
         warns=read_as("UTF-16")),
    refused("UTF-16 that breaks off", b"\xff\xfei\x00d\x00,\x00t\x00e\x00x\x00t\x00\n\x001\x00,\x00\xfc\x00\n\x00A",
         "3: The file declares itself as UTF-16 but isn't."),
    rows("Latin-1", b"id;text\n1;M\xfcller gr\xfc\xdft\n2;Caf\xe9\n", "1|Müller grüßt", "2|Café",
         warns=read_as("Windows-1252 (Latin-1)")),
    rows("Windows-1252 with curly quotes", b"id,text\n1,\x93this is what the box was for\x94 \x96 5 \x80\n",
         "1|“this is what the box was for” – 5 €", warns=read_as("Windows-1252 (Latin-1)")),
    refused("one damaged byte in UTF-8", b"id,text\n1,\xc3\xbc\n2,\xc3\xa9\n3,\xff\n",
         "4: The byte 0xff is not UTF-8."),
    refused("two letters that every country reads otherwise", b"id,text\n1,a\n2,\x81\x8d\n",
         "t.csv is not UTF-8, and its encoding isn't certain; the same cells read as cp857: üı; as windows-1251: ЃЌ; "
         "as cp866: БН."),
    refused("an Excel workbook by another name", b"PK\x03\x04rest of the archive",
         "t.csv is a ZIP archive or an Excel workbook, not text."),
    refused("a PDF by another name", b"%PDF-1.7\n...", "t.csv is a PDF document, not text."),
    refused("a Parquet file by another name", b"PAR1\x15\x04", "t.csv is a Parquet file, not text."),
    refused("bytes at random", b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00",
         "1: The file contains a NUL byte: it isn't plain text."),
    refused("an unknown kind of file", b"PK\x03\x04", "t.docx does not have a table's file name.", file="t.docx"),
    rows("UTF-32 with a mark", "id,text\n1,\xfc\n".encode("utf-32"), "1|ü", warns=read_as("UTF-32")),
    rows("UTF-16 BE without a mark", "id,text\n1,plain\n".encode("utf-16-be"), "1|plain", warns=read_as("UTF-16")),
    refused("gzip under a false name", gzip.compress(b"id,text\n1,a\n"), "t.csv is a gzip archive, not text."),
    rows("gzip under its own name", gzip.compress(b"id,text\n1,a\n"), "1|a", file="t.csv.gz"),
    refused("a database under a false name", b"SQLite format 3\0" + bytes(80), "t.csv is a SQLite database, not text."),
    refused("an old workbook under a false name", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(80),
         "t.csv is an old Excel workbook, not text."),
    refused("a picture under a false name", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
         "t.csv is a PNG image, not text."),
    refused("a page of the web under a false name", b"<!DOCTYPE html>\n<html><body>Log in</body></html>\n",
         "t.csv is a saved web page, not a table."),
    refused("a directory with a table's name", Path.mkdir, "t.csv does not exist or is not a file."),
    refused("a file that is not there", Path.exists, "t.csv does not exist or is not a file."),
)

#: Lists of objects, and objects a line.
JSON: Final[tuple[Source, ...]] = (
    rows("JSON rows", b'[{"id":1,"text":"a"},{"id":2,"text":null}]', "1|a", "2|", file="t.json"),
    rows("JSON numbers as written", b'[{"a":1.10,"b":12345678901234567890123,"c":1e400,"d":-0.0,"e":true}]',
         "1.10|12345678901234567890123|1e400|-0.0|true", prompt="{{a}}|{{b}}|{{c}}|{{d}}|{{e}}", file="t.json"),
    rows("JSON with nested values", b'[{"id":1,"tags":["a", "b"],"who":{"name":"x","n":1.50}}]',
         '1|["a", "b"]|{"name":"x","n":1.50}', prompt="{{id}}|{{tags}}|{{who}}", file="t.json"),
    rows("JSON rows with different members", b'[{"a":"1"},{"b":"2"},{"a":"3","b":"4"}]', "1|", "|2", "3|4",
         prompt="{{a}}|{{b}}", warns="Missing members are treated as empty: a in 1, b in 1.", file="t.json"),
    rows("JSON with line ends and a mark", b'\xef\xbb\xbf[\n  {\n    "a": "1"\n  },\n  {"a": "2"}\n]\n', "1", "2",
         prompt="{{a}}", file="t.json"),
    refused("an empty JSON list", b"[]", "t.json has no rows.", prompt=TEXT, file="t.json"),
    refused("one JSON object", b'{"data":[{"a":1}]}', "t.json holds one object; it must hold a list of objects.",
         file="t.json"),
    refused("a JSON list of lists", b"[[1,2],\n[3,4]]", "1: The item that starts here is a list, not an object.",
         "2: The item that starts here is a list, not an object.", file="t.json"),
    refused("JSON that breaks off", b'[{"a":1},\n{"a":2', "2: The JSON is invalid here: the item isn't valid JSON.",
         file="t.json"),
    refused("JSON with a comma too many", b'[{"a":1},\n]',
         "2: The JSON is invalid here: there is an extra comma before ].", file="t.json"),
    refused("JSON without a comma", b'[{"a":1}\n{"a":2}]', "2: The JSON is invalid here: a comma is missing.",
         file="t.json"),
    refused("JSON with more after the list", b'[{"a":1}]\n[]',
         "2: The JSON is invalid here: something follows the list.",
         file="t.json"),
    refused("a JSON member twice", b'[{"a":1,"a":2}]', "1: The item that starts here gives `a` more than once.",
         file="t.json"),
    refused("JSON with NaN", b'[{"a":1},\n{"a":NaN}]',
         "2: The item that starts here holds a value that cannot be read, such as NaN.", file="t.json"),
    refused("rows without members", b"[{},{}]", "t.json has rows without any members.", file="t.json"),
    rows("JSON lines", b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n', "1|a", "2|b", file="t.jsonl"),
    rows("JSON lines with blanks and CRLF", b'{"id":1}\r\n\r\n{"id":2}', "1", "2", prompt="{{id}}", file="t.jsonl"),
    refused("JSON lines with errors", b'{"id":1}\n{"id":\n[1]\n{"id":4}\n"x"\n',
         "2: The line ends before its JSON is complete.", "3: The line is a list, not an object.",
         "5: The line is text, not an object.", file="t.jsonl"),
    refused("a JSON line with half a surrogate", b'{"id":1}\n{"id":"\\ud800"}\n',
         "2: The line contains half of a surrogate pair, \\ud800.", file="t.jsonl"),
    rows("JSON lines with escapes", b'{"a":"\\u00fc\\n\\"\\\\\\u2028\\ud83d\\ude00\\u0000"}\n', 'ü\n"\\\u2028😀\x00',
         prompt="{{a}}", file="t.ndjson"),
    rows("JSON lines in UTF-16", b'\xff\xfe{\x00"\x00a\x00"\x00:\x00"\x00\xfc\x00"\x00}\x00\n\x00', "ü", prompt="{{a}}",
         warns=read_as("UTF-16", "t.jsonl"), file="t.jsonl"),
    refused("a JSON file with one text", b'"x"', "t.json holds no list; it must hold a list of objects.",
         file="t.json"),
    refused("an empty JSON file", b" \n", "t.json is empty.", file="t.json"),
    refused("JSON lines in a JSON file", b'{"id":1}\n{"id":2}\n',
         "t.json holds one object; it must hold a list of objects.", file="t.json"),
    refused("a JSON list of values", b'[1,\n"x",\nnull]', "1: The item that starts here is a number, not an object.",
         "2: The item that starts here is text, not an object.", "3: The item that starts here is null, not an object.",
         file="t.json"),
    rows("JSON with members of mixed kinds", b'[{"id":1,"text":"a"},{"id":"2","text":true},{"id":null,"text":[1]}]',
         "1|a", "2|true", "|[1]", file="t.json"),
    rows("JSON numbers beyond 2^53", b'[{"id":9007199254740993,"text":0.10000000000000000555}]',
         "9007199254740993|0.10000000000000000555", file="t.json"),
    refused("JSON with -Infinity", b'[{"id":1,"text":-Infinity}]',
         "1: The item that starts here holds a value that cannot be read, such as NaN.", file="t.json"),
    rows("a JSON member without a name", b'[{"":1,"id":2,"text":"a"}]', "2|a", file="t.json"),
    refused("JSON with a comment", b'[{"id":1,"text":"a"} // x\n]', "1: The JSON is invalid here: a comma is missing.",
         file="t.json"),
    refused("JSON with single quotes", b"[{'id':1}]",
         "1: The JSON is invalid here: the item isn't valid JSON.", file="t.json"),
    refused("JSON with a wrong escape", b'[{"id":1},\n{"id":"\\x"}]',
         "2: The JSON is invalid here: the item isn't valid JSON.",
         file="t.json"),
    refused("JSON with half a surrogate", b'[{"id":1},\n{"id":"\\udc00"}]',
         "2: The item that starts here contains half of a surrogate pair, \\udc00.", file="t.json"),
    rows("JSON in UTF-16", '[{"id":1,"text":"\xfc"}]'.encode("utf-16"), "1|ü", file="t.json",
         warns=read_as("UTF-16", "t.json")),
    rows("JSON in Latin-1", b'[{"id":1,"text":"M\xfcller gr\xfc\xdft"}]', "1|Müller grüßt", file="t.json",
         warns=read_as("Windows-1252 (Latin-1)", "t.json")),
    rows("a nested JSON member twice", b'[{"id":1,"text":{"a":1,"a":2}}]', '1|{"a":1,"a":2}', file="t.json"),
    rows("JSON with CR in a text", b'[{"id":1,"text":"a\\r\\nb"},{"id":2,"text":"\\r"}]', "1|a\r\nb", "2|\r",
         file="t.json"),
    rows("JSON lines that lack members", b'{"id":1,"text":"a"}\n{"id":2}\n{"text":"c"}\n', "1|a", "2|", "|c",
         file="t.jsonl", warns="Missing members are treated as empty: id in 1, text in 1."),
    refused("a JSON line with two objects", b'{"id":1} {"id":2}\n',
         "1: The line contains more than one JSON value; the second starts at character 10.", file="t.jsonl"),
    refused("JSON lines with commas", b'{"id":1},\n{"id":2}\n', "1: The line ends with a comma.", file="t.jsonl"),
    refused("JSON lines without any", b"\n\n", "t.jsonl is empty.", file="t.jsonl"),
    rows("JSON lines with a mark", b'\xef\xbb\xbf{"id":1,"text":"a"}\n', "1|a", file="t.jsonl"),
)

#: Lines of text.
LINES: Final[tuple[Source, ...]] = (
    rows("lines of text", b'one\ntwo, "three"\n', "one", 'two, "three"', prompt=TEXT, file="t.txt"),
    rows("lines of text with blanks and CRLF", b"one\r\n\r\n  \r\ntwo\r\n", "one", "two", prompt=TEXT,
         warns="2 blank lines were left out.", file="t.txt"),
    rows("lines of text in Windows-1252", b"M\xfcller\n", "Müller", prompt=TEXT,
         warns=read_as("Windows-1252 (Latin-1)", "t.txt"), file="t.txt"),
    refused("text of one blank line", b"\n", "t.txt is empty.", file="t.txt"),
    refused("text with a mark and nothing else", b"\xef\xbb\xbf", "t.txt is empty.", file="t.txt", prompt=TEXT),
    refused("text with a NUL", b"a\n\0b\n", "2: The file contains a NUL byte: it isn't plain text.", file="t.txt",
         prompt=TEXT),
    rows("text with other separators of lines", "a\u2028b\x0bc\x0cd\x85e\n".encode(), "a\u2028b\x0bc\x0cd\x85e",
         file="t.txt", prompt=TEXT),
    rows("text with tabs around", b"\ta\t\n", "\ta\t", file="t.txt", prompt=TEXT),
    rows("text in UTF-16", "a\n\xfc\n".encode("utf-16"), "a", "ü", file="t.txt", prompt=TEXT,
         warns=read_as("UTF-16", "t.txt")),
    rows("text with a CR inside a line", b"a\rb\nc\n", "a\rb", "c", file="t.txt", prompt=TEXT),
    rows("the same text twice", b"a\na\n", "a", "a", file="t.txt", prompt=TEXT),
)

#: Parquet.
PARQUET: Final[tuple[Source, ...]] = (
    refused("a damaged Parquet file", b"PAR1 not really PAR1", "t.parquet is damaged or not a Parquet file.",
         file="t.parquet"),
    refused("an empty Parquet file", b"", "t.parquet is damaged or not a Parquet file.", file="t.parquet"),
    rows("Parquet with nested values",
         parquet("SELECT [{'a': 1, 'b': [DATE '2026-01-02']}] AS id, MAP {'k': [true, NULL]} AS text"),
         '[{"a":1,"b":["2026-01-02"]}]|{"k":[true,null]}', file="t.parquet"),
    rows("Parquet with a struct and a list",
         parquet("SELECT {'name': 'x', 'tags': ['p', 'q']} AS id, [1, NULL] AS text"),
         '{"name":"x","tags":["p","q"]}|[1,null]', file="t.parquet"),
    rows("Parquet with dates and times",
         parquet("SELECT DATE '2026-01-02' AS id, TIMESTAMP '2026-01-02 03:04:05.678' AS text"),
         "2026-01-02|2026-01-02 03:04:05.678", file="t.parquet"),
    rows("Parquet with time zones",
         parquet("SELECT TIME '03:04:05' AS id, TIMESTAMPTZ '2026-01-02 03:04:05+02' AS text"),
         "03:04:05|2026-01-02 01:04:05+00", file="t.parquet"),
    rows("Parquet with decimals and large numbers",
         parquet("SELECT 1.10::DECIMAL(6,2) AS id, 9007199254740993 AS text"), "1.10|9007199254740993",
         file="t.parquet"),
    rows("Parquet with numbers that are none", parquet("SELECT 'nan'::DOUBLE AS id, '-inf'::DOUBLE AS text"),
         "nan|-inf", file="t.parquet"),
    rows("Parquet with bytes and bits", parquet("SELECT '\\xFF\\x00'::BLOB AS id, '101'::BIT AS text"), "/wA=|101",
         file="t.parquet"),
    rows("Parquet with an identifier and a choice",
         parquet("SELECT '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID AS id, 'a'::ENUM('a', 'b') AS text"),
         "6ba7b810-9dad-11d1-80b4-00c04fd430c8|a", file="t.parquet"),
    rows("Parquet with nothing in it", parquet("SELECT NULL::INTEGER AS id, NULL::STRUCT(a INTEGER) AS text"), "|",
         file="t.parquet"),
    rows("Parquet with NUL, quotes and line ends",
         parquet("SELECT '00' || chr(0) || '1' AS id, chr(13) || chr(10) || '\"' AS text"), '00\x001|\r\n"',
         file="t.parquet"),
    rows("Parquet with flags and zeros in front", parquet("SELECT true AS id, '00123' AS text"), "true|00123",
         file="t.parquet"),
    rows("Parquet names with quotes", parquet('SELECT 1 AS "a ""b"", c"'), "1", prompt='{{a "b", c}}',
         file="t.parquet"),
    refused("Parquet without rows", parquet("SELECT 1 AS id, 2 AS text WHERE false"), "t.parquet has no rows.",
         file="t.parquet"),
    refused("Parquet that lost its end", cut_off, "t.parquet is damaged or not a Parquet file.", file="t.parquet"),
)

#: Wide, long and deep.
SIZES: Final[tuple[Source, ...]] = (
    rows("thousands of columns", wide(COLUMNS), f"0|{COLUMNS - 1}",
         prompt=f"{{{{column 0}}}}|{{{{column {COLUMNS - 1}}}}}"),
    refused("too many columns", wide(16_385), "t.csv has 16,385 columns, more than 16,384."),
    rows("one huge cell", b'id,text\n1,"' + b"\xc3\xbc,\n" * 1_000_000 + b'"\n', "ü,\n" * 1_000_000, prompt=TEXT),
    refused("a header that never ends", b"x" * (1 << 21), "t.csv has no header within its first megabyte."),
    refused("a line of text longer than a request", b"a\n" + b"x" * (21 << 20) + b"\n",
         "2: The line has 22,020,096 bytes, more than 20,971,520.", file="t.txt", prompt=TEXT),
    refused("JSON nested without end", b"[" * 100_000, "1: The JSON is invalid here: the item is nested too deeply.",
         file="t.json"),
)

#: Orders that do not fit their table, and keys.
ORDERS: Final[tuple[Source, ...]] = (
    rows("keys as written", b"id,text\n007,a\n7,b\n7.0,c\n 7,d\n", "007|a", "7|b", "7.0|c", " 7|d", key_column="id",
         keys=("007", "7", "7.0", " 7")),
    rows("a key with a line end", b'id,text\n"a\nb",a\n', "a\nb|a", key_column="id", keys=("a\nb",)),
    refused("a key that comes twice", b"id,text\n1,a\n2,b\n1,c\n", "0: Row 3: `key` is the same as that of row 1.",
         key_column="id"),
    refused("an empty key", b"id,text\n1,a\n,b\n", "0: Row 2 has nothing in the key column id.", key_column="id"),
    refused("thirty empty keys and one that comes twice", b"id,text\n1,a\n" + b",b\n" * 30 + b"1,c\n",
            "0: Row 2 and 29 more have nothing in the key column id.",
            "0: Row 32: `key` is the same as that of row 1.", key_column="id"),
    refused("a key too long", b"id,text\n" + b"k" * 1025 + b",a\n",
         "0: Row 1 has 1,025 characters in the key column id.", key_column="id"),
    refused("an unknown key column", b"id,text\n1,a\n",
         '`key_column` names the column "ID", which the table does not have.', key_column="ID"),
    refused("an unknown column", b"id,text\n1,a\n", '`prompt` names the column "name", which the table does not have.',
         prompt="{{name}}"),
    refused("a prompt without columns", b"id,text\n1,a\n",
         "The prompt names no column, so every row would ask the same question and its values would be lost.",
         prompt="Hello"),
    refused("no prompt", b"id,text\n1,a\n", "t.csv is a table, which needs a `prompt`.", prompt=""),
    refused("braces that stay open", b"id,text\n1,a\n",
         "`prompt` has {{ at character 1 without a column name and }} after it.", prompt="{{id}"),
    rows("braces that are meant", b"id,text\n1,a\n", "{{id}} a", prompt="\\{{id}} {{text}}"),
    rows("rows without a text", b"id,text\n1,\n2,b\n", "", "b", prompt=TEXT,
         warns="1 row has no text, which Gemini refuses."),
    rows("rows to embed", b"id,text\n1,a\n2,\n", "a", "", prompt=TEXT, task="embed",
         model="gemini-embedding-001", warns="1 row has no text, which Gemini refuses."),
    rows("the first rows", b"id,text\n1,a\n2,b\n3,c\n", "1|a", "2|b", limit_rows=2),
    rows("more rows than there are", b"id,text\n1,a\n", "1|a", limit_rows=9),
    refused("first rows of a table that is wrong further down", b"id,text\n1,a\n2\n",
         "3: The row has 1 cell; the header has 2.", limit_rows=1),
)
# fmt: on


SOURCES: Final = (*CSV, *CELLS, *BYTES, *JSON, *LINES, *PARQUET, *SIZES, *ORDERS)
#: What an order is refused for before its source is read as a table.
AT_THE_DOOR: Final = {
    "an unknown kind of file": {
        "refused": ("t.docx is an Office document, which has no rows and which Gemini does not accept.",)
    },
    "a directory with a table's name": {"refused": ("t.csv holds no files.",)},
    "no prompt": {"refused": ("t.csv is a table, so the order needs a prompt that turns each row into a request.",)},
    "a file that is not there": {"refused": ("There is no file '…/t.csv' in ….",)},
    # Where the columns are kept, the rows are named, and how to leave them out.
    "rows without a text": {"count": 2, "texts": ("", "b"), "unsaid": {"1 row has no text, which Gemini refuses."}},
    "rows to embed": {"count": 2, "texts": ("a", ""), "unsaid": {"1 row has no text, which Gemini refuses."}},
}


def test_the_table_is_large_and_each_source_has_a_name_of_its_own() -> None:
    assert len({source.name for source in SOURCES}) == len(SOURCES) >= 180


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
def test_a_source_is_rendered_exactly_or_refused_with_the_reason(tmp_path: Path, source: Source) -> None:
    path = source.make(tmp_path)
    before = path.read_bytes() if path.is_file() else b""

    assert outcome_of(source, path) == source.expected
    assert not before or path.read_bytes() == before


@in_part
@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_a_preview_shows_the_same(settings: Settings, sandbox: Sandbox, data: Path) -> None:
    shown: dict[str, Any] = {}
    expected: dict[str, Any] = {}
    async with lazy_desk(settings, sandbox.transport) as lazy:
        for source in SOURCES:
            if source.name not in AT_THE_DOOR and source not in part(SOURCES, 8):
                continue
            directory = data / str(len(shown))
            directory.mkdir()
            shown[source.name] = await previewed(await lazy.get(), source, directory)
            expected[source.name] = source.expected_preview

    assert shown == expected | AT_THE_DOOR
