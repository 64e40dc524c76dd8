"""Old encodings as people have them: found out, asked about with the same cells in each likely reading, or given."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation

pytestmark = pytest.mark.anyio

POLISH = "id,opinia\n1,świetny produkt za złotówkę gęślą jaźń\n2,źle\n"
RUSSIAN = "id,text\n1,Очень хороший\n"
FRENCH = "id;comment\n1;Prix fixé très bon café\n2;naïve façade ñandú\n"
JAPANESE = "id,レビュー\n" + "".join(f"{n},配達が遅くてとても残念でした。番号{n}\n" for n in range(48))


def write(data: Path, name: str, content: bytes) -> str:
    (data / name).write_bytes(content)
    return name


async def previewed(talk: Conversation, source: str, column: str = "text", **order: Any) -> dict[str, Any]:
    return await talk.call("preview_batch", source=source, prompt=f"{{{{{column}}}}}", **order)


def sent(seen: dict[str, Any]) -> list[str]:
    """The prompts of the requests that a preview shows."""
    return [line["request"]["contents"][0]["parts"][0]["text"] for line in seen["sample"]]


async def test_exports_of_old_programs_are_read_as_they_were_written(talk: Conversation, data: Path) -> None:
    for name, text, page, column, shown in (
        ("c1.csv", FRENCH, "cp850", "comment", "CP850 (DOS)"),
        ("c3.csv", POLISH, "cp1250", "opinia", "Windows-1250"),
        ("c3r.csv", RUSSIAN, "cp1251", "text", "Windows-1251"),
        ("sjis.csv", JAPANESE, "cp932", "レビュー", "Shift_JIS"),
        ("seven.csv", JAPANESE, "iso2022_jp", "レビュー", "ISO-2022-JP"),
    ):
        seen = await previewed(talk, write(data, name, text.encode(page)), column)
        cells = [line.replace(";", ",").split(",")[1] for line in text.splitlines()[1:3]]
        assert sent(seen) == cells, name
        assert seen["warnings"][0] == f"{name} is not UTF-8; it was read as {shown}."


async def test_what_may_be_read_in_several_ways_is_shown_and_asked_about(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write(data, "t.csv", "id,text\n1,źle\n2,Ćma\n3,tak\n".encode("cp1250"))
    for tool in ("preview_batch", "create_batch"):
        said = await talk.refusal(tool, source=source, prompt="{{text}}")
        assert "t.csv is not UTF-8, and its encoding isn't certain; the same cells read as" in said
        assert "windows-1250: źle · Ćma" in said and 'give encoding="' in said
    assert not sandbox.create_records
    # Whatever its spelling, and one that changes no letter is no other order.
    first = await talk.call("create_batch", source=source, prompt="{{text}}", encoding="windows-1250")
    again = await talk.call("create_batch", source=source, prompt="{{text}}", encoding="CP1250")
    assert again["reused"] and again["batch_id"] == first["batch_id"]
    other = await previewed(talk, source, encoding="cp852")
    assert not other["standing"] and sent(other) != ["źle", "Ćma"]
    taken = await talk.call("preview_batch", like=first["batch_id"])
    assert sent(taken) == ["źle", "Ćma"] and taken["standing"] == first["batch_id"]


async def test_an_encoding_that_changes_no_letter_changes_no_order(talk: Conversation, data: Path) -> None:
    source = write(data, "t.csv", RUSSIAN.encode("cp1251"))
    first = await talk.call("create_batch", source=source, prompt="{{text}}")
    for name in ("windows-1251", "cp1251"):
        assert (await previewed(talk, source, encoding=name))["standing"] == first["batch_id"]


async def test_a_name_of_no_encoding_and_one_that_does_not_fit_are_refused(talk: Conversation, data: Path) -> None:
    source = write(data, "t.csv", RUSSIAN.encode())
    for order, message in (
        ({"encoding": "klingon"}, "No encoding is called 'klingon'. Give one such as encoding=\"windows-1251\""),
        ({"encoding": "base64"}, "No encoding is called 'base64'."),
        ({"encoding": "shift_jis", "source": write(data, "u.csv", b"id,text\n1,\x81 \n")}, "is not Shift_JIS"),
        ({"encoding": "cp1251", "source": write(data, "m.csv", RUSSIAN.encode("utf-8-sig"))}, "the mark of UTF-8"),
    ):
        said = await talk.refusal("preview_batch", **{"source": source, "prompt": "{{text}}", **order})
        assert message in said, said
    said = await talk.refusal("preview_batch", requests=[{"key": "a", "prompt": "x"}], encoding="cp1251")
    assert "`encoding` says how a text file is read" in said


async def test_rows_in_two_encodings_are_refused_with_the_line(talk: Conversation, data: Path) -> None:
    rows = [f"{n},Очень хороший товар, но посылка пришла поздно".replace(", но", "; но") for n in range(30)]
    mixed = "\n".join(["id,text", *rows]).encode("cp1251") + b"\n30," + "Коробка была повреждена".encode() + b"\n"
    seen = await previewed(talk, write(data, "t.csv", mixed))
    assert [problem["line"] for problem in seen["problems"]] == [32]
    assert "It is in UTF-8, other lines are in Windows-1251." in seen["problems"][0]["message"]


async def test_ready_lines_are_read_from_utf_16_too(talk: Conversation, data: Path) -> None:
    request = {"contents": [{"role": "user", "parts": [{"text": "Grüße"}]}]}
    line = json.dumps({"key": "a", "request": request}, ensure_ascii=False) + "\n"
    for name, page, order in (
        ("a.jsonl", "utf-16", {}),
        ("b.jsonl", "utf-16-be", {"encoding": "utf-16-be"}),
        ("c.jsonl", "cp1252", {"encoding": "windows-1252"}),
    ):
        seen = await talk.call("preview_batch", source=write(data, name, line.encode(page)), **order)
        assert seen["ok"] and sent(seen) == ["Grüße"], seen
        assert f"{name} is not UTF-8; it was read as" in seen["warnings"][0]


def ready(texts: list[str], *, is_openai: bool = False) -> str:
    lines: list[Any] = []
    for number, text in enumerate(texts):
        body = {"model": "gpt-5", "messages": [{"role": "user", "content": text}]}
        openai = {"custom_id": f"k{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        request = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
        lines.append(openai if is_openai else {"key": f"k{number}", "request": request})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


RUSSIAN_LINES = ["Это был очень хороший телефон, который я купил в прошлом году.", "Доставка заняла две недели."]
JAPANESE_LINES = ["この商品はとても良かったです。また買いたいと思います。", "配送が遅くて残念でした。"]


async def test_ready_lines_of_old_programs_are_found_out_as_tables_are(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    for name, content, texts, shown in (
        ("r.jsonl", ready(RUSSIAN_LINES).encode("cp1251"), RUSSIAN_LINES, "Windows-1251"),
        ("j.jsonl", ready(JAPANESE_LINES).encode("cp932"), JAPANESE_LINES, "Shift_JIS"),
        ("o.jsonl", ready(RUSSIAN_LINES, is_openai=True).encode("cp1251"), RUSSIAN_LINES, "Windows-1251"),
        ("g.jsonl.gz", gzip.compress(ready(RUSSIAN_LINES).encode("cp1251")), RUSSIAN_LINES, "Windows-1251"),
    ):
        seen = await talk.call("preview_batch", source=write(data, name, content))
        assert sent(seen) == texts, name
        assert any(f"is not UTF-8; it was read as {shown}." in warning for warning in seen["warnings"])
    # The same letters are the same order; of wrong lines beside them, only those are left out.
    first = await talk.call("create_batch", source="r.jsonl")
    assert (await talk.call("preview_batch", source="r.jsonl", encoding="cp1251"))["standing"] == first["batch_id"]
    wrong = write(data, "w.jsonl", ready(RUSSIAN_LINES).encode("cp1251") + b'{"key":"bad"}\n')
    seen = await talk.call("preview_batch", source=wrong, skip_invalid=True)
    assert (seen["send_count"], seen["skipped_count"], sent(seen)) == (2, 1, RUSSIAN_LINES)


async def test_ready_lines_of_which_nobody_is_sure_are_asked_about_and_damaged_ones_named(
    talk: Conversation, sandbox: Sandbox, data: Path
) -> None:
    source = write(data, "d.jsonl", ready(["Größe"]).encode("cp850"))
    for tool in ("preview_batch", "create_batch"):
        said = await talk.refusal(tool, source=source)
        assert "d.jsonl is not UTF-8, and its encoding isn't certain; the same cells read as cp850: Größe" in said
    assert not sandbox.create_records
    seen = await talk.call("preview_batch", source=source, encoding="cp850")
    assert sent(seen) == ["Größe"]
    damaged = ready([f"Größe {number}" for number in range(40)]).encode().replace("ß".encode(), b"\xc3", 1)
    seen = await talk.call("preview_batch", source=write(data, "u.jsonl", damaged))
    assert [problem["line"] for problem in seen["problems"]] == [1]
    seen = await talk.call("preview_batch", source="u.jsonl", skip_invalid=True)
    assert (seen["send_count"], seen["skipped_count"]) == (39, 1)
