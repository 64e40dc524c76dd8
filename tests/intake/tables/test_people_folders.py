"""Folders and globs as people have them: mixed kinds, files twice, names from a Mac; prompts that read none of it."""

import unicodedata
from pathlib import Path
from typing import Any, Final

import pytest

from gemini_batch_mcp.sandbox.app import Sandbox
from support.conversation import Conversation, newest

pytestmark = pytest.mark.anyio

PDF: Final = b"%PDF-1.4\n1 0 obj<</Type/Page>>endobj\n%%EOF"
#: What is refused before anything is sent, and what is said instead.
REFUSED: Final[tuple[tuple[dict[str, Any], tuple[str, ...]], ...]] = (
    (
        {"source": "mix", "prompt": "Sum of {{text}}"},
        ("3 of the 5 files of mix are not text", 'Give attach="path"', "or name text files only, such as *.txt"),
    ),
    ({"source": "mix", "prompt": "Sum?"}, ("every file of mix would be the same request", 'Give attach="path"')),
    ({"source": "mix/*.pdf", "prompt": "Sum of {{text}}"}, ("No file of mix is text", 'Give attach="path"')),
    (
        {"source": "mix/*.pdf", "prompt": "Sum of {{name}}"},
        ("sees the names of the files of mix only", 'Give attach="path"', "give them as `requests`"),
    ),
    ({"source": "office", "prompt": "Sum?", "attach": "path"}, ("a.docx is an Office document", "Save it as PDF")),
    ({"source": "office/a.docx", "prompt": "Sum?"}, ("a.docx is an Office document", "Save it as PDF")),
    (
        {"source": "office/a.docx", "prompt": "Sum?", "attach": "path"},
        ("a.docx is an Office document", "Save it as PDF"),
    ),
    ({"source": "https://a.example/b.csv", "prompt": "{{a}}"}, ("is an address", "Download it")),
    ({"source": "two.zip#in/a.csv", "prompt": "{{a}}"}, ("names a file inside an archive", "Unpack it")),
    ({"source": "mix/0.pdf", "prompt": "Sum?"}, ("0.pdf is one PDF file", '0.pdf"}]', 'attach="file"')),
    # Embeddings take no files: nobody is sent to attach them.
    (
        {"source": "mix/*.pdf", "prompt": "{{text}}", "task": "embed", "model": "gemini-embedding-001"},
        ("No file of mix is text", "Embeddings take text only"),
    ),
)


@pytest.fixture
def folders(data: Path) -> Path:
    """`mix` of three PDFs and two texts, of which two are the same; `office`; `deep`; and `mac`, with a Mac's names."""
    for name, content in {
        **{f"mix/{number}.pdf": PDF + bytes([number]) for number in range(3)},
        "mix/a.txt": b"hello",
        "mix/b.txt": b"hello",
        "mix/Thumbs.db": b"x",
        "office/a.docx": b"PK\x03\x04\x14\0\x06\0" + bytes(64),
        "deep/x/1.txt": b"one",
        "deep/y/1.txt": b"two",
        **{
            f"mac/{unicodedata.normalize('NFD', name)}": content
            for name, content in (
                ("\u00dcber/\u00c4rger.txt", b"a"),
                ("\u00dcber/._\u00c4rger.txt", b"\0\5\x16\7\0\2\0\0Mac OS X"),
                ("\u00dcbel.txt", b"a"),
                ("._\u00dcbel.txt", b"\0\5\x16\7\0\2\0\0Mac OS X"),
                (".DS_Store", b"\0\0\0\1Bud1"),
            )
        },
        "windows/a.txt": b"a",
        "windows/a.txt:Zone.Identifier": b"[ZoneTransfer]\r\nZoneId=3\r\n",
    }.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    return data


async def test_a_prompt_that_reads_nothing_of_the_files_is_refused_with_the_fix(
    talk: Conversation, sandbox: Sandbox, folders: Path
) -> None:
    for order, words in REFUSED:
        refusal = await _said(talk, order)
        for part in words:
            assert part in refusal, (order, refusal)
    assert sandbox.creates == 0


async def _said(talk: Conversation, order: dict[str, Any]) -> str:
    """What a preview says against an order, be it as a whole or of its rows."""
    result = await talk.raw("preview_batch", **order)
    assert result.is_error, order
    return str(result.content)


async def test_kinds_and_repeats_are_told_and_names_are_keys(
    talk: Conversation, sandbox: Sandbox, data: Path, folders: Path
) -> None:
    seen = await talk.call("preview_batch", source="mix", prompt="Sum?", attach="path")
    assert "The files are of several kinds, judging by their names: 3 PDF, 2 text." in seen["warnings"]
    assert "1 file has the same contents as another file here." in seen["warnings"]
    (data / "exports").mkdir()
    for month in ("may", "june"):
        (data / "exports" / f"{month}.CSV").write_text("id,text\n1,a\n2,b\n")
    seen = await talk.call("preview_batch", source="exports", prompt="Sum up {{text}}")
    assert seen["request_count"] == 2
    assert any(warning.startswith("2 files are tables, and each becomes one request") for warning in seen["warnings"])
    ordered = await talk.call("create_batch", source="mix", prompt="Sum?", attach="path")
    sandbox.finish(newest(sandbox))
    rows = (await talk.call("get_results", batch=ordered["batch_id"], view="rows"))["rows"]
    assert [row["key"] for row in rows] == ["0.pdf", "1.pdf", "2.pdf", "a.txt", "b.txt"]
    # One file that is no table is as good as a pattern for it.
    alone = [
        await talk.call("preview_batch", source=f"mix/{one}", prompt="Sum?", attach="path")
        for one in ("0.pdf", "[0].pdf")
    ]
    assert alone[0]["sample"] == alone[1]["sample"]
    assert alone[0]["sample"][0]["key"] == "0.pdf"
    # Not unique, even where a pilot takes one of them only.
    for limit in ({}, {"limit_rows": 1}):
        sample = (await talk.call("preview_batch", source="deep/**", prompt="{{text}}", **limit))["sample"]
        assert [line["key"] for line in sample] == ["x/1.txt", "y/1.txt"][: len(sample)]
    # A column that is named counts for more.
    sample = (await talk.call("preview_batch", source="mix/*.txt", prompt="{{name}}", key_column="path"))["sample"]
    assert [line["key"] for line in sample] == ["a.txt", "b.txt"]


async def test_folders_of_a_mac_and_of_windows_are_read_as_their_owners_see_them(
    talk: Conversation, folders: Path
) -> None:
    for source, count in (
        ("mac/\u00dcb*.txt", 1),
        ("mac/\u00dcber", 1),
        ("mac/\u00dcber/\u00c4rger.txt", 1),
        ("mac/**/[\u00dc\u00c4]*.txt", 2),
        (unicodedata.normalize("NFD", "mac/\u00dcb*.txt"), 1),
    ):
        seen = await talk.call("preview_batch", source=source, prompt="{{text}}")
        assert (seen["request_count"], source) == (count, source)
    seen = await talk.call("preview_batch", source="windows", prompt="{{text}}")
    assert seen["request_count"] == 1
    assert "1 file that a system or a program keeps for itself" in seen["warnings"][0]
