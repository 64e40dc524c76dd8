"""The plan for the files of an order: each content once, every wrong one told with its row, none outside the roots."""

import csv
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from gemini_batch_mcp.errors import PathError, RequestProblems, UsageError
from gemini_batch_mcp.intake.files import _one_file, planning
from gemini_batch_mcp.intake.files.planning import AttachmentPlan, MediaCount, column_of, plan_attachments
from gemini_batch_mcp.intake.tables.folders import Folder, find_source
from gemini_batch_mcp.paths import PathGuard
from support.sources import jpeg, mp4, pdf, png, write


@pytest.fixture
def guard(data: Path) -> PathGuard:
    return PathGuard(roots=(data,), working_directory=data)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def table(path: Path, cells: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("id", "photo"), *enumerate(cells)])
    return path


def plan(
    source: Path | Folder, guard: PathGuard, scratch: Path, column: str = "photo", **limits: Any
) -> AttachmentPlan:
    made = plan_attachments(source, column=column, guard=guard, scratch=scratch, **limits)
    assert list(scratch.iterdir()) == []
    return made


def problems(source: Path | Folder, guard: PathGuard, scratch: Path, column: str = "photo") -> RequestProblems:
    with pytest.raises(RequestProblems) as caught:
        plan_attachments(source, column=column, guard=guard, scratch=scratch)
    assert all(problem.fix and problem.line == 0 for problem in caught.value.problems)
    return caught.value


def test_every_content_is_planned_once_however_often_and_under_whatever_name_it_comes(
    guard: PathGuard, data: Path, scratch: Path
) -> None:
    (data / "photos").mkdir()
    write(data / "photos", a_png=png(1), copy_png=png(1), b_jpg=jpeg(), doc_pdf=pdf(3))
    cells = [
        "photos/a.png",
        "photos/b.jpg",
        "",
        "photos/a.png",
        "./photos/a.png",
        "photos/copy.png",
        " ",
        "photos/doc.pdf",
    ]
    source = table(data / "t.csv", cells)

    made = plan(source, guard, scratch)

    sha256 = hashlib.sha256(png(1)).hexdigest()
    assert [(content.sha256[:4], content.rows, content.mime_type) for content in made.contents] == [
        (sha256[:4], 4, "image/png"),
        (hashlib.sha256(jpeg()).hexdigest()[:4], 1, "image/jpeg"),
        (hashlib.sha256(pdf(3)).hexdigest()[:4], 1, "application/pdf"),
    ]
    assert made.contents[0].path == data / "photos" / "a.png"
    assert made.contents[0].size_bytes == len(png(1))
    assert set(made.cells) == set(cells) - {"", " "}
    assert made.cells["photos/copy.png"] == (sha256,)
    assert made.media == (
        MediaCount("image", 2, 5, 4 * len(png(1)) + len(jpeg())),
        MediaCount("pdf", 1, 1, len(pdf(3)), pages=3),
    )
    assert made.upload_bytes == 0 and made.warnings[0].startswith("2 rows (first: row 3) have nothing in photo")


def test_a_folder_of_pdfs_is_planned_without_a_table(guard: PathGuard, data: Path, scratch: Path) -> None:
    (data / "docs").mkdir()
    write(data / "docs", a_pdf=pdf(2), b_pdf=pdf(5, packed=True), c_pdf=pdf(2))
    folder = find_source("docs/*.pdf", guard)

    made = plan(folder, guard, scratch, "{{path}}")

    assert made.column == "path"
    assert list(made.cells) == ["a.pdf", "b.pdf", "c.pdf"]
    assert made.media == (MediaCount("pdf", 2, 3, 2 * len(pdf(2)) + len(pdf(5, packed=True)), pages=9),)
    assert [content.rows for content in plan(folder, guard, scratch, "path", limit_rows=1).contents] == [1]
    with pytest.raises(UsageError, match="the files of a folder are in its column path"):
        plan_attachments(folder, column="name", guard=guard, scratch=scratch)


@pytest.mark.parametrize(
    ("text", "column"), [("photo", "photo"), (" {{ photo }} ", "photo"), ("{{a b}}", "a b"), ("", "")]
)
def test_the_column_may_be_written_as_a_place(text: str, column: str) -> None:
    assert column_of(text) == column


def test_only_the_rows_of_a_pilot_are_looked_at(guard: PathGuard, data: Path, scratch: Path) -> None:
    write(data, a_png=png(1))
    source = table(data / "t.csv", ["a.png", "a.png", "missing.png"])

    assert [content.rows for content in plan(source, guard, scratch, limit_rows=2).contents] == [2]
    assert "Row 3: " in problems(source, guard, scratch).problems[0].message


def test_a_relative_path_is_looked_for_beside_the_table_and_then_as_any_other(
    guard: PathGuard, data: Path, scratch: Path
) -> None:
    (data / "in").mkdir()
    write(data, a_png=png(1), b_png=png(2))
    write(data / "in", a_png=png(3))
    source = table(data / "in" / "t.csv", ["a.png", "b.png", str(data / "a.png"), "../b.png"])

    made = plan(source, guard, scratch)

    paths = {
        cell: str(content.path)
        for cell in made.cells
        for content in made.contents
        if content.sha256 in made.cells[cell]
    }
    assert paths == {
        "a.png": str(data / "in" / "a.png"),
        "b.png": str(data / "b.png"),
        str(data / "a.png"): str(data / "a.png"),
        "../b.png": str(data / "b.png"),
    }


def test_every_file_that_cannot_be_attached_is_told_with_its_row(
    guard: PathGuard, data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = data.parent / "secret.png"
    outside.write_bytes(png())
    (data / "link.png").symlink_to(outside)
    (data / "dir.png").mkdir()
    os.mkfifo(data / "pipe.png")
    latin = "x" * 9000 + "ü"
    write(
        data,
        fine_png=png(),
        empty_png=b"",
        page_jpg=b"<html>",
        big_pdf=pdf() + b"x" * 600,
        old_txt=latin.encode("latin-1"),
    )
    write(data, big_png=png(1, extra_bytes=900), big_txt=b"x" * 2000)
    monkeypatch.setattr(_one_file, "MAX_PDF_BYTES", 500)
    monkeypatch.setattr(_one_file, "MAX_FILE_BYTES", 9_100)
    monkeypatch.setattr(planning, "_MAX_REPORTED", 14)
    cells = ["fine.png", "missing.png", "link.png", "../secret.png", "dir.png", "pipe.png", "empty.png", "page.jpg"]
    cells += ["big.pdf", "old.txt", "https://host/a.png", "missing.png", ".hidden", "a\nb", "~/a.png", "//host/a"]

    error = problems(table(data / "t.csv", cells), guard, scratch)

    assert [problem.message for problem in error.problems] == [
        f"Row 2 and 1 more: There is no file 'missing.png' in {data}.",
        f"Row 3: 'link.png' lies outside the directories this server may use: {data}.",
        f"Row 4: '../secret.png' lies outside the directories this server may use: {data}.",
        "Row 5: 'dir.png' is a directory, not a file.",
        "Row 6: 'pipe.png' is a device, pipe or socket, not a file.",
        "Row 7: empty.png is empty.",
        "Row 8: page.jpg is named like a JPEG image but contains a web page.",
        f"Row 9: big.pdf has {len(pdf()) + 600:,} bytes; Gemini accepts PDFs of at most 500.",
        "Row 10: old.txt is text that isn't UTF-8.",
        "Row 11: This is a link; the path of a local file is expected.",
        "Row 13: '.hidden' is hidden or lies in a hidden directory; such files often hold secrets.",
        f"Row 14: There is no file 'a' in {data}.",
        "Row 15: '~/a.png' starts with ~, which is not expanded here.",
        "Row 16: '//host/a' is a network path.",
    ]
    assert error.problem_count == 15
    assert error.message == "15 rows of t.csv name a file that can't be used; nothing was submitted."
    assert "https" not in str(error)
    monkeypatch.setattr(_one_file, "MAX_FILE_BYTES", 900)
    error = problems(table(data / "u.csv", ["big.png", "fine.png", "big.txt"]), guard, scratch)
    assert [problem.message for problem in error.problems] == [
        f"Row 1: big.png has {len(png(1, extra_bytes=900)):,} bytes; the Files API accepts files of at most 900.",
        "Row 3: big.txt has 2,000 bytes; the Files API accepts files of at most 900.",
    ]


def test_the_first_problems_are_told_and_all_rows_are_counted(guard: PathGuard, data: Path, scratch: Path) -> None:
    cells = [f"missing{number % 50}.png" for number in range(1000)]

    error = problems(table(data / "t.csv", cells), guard, scratch)

    assert (len(error.problems), error.problem_count) == (20, 1000)
    assert error.problems[0].message.startswith("Row 1 and 19 more: There is no file 'missing0.png'")


def test_one_row_with_a_problem_is_told_as_one(guard: PathGuard, data: Path, scratch: Path) -> None:
    error = problems(table(data / "t.csv", ["gone.png"]), guard, scratch)

    assert error.message == "1 row of t.csv names a file that can't be used; nothing was submitted."


def test_a_file_that_changed_into_a_pipe_or_may_not_be_read_is_no_attachment(data: Path) -> None:
    os.mkfifo(data / "pipe.png")
    with pytest.raises(_one_file.Unusable) as caught:
        _one_file.examine(data / "pipe.png")
    assert caught.value.message == "pipe.png cannot be read: it is a device, pipe or socket."
    with pytest.raises(_one_file.Unusable, match=r"gone\.png cannot be read: No such file"):
        _one_file.examine(data / "gone.png")


def test_a_file_of_a_folder_that_has_gone_or_leads_outside_now_is_told(
    guard: PathGuard, data: Path, scratch: Path
) -> None:
    (data / "in").mkdir()
    write(data / "in", a_png=png(1), b_png=png(2), c_png=png(3))
    folder = find_source("in", guard)
    (data / "in" / "a.png").unlink()
    (data / "in" / "b.png").unlink()
    (data.parent / "secret.png").write_bytes(png())
    (data / "in" / "b.png").symlink_to(data.parent / "secret.png")

    error = problems(folder, guard, scratch, "path")

    assert [problem.message.partition(":")[0] for problem in error.problems] == ["Row 1", "Row 2"]
    assert "outside" in error.problems[1].message


def test_small_contents_are_inlined_and_the_larger_or_often_used_are_uploaded(
    guard: PathGuard, data: Path, scratch: Path
) -> None:
    write(data, once_png=png(1, 2 << 20), large_png=png(2, 4 << 20), often_png=png(3, 300_000), tiny_png=png(4))
    source = table(data / "t.csv", ["once.png", "large.png", *["often.png"] * 9, *["tiny.png"] * 999])

    made = plan(source, guard, scratch)

    assert [content.mode for content in made.contents] == ["inline", "upload", "upload", "inline"]
    assert made.uploads == made.contents[1:3]
    assert made.upload_bytes == len(png(2, 4 << 20)) + len(png(3, 300_000))
    tiny = -(-len(png(4)) // 3) * 4
    # With little room the smallest come first; with none nothing is inlined.
    assert [content.mode for content in plan(source, guard, scratch, max_in_lines_bytes=999 * tiny).contents] == [
        "upload",
        "upload",
        "upload",
        "inline",
    ]
    assert {content.mode for content in plan(source, guard, scratch, max_in_lines_bytes=0).contents} == {"upload"}


def test_more_than_the_files_api_keeps_is_refused(
    guard: PathGuard, data: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(data, a_png=png(1))
    monkeypatch.setattr(planning, "MAX_STORED_BYTES", 10)
    source = table(data / "t.csv", ["a.png"])

    plan(source, guard, scratch)
    with pytest.raises(UsageError, match="the Files API stores at most 10 per project"):
        plan_attachments(source, column="photo", guard=guard, scratch=scratch, max_in_lines_bytes=0)


def test_a_very_long_pdf_is_warned_of(guard: PathGuard, data: Path, scratch: Path) -> None:
    write(data, a_pdf=pdf(1001), b_pdf=pdf(1000), c_pdf=pdf(1002))

    assert plan(table(data / "t.csv", ["a.pdf", "b.pdf"]), guard, scratch).warnings == (
        "1 PDF seems to have more than 1,000 pages, which Gemini does not accept: their rows may fail.",
    )
    assert "2 PDFs seem" in plan(table(data / "t.csv", ["a.pdf", "c.pdf"]), guard, scratch).warnings[0]


def test_a_file_uploaded_before_is_taken_by_its_name_unless_there_is_one_of_that_name_here(
    guard: PathGuard, data: Path, scratch: Path
) -> None:
    (data / "files").mkdir()
    (data / "files" / "here").write_bytes(png(1))
    source = table(data / "t.csv", ["files/abc-123", "files/here", "files/abc-123"])

    made = plan(source, guard, scratch)

    assert [(content.sha256[:9], content.mode, content.rows) for content in made.contents] == [
        ("files/abc", "uploaded", 2),
        (made.cells["files/here"][0][:9], "inline", 1),
    ]
    assert made.uploads == made.contents[:1]
    assert made.media == (MediaCount("image", 1, 1, len(png(1))),)
    assert made.warnings[0].startswith("2 rows name files that were uploaded earlier: they are checked when")
    one = plan(table(data / "u.csv", ["files/abc-123"]), guard, scratch)
    assert one.warnings[0].startswith("1 row names a file that was uploaded earlier")
    for wrong in ("files/-abc", f"files/{'a' * 41}", "files/ABC", "files/a/b", "batches/abc"):
        error = problems(table(data / "w.csv", [wrong]), guard, scratch)
        assert "There is no file" in error.problems[0].message


def test_what_people_write_for_a_file_is_read_as_that_file(guard: PathGuard, data: Path, scratch: Path) -> None:
    names = ["a b.png", "caf\u00e9.png", "x,y.png"]
    for number, name in enumerate(names):
        (data / name).write_bytes(png(number))
    (data / "nai\u0308ve.png").write_bytes(png(7))
    cells = [
        ' "a b.png" ',
        (data / "a b.png").as_uri(),
        f"file://localhost{(data / 'a b.png').as_uri()[7:]}",
        "\u201ca b.png\u201d",
        "cafe\u0301.png",
        "na\u00efve.png",
        "x,y.png",
    ]

    made = plan(table(data / "t.csv", cells), guard, scratch)

    paths = {content.sha256: content.path.name for content in made.contents if content.path is not None}
    assert [[paths[sha256] for sha256 in made.cells[cell]] for cell in cells] == [
        *[["a b.png"]] * 4,
        ["caf\u00e9.png"],
        ["nai\u0308ve.png"],
        ["x,y.png"],
    ]


def test_a_cell_may_hold_a_list_and_an_order_several_columns(guard: PathGuard, data: Path, scratch: Path) -> None:
    for number, name in enumerate("abcd"):
        (data / f"{name}.png").write_bytes(png(number))
    cells = ['["a.png", "b.png"]', "a.png; b.png", "a.png\nb.png", "a.png,b.png", "a.png|b.png"]
    source = data / "t.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "front", "back"), *((n, cell, "c.png") for n, cell in enumerate(cells))])
        csv.writer(file).writerow((9, "", "d.png"))

    made = plan(source, guard, scratch, column="front, {{back}}")

    order = {content.sha256: content.path.stem for content in made.contents if content.path is not None}
    assert [[order[sha256] for sha256 in made.cells[cell]] for cell in cells] == [["a", "b"]] * 5
    assert [(order[content.sha256], content.rows) for content in made.contents] == [
        ("a", 5),
        ("b", 5),
        ("c", 5),
        ("d", 1),
    ]
    assert made.warnings == ("Row 6 has nothing in front: no file of that column goes with it.",)
    # Of a list, what is wrong with the one that is wrong; a comma may be part of a name where nothing else is there.
    for cell, said in (
        ("a.png; gone.png", "There is no file 'gone.png'"),
        ("gone.png, a.png", "There is no file 'gone.png'"),
        ("a.png, https://example.com/x.jpg", "This is a link"),
        ("Smith, John.png", "There is no file 'Smith, John.png'"),
    ):
        (problem,) = problems(table(data / "u.csv", [cell]), guard, scratch).problems
        assert said in problem.message, problem


def test_what_is_at_googles_is_passed_on_in_every_spelling(guard: PathGuard, data: Path, scratch: Path) -> None:
    start = "https://generativelanguage.googleapis.com/v1beta/"
    cells = [
        "files/abc123",
        f"{start}files/abc123",
        f"{start}files/abc123:download?alt=media",
        "/v1beta/files/abc123",
        "gs://bucket/a.mp4",
        "https://www.youtube.com/watch?v=abcdefghijk",
        "https://youtu.be/abcdefghijk",
        "",
        "",
    ]

    made = plan(table(data / "t.csv", cells), guard, scratch)

    assert [(content.sha256, content.mode, content.mime_type, content.rows) for content in made.contents] == [
        ("files/abc123", "uploaded", "", 4),
        ("gs://bucket/a.mp4", "linked", "video/mp4", 1),
        ("https://www.youtube.com/watch?v=abcdefghijk", "linked", "", 1),
        ("https://youtu.be/abcdefghijk", "linked", "", 1),
    ]
    assert made.uploads == made.contents[:1]
    assert made.warnings[0].startswith("2 rows (first: row 8) have nothing in photo")
    assert "3 links to gs:// or YouTube: checked by form only" in made.warnings[1]
    for wrong in (
        "https://example.com/x.jpg",
        "gs://Bucket/x",
        "gs://bucket",
        "https://youtube.com.evil.example/watch?v=a",
    ):
        (problem,) = problems(table(data / "w.csv", [wrong]), guard, scratch).problems
        assert "This is a link" in problem.message and "gs://bucket/name" in problem.fix


def test_the_digest_covers_cells_and_contents(guard: PathGuard, data: Path, scratch: Path) -> None:
    write(data, a_png=png(1), b_png=png(1))
    first = plan(table(data / "t.csv", ["a.png"]), guard, scratch)

    assert plan(table(data / "u.csv", ["a.png"]), guard, scratch).content_sha256 == first.content_sha256
    assert plan(table(data / "u.csv", ["b.png"]), guard, scratch).content_sha256 != first.content_sha256
    write(data, a_png=png(2))
    assert plan(table(data / "t.csv", ["a.png"]), guard, scratch).content_sha256 != first.content_sha256


def test_a_column_that_is_not_there_or_names_no_file_is_refused(guard: PathGuard, data: Path, scratch: Path) -> None:
    source = table(data / "t.csv", ["", " "])

    with pytest.raises(UsageError, match='`attach` names the column "foto"'):
        plan_attachments(source, column="foto", guard=guard, scratch=scratch)
    with pytest.raises(UsageError, match=r"No row of t\.csv names a file in photo"):
        plan_attachments(source, column="photo", guard=guard, scratch=scratch)
    with pytest.raises(PathError, match="does not exist"):
        plan_attachments(data / "gone.csv", column="photo", guard=guard, scratch=scratch)


def test_tables_of_every_kind_can_name_files(guard: PathGuard, data: Path, scratch: Path) -> None:
    write(data, a_mp4=mp4())
    (data / "t.jsonl").write_text(json.dumps({"photo": "a.mp4", "n": 1}) + "\n", encoding="utf-8")
    (data / "t.json").write_text(json.dumps([{"photo": "a.mp4"}, {"photo": None}]), encoding="utf-8")
    with duckdb.connect() as engine:
        engine.execute(f"COPY (SELECT 'a.mp4' AS photo UNION ALL SELECT NULL) TO '{data / 't.parquet'}'")
    (data / "t.txt").write_text("a.mp4\n", encoding="utf-8")

    for name, column in (("t.jsonl", "photo"), ("t.json", "photo"), ("t.parquet", "photo"), ("t.txt", "text")):
        made = plan(data / name, guard, scratch, column)
        assert [(content.mime_type, content.rows) for content in made.contents] == [("video/mp4", 1)]


def test_a_large_cell_needs_more_effort_and_gets_it(guard: PathGuard, data: Path, scratch: Path) -> None:
    write(data, a_png=png(1))
    with (data / "t.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("photo", "text"), ("a.png", "x" * (3 << 20)), ("a.png", "y")])

    assert [content.rows for content in plan(data / "t.csv", guard, scratch).contents] == [2]
