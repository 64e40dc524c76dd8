"""Files that answers carry: written beside the table under safe names, told of by path, and kept in step with it."""

import base64
import wave
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.results.store import AnswerFile, ResultTable, TablePlan
from support.answers import all_rows, answer, answer_file, cells, exported, keys_file, line, planned, rebuilt
from support.extent import few

PNG = b"\x89PNG\r\n\x1a\nrest"


def carrying(key: str, *parts: Any) -> bytes:
    return line(key, response={"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP"}]})


def inline(content: bytes, mime_type: str = "image/png", **members: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode()}} | members


def table_with(directory: Path, *lines: bytes, keys: list[str]) -> ResultTable:
    return planned(directory, lines, keys=keys, media=directory / "media")


def media(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "media").iterdir()}


def test_images_are_written_and_their_paths_are_told(tmp_path: Path) -> None:
    content = carrying("cat", {"text": "Here: "}, inline(PNG), inline(b"\xff\xd8\xffrest", "image/jpeg"), {"text": "!"})
    table = table_with(tmp_path, content, answer("dog"), keys=["cat", "dog"])

    assert media(tmp_path) == {"cat-1.png": PNG, "cat-2.jpg": b"\xff\xd8\xffrest"}
    first, second = all_rows(table)
    assert (first.status, first.text, second.files) == ("ok", "Here: !", ())
    assert first.files == tuple(str(tmp_path / "media" / name) for name in ("cat-1.png", "cat-2.jpg"))
    assert cells(table, "SELECT files FROM results ORDER BY row") == [
        (["media/cat-1.png", "media/cat-2.jpg"],),
        (None,),
    ]
    assert table.summary().media_files == 2
    assert table.media_files(1) == (tmp_path / "media" / "cat-1.png",)
    assert table.media_files(9) == tuple(tmp_path / "media" / name for name in ("cat-1.png", "cat-2.jpg"))


def test_paths_are_in_every_export(tmp_path: Path) -> None:
    table = table_with(tmp_path, carrying("cat", inline(PNG)), carrying("x"), keys=["cat", "x"])
    path = str(tmp_path / "media" / "cat-1.png")

    first, second = exported(table, tmp_path)
    assert (first["files"], second["files"]) == ([path], None)
    assert first["response"]["candidates"][0]["content"]["parts"][0]["inlineData"]["data"]
    assert f",{path},ok,\r\n".encode() in table.export(tmp_path / "x.csv", "csv").path.read_bytes()
    assert table.export(tmp_path / "x.parquet", "parquet").path.read_bytes().count(path.encode()) >= 1


@few(8)
@pytest.mark.parametrize(
    ("content", "mime_type", "suffix"),
    [
        (PNG, "", ".png"),
        (PNG, "text/html", ".png"),
        (b"<html><script>", "text/html", ".bin"),
        (b"<html>", "image/png", ".png"),
        (b"plain", "text/plain; charset=utf-8", ".txt"),
        (b"GIF89a", "application/x-sh", ".gif"),
        (b"RIFFxxxxWEBPVP8", "image/webp", ".webp"),
        (b"RIFFxxxxWAVEfmt", "audio/wav", ".wav"),
        (b"xxxxftypisom", "video/mp4", ".mp4"),
        (b"xxxxftypavif", "image/avif", ".avif"),
        (b"xxxxftypheic", "", ".heic"),
        (b"%PDF-1.7", "", ".pdf"),
        (b"ID3x", "audio/mpeg", ".mp3"),
        (b"\x00\x01", "application/x-msdownload", ".bin"),
        (b"x", "../../../etc/passwd", ".bin"),
    ],
)
def test_a_suffix_comes_from_the_content_and_then_from_a_list(
    tmp_path: Path, content: bytes, mime_type: str, suffix: str
) -> None:
    table_with(tmp_path, carrying("a", inline(content, mime_type)), keys=["a"])

    assert media(tmp_path) == {f"a-1{suffix}": content}


@pytest.mark.parametrize(("mime_type", "rate"), [("audio/L16;codec=pcm;rate=16000", 16000), ("audio/pcm", 24000)])
def test_sound_without_a_header_becomes_a_file_that_players_open(tmp_path: Path, mime_type: str, rate: int) -> None:
    table_with(tmp_path, carrying("a", inline(b"\x01\x00" * 100, mime_type)), keys=["a"])

    with wave.open(str(tmp_path / "media" / "a-1.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (rate, 1, 2)
        assert sound.readframes(200) == b"\x01\x00" * 100


def test_names_are_safe_and_no_two_rows_share_one(tmp_path: Path) -> None:
    keys = [
        "../../etc/passwd",
        "a/b",
        "a-b",
        "A-B",
        "a-b_x",
        "CON",
        "日本",
        "",
        "x" * 300,
        "x" * 299 + "y",
        "a\x00b",
        "a--b",
    ]
    keys = [key or "empty" for key in keys]
    lines = [carrying(key, inline(PNG + str(place).encode())) for place, key in enumerate(keys)]
    table_with(tmp_path, *lines, keys=keys)

    written = media(tmp_path)
    assert sorted(written.values()) == sorted(PNG + str(place).encode() for place in range(len(keys)))
    assert len({name.casefold() for name in written}) == len(keys)
    assert all(
        name.isascii() and len(name) < 120 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        for name in written
    )
    assert {"a-b-1.png", "empty-1.png"} <= set(written)
    assert not any(name.startswith(".") for name in written)
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir() if path.is_dir()} == {"media", "results"}


@few(3)
@pytest.mark.parametrize("data", ["*not base64*", "", None, 5, "AAA\u00e9", "A"])
def test_a_file_that_cannot_be_decoded_fails_its_row(tmp_path: Path, data: Any) -> None:
    spoiled = carrying("a", inline(PNG), {"inlineData": {"mimeType": "image/png", "data": data}})
    table = table_with(tmp_path, spoiled, answer("b"), keys=["a", "b"])

    first, second = all_rows(table)
    assert (first.status, first.error) == ("failed", "a file in the answer is not valid base64")
    assert first.files == (str(tmp_path / "media" / "a-1.png"),)
    assert second.status == "ok"


def test_a_row_that_failed_otherwise_keeps_its_reason(tmp_path: Path) -> None:
    part = {"inlineData": {"data": "*"}}
    content = line("a", response={"candidates": [{"content": {"parts": [part]}, "finishReason": "SAFETY"}]})
    (row,) = all_rows(table_with(tmp_path, content, keys=["a"]))

    assert (row.status, row.error) == ("blocked", "stopped: SAFETY")


@pytest.mark.parametrize("data", ["iVBORw0KGgpyZXN0", "iVBORw0KGgpyZXN0====", "-_-_"])
def test_both_alphabets_with_or_without_an_end_are_base64(tmp_path: Path, data: str) -> None:
    table = table_with(tmp_path, carrying("a", {"inlineData": {"data": data}}), keys=["a"])

    assert [row.status for row in all_rows(table)] == ["ok"]


def test_thoughts_leave_no_files(tmp_path: Path) -> None:
    table = table_with(tmp_path, carrying("a", inline(PNG, thought=True), {"text": "done"}), keys=["a"])

    assert cells(table, "SELECT text, files FROM results") == [("done", None)]
    assert not (tmp_path / "media").exists()


def test_without_a_directory_for_them_files_stay_in_the_raw_answers(tmp_path: Path) -> None:
    table = planned(tmp_path, [carrying("a", inline(PNG)), answer("b")], keys=["b", "a"])

    assert [row.files for row in all_rows(table)] == [(), ()]
    assert exported(table, tmp_path)[1]["response"] is not None
    assert not (tmp_path / "media").exists()


def test_a_line_that_only_the_engine_can_read_fails_its_row(tmp_path: Path) -> None:
    lenient = carrying("a", inline(PNG)).replace(b'"finishReason": "STOP"', b'"finishReason": "STOP",')
    table = table_with(tmp_path, lenient, answer("b"), keys=["a", "b"])

    first, _ = all_rows(table)
    assert (first.status, first.error) == ("failed", "the files in the answer cannot be read")


def test_a_line_with_damaged_characters_keeps_its_files(tmp_path: Path) -> None:
    content = carrying("a", {"text": "SPOT"}, inline(PNG)).replace(b"SPOT", b"\xff \\ud800")
    (row,) = all_rows(table_with(tmp_path, content, keys=["a"]))

    assert (row.status, row.text, media(tmp_path)) == ("ok", "\ufffd \ufffd", {"a-1.png": PNG})


def test_members_given_twice_cannot_confuse(tmp_path: Path) -> None:
    content = carrying("a", inline(PNG)).replace(b"}\n", b', "response": 5}\n')
    table = table_with(tmp_path, content, keys=["a"])

    assert [row.status for row in all_rows(table)] in (["failed"], ["empty"])


def test_files_follow_the_answers_of_later_builds(tmp_path: Path) -> None:
    """A retry's image has a name of its own, so that a table that is still open never shows the wrong one."""
    keys = keys_file(tmp_path, ["a", "b"])
    first = AnswerFile(answer_file(tmp_path, [carrying("a", inline(PNG)), carrying("b", inline(PNG))]), keys)
    rebuilt(tmp_path, TablePlan((first,), media=tmp_path / "media"))
    (tmp_path / "media" / "left-over.png").write_bytes(b"x")
    second = answer_file(tmp_path, carrying("b", inline(PNG + b"new")), name="2.jsonl")
    retried = keys_file(tmp_path, ["b"], name="2-keys.jsonl")
    table = rebuilt(tmp_path, TablePlan((first, AnswerFile(second, retried, 2)), media=tmp_path / "media"))

    assert media(tmp_path) == {"a-1.png": PNG, "b_a2-1.png": PNG + b"new"}
    assert [row.files[0].rpartition("/")[2] for row in all_rows(table)] == ["a-1.png", "b_a2-1.png"]


def test_a_file_that_was_changed_is_written_again_and_others_are_left_alone(tmp_path: Path) -> None:
    lines = [carrying("a", inline(PNG)), carrying("b", inline(PNG))]
    table_with(tmp_path, *lines, keys=["a", "b"])
    (tmp_path / "media" / "a-1.png").write_bytes(PNG[:-1] + b"X")
    before = (tmp_path / "media" / "b-1.png").stat()
    table_with(tmp_path, *lines, keys=["a", "b"])

    assert media(tmp_path) == {"a-1.png": PNG, "b-1.png": PNG}
    assert (tmp_path / "media" / "b-1.png").stat().st_ino == before.st_ino


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("in the way")
    with pytest.raises(StorageError, match="could not be made into"):
        table_with(tmp_path, carrying("a", inline(PNG)), keys=["a"])

    assert not (tmp_path / "results.json").exists()


def test_where_no_answer_carries_a_file_there_is_no_directory(tmp_path: Path) -> None:
    table = table_with(tmp_path, answer("a"), keys=["b", "a"])

    assert (table.summary().media_files, table.media_files(5)) == (0, ())
    assert not (tmp_path / "media").exists()


def test_only_files_of_answers_in_the_table_are_written(tmp_path: Path) -> None:
    lines = [carrying("a", inline(PNG)), carrying("a", inline(PNG + b"again")), carrying("stranger", inline(PNG))]
    table = table_with(tmp_path, *lines, keys=["a"])

    assert media(tmp_path) == {"a-1.png": PNG}
    assert (table.summary().duplicate, table.summary().unexpected) == (1, 1)
