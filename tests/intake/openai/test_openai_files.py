"""Files of OpenAI batch lines: recognised, converted as a whole or refused as a whole, with what the user is told."""

import json
from pathlib import Path

import pytest

from gemini_batch_mcp.errors import PathError, RequestProblems, UsageError
from gemini_batch_mcp.intake.openai.lines import write_converted
from gemini_batch_mcp.intake.requests.copies import write_request_copy
from gemini_batch_mcp.intake.tables.kinds import SourceKind, recognise
from support.conversation import line as gemini_line
from support.sources import HELLO, line


def test_a_file_is_converted_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    lines = [json.dumps(line({"model": "m", "messages": HELLO, "user": "u"}, f"k{number}")) for number in range(3)]
    source.write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8")

    file = write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys")

    assert file.warnings == (
        "3 lines of an OpenAI batch were converted to Gemini requests.",
        "The model named in the lines (m) is not used: the order's model answers.",
        "Left out because Gemini has no counterpart: user.",
        "2 blank lines were skipped.",
    )
    assert (file.count, file.mended) == (3, True)
    assert (tmp_path / "keys").read_text(encoding="utf-8") == '"k0"\n"k1"\n"k2"\n'
    assert [json.loads(text)["key"] for text in (tmp_path / "out.jsonl").read_text().splitlines()] == ["k0", "k1", "k2"]

    pilot = write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys", limit_rows=1)
    assert pilot.count == 1
    assert pilot.warnings[0] == "1 line of an OpenAI batch was converted to a Gemini request."


def test_a_file_with_problems_is_refused_as_a_whole(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    lines = [json.dumps(line({"messages": HELLO}, "same")), "{}", json.dumps(line({"messages": HELLO}, "same"))]
    source.write_bytes("\n".join(lines).encode() + b"\n" + b"x" * (21 * 1024**2))

    with pytest.raises(RequestProblems) as refusal:
        write_converted(source, tmp_path / "out.jsonl", keys_path=tmp_path / "keys")

    assert [problem.line for problem in refusal.value.problems] == [2, 3, 4]
    assert {path.name for path in tmp_path.iterdir()} == {"batch.jsonl"}


def test_files_without_requests_or_with_too_many_bytes_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    out, keys = tmp_path / "out.jsonl", tmp_path / "keys"
    for unreadable in (source, tmp_path):
        with pytest.raises(PathError, match="cannot be read"):
            write_converted(unreadable, out, keys_path=keys)
    source.write_text("\n \n", encoding="utf-8")
    with pytest.raises(UsageError, match="contains no requests"):
        write_converted(source, out, keys_path=keys)
    source.write_text(json.dumps(line({"messages": HELLO})), encoding="utf-8")
    with pytest.raises(UsageError, match="a batch file has at most 10"):
        write_converted(source, out, keys_path=keys, max_file_bytes=10)


def test_a_file_of_both_forms_is_refused_whichever_comes_first(tmp_path: Path) -> None:
    source, out, keys = tmp_path / "mixed.jsonl", tmp_path / "out.jsonl", tmp_path / "keys"
    openai, gemini = json.dumps(line({"messages": HELLO}, "o")), gemini_line("g")

    source.write_text(f"{openai}\n{gemini}\n{openai}\n", encoding="utf-8")
    assert recognise(source, with_prompt=True) is SourceKind.OPENAI
    with pytest.raises(RequestProblems) as refusal:
        write_converted(source, out, keys_path=keys)
    mixed, repeated = refusal.value.problems
    assert str(mixed) == (
        "line 2: The line isn't an OpenAI batch line, unlike others in this file. "
        "A file can hold only one format: put the lines of each format in a file of their own."
    )
    assert repeated.line == 3

    source.write_text(f"{gemini}\n{openai}\n", encoding="utf-8")
    assert recognise(source, with_prompt=True) is SourceKind.READY
    with pytest.raises(RequestProblems) as refusal:
        write_request_copy(source, out, task="generate", keys_path=keys, max_file_bytes=10**6)
    [problem] = refusal.value.problems
    assert (problem.line, problem.key) == (2, "o")
    assert problem.message == "The line is in OpenAI's batch format (custom_id, method, url, body)."
    assert problem.fix.startswith("A file with only such lines is converted: put them in a file of their own. Or write")
