"""Request lines with files in them: the right file in the right row, small ones inside, others named."""

import base64
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from gemini_batch_mcp.domain import Order, UploadedFile
from gemini_batch_mcp.errors import PathError, RequestProblems, StorageError, UsageError
from gemini_batch_mcp.intake.compose import write_rows
from gemini_batch_mcp.intake.files.in_lines import AttachedLines, Parts, renew_references, without_files
from gemini_batch_mcp.intake.files.planning import AttachmentPlan, plan_attachments
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.tables.folders import Folder, find_source
from gemini_batch_mcp.intake.validator.validate import check_line
from gemini_batch_mcp.paths import PathGuard
from gemini_batch_mcp.settings import MAX_LINE_BYTES
from support.sources import first_requests, jpeg, pdf, png, write

START = "https://generativelanguage.googleapis.com/v1beta/"
ORDER = Order(prompt="What is on it, {{id}}?", attach="{{photo}}")


@pytest.fixture
def guard(data: Path) -> PathGuard:
    return PathGuard(roots=(data,), working_directory=data)


def table(path: Path, cells: Sequence[str], columns: Sequence[str] = ("id", "photo")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([columns, *enumerate(cells, 1)])
    return path


def planned(source: Path | Folder, guard: PathGuard, order: Order = ORDER, **limits: Any) -> AttachmentPlan:
    return plan_attachments(source, column=order.attach, guard=guard, scratch=guard.roots[0].parent, **limits)


def written(
    source: Path | Folder,
    directory: Path,
    plan: AttachmentPlan,
    uploaded: Mapping[str, UploadedFile] | None = None,
    order: Order = ORDER,
) -> tuple[RequestFile, list[dict[str, Any]]]:
    directory.mkdir(exist_ok=True)
    destination, keys = directory / "requests.jsonl", directory / "keys"
    file = write_rows(source, destination, order=order, keys_path=keys, attachments=plan, uploaded=uploaded)
    assert {path.name for path in directory.iterdir()} == {"requests.jsonl", "keys"}
    data = destination.read_bytes()
    assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    lines = data.split(b"\n")[:-1]
    assert len(lines) == file.count
    assert [check_line(line, 1, "generate").problems for line in lines] == [()] * len(lines)
    return file, [json.loads(line) for line in lines]


def parts(value: dict[str, Any]) -> list[dict[str, Any]]:
    found = value["request"]["contents"][0]["parts"]
    assert isinstance(found, list)
    return found


def inlined(content: bytes, mime_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(content).decode()}}


def at_gemini(plan: AttachmentPlan) -> dict[str, UploadedFile]:
    return {
        content.sha256: UploadedFile(f"files/f{number}", 1, uri=f"{START}files/f{number}")
        for number, content in enumerate(plan.uploads)
    }


def test_each_row_has_its_own_file_before_the_text_and_a_row_without_one_has_none(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_jpg=jpeg(), c_pdf=pdf())
    source = table(data / "t.csv", ["a.png", "", "b.jpg", "a.png", " ", "c.pdf"])
    plan = planned(source, guard)

    file, values = written(source, tmp_path / "out", plan)

    assert [parts(value) for value in values] == [
        [inlined(png(1), "image/png"), {"text": "What is on it, 1?"}],
        [{"text": "What is on it, 2?"}],
        [inlined(jpeg(), "image/jpeg"), {"text": "What is on it, 3?"}],
        [inlined(png(1), "image/png"), {"text": "What is on it, 4?"}],
        [{"text": "What is on it, 5?"}],
        [inlined(pdf(), "application/pdf"), {"text": "What is on it, 6?"}],
    ]
    assert file.count == 6 and file.warnings[0].startswith("2 rows (first: row 2) have nothing in photo")


def test_uploaded_files_are_named_and_in_a_preview_by_names_that_lead_nowhere_yet(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_pdf=pdf())
    source = table(data / "t.csv", ["a.png", "b.pdf", "a.png", "files/before"])
    plan = planned(source, guard, max_in_lines_bytes=0)
    known = at_gemini(plan)
    known["files/before"] = UploadedFile("files/before", 9, mime_type="audio/wav")

    _, values = written(source, tmp_path / "out", plan, known)

    assert [parts(value)[0]["fileData"] for value in values] == [
        {"fileUri": f"{START}files/f0", "mimeType": "image/png"},
        {"fileUri": f"{START}files/f1", "mimeType": "application/pdf"},
        {"fileUri": f"{START}files/f0", "mimeType": "image/png"},
        {"fileUri": f"{START}files/before", "mimeType": "audio/wav"},
    ]
    previewed = first_requests(source, order=ORDER, count=4, attachments=plan)
    sha256 = hashlib.sha256(png(1)).hexdigest()
    assert parts(previewed[0])[0]["fileData"] == {
        "fileUri": f"{START}files/not-uploaded-yet-{sha256[:12]}-{len(png(1))}-bytes",
        "mimeType": "image/png",
    }
    assert parts(previewed[3])[0]["fileData"] == {"fileUri": f"{START}files/before"}
    assert [value["key"] for value in previewed] == [value["key"] for value in values]


def test_a_folder_of_documents_becomes_one_request_each(guard: PathGuard, data: Path, tmp_path: Path) -> None:
    (data / "docs").mkdir()
    write(data / "docs", a_pdf=pdf(1), b_pdf=pdf(2))
    folder = find_source("docs", guard)
    order = Order(prompt="Summarise {{name}}.", attach="path", key_column="path")

    _, values = written(folder, tmp_path / "out", planned(folder, guard, order), order=order)

    assert [value["key"] for value in values] == ["a.pdf", "b.pdf"]
    assert parts(values[1]) == [inlined(pdf(2), "application/pdf"), {"text": "Summarise b.pdf."}]


def test_a_prompt_without_places_is_fine_and_keys_tell_the_rows_apart(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    (data / "docs").mkdir()
    write(data / "docs", a_pdf=pdf(1), b_pdf=pdf(2))
    folder = find_source("docs", guard)
    order = Order(prompt="Summarise the document.", attach="{{path}}", system_instruction="Be brief.")

    _, values = written(folder, tmp_path / "out", planned(folder, guard, order), order=order)

    assert [parts(value)[1]["text"] for value in values] == ["Summarise the document."] * 2
    assert [value["key"] for value in values] == ["a.pdf", "b.pdf"]


def test_text_files_can_be_attached_as_well_as_written_into_the_prompt(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    (data / "in").mkdir()
    write(data / "in", a_md=b"# One", b_png=png(1))
    # Too large to stand in a request, and not asked for.
    (data / "in" / "c.txt").write_bytes(b"x" * (MAX_LINE_BYTES + 1))
    folder = find_source("in/*", guard)
    order = Order(prompt="Translate {{name}}.", attach="path")

    _, values = written(
        folder, tmp_path / "out", planned(folder, guard, order), at_gemini(planned(folder, guard, order)), order
    )

    assert parts(values[0])[0] == inlined(b"# One", "text/plain")
    assert parts(values[2])[0]["fileData"]["mimeType"] == "text/plain"
    with pytest.raises(RequestProblems, match=r"c\.txt has 20,971,521 bytes"):
        first_requests(find_source("in/[ac]*", guard), order=Order(prompt="{{text}}"), count=3)
    small = find_source("in/[ab]*", guard)
    with pytest.raises(UsageError, match="1 of the 2 files of in is not text, so text would be empty there"):
        first_requests(small, order=Order(prompt="{{text}}|{{path}}"))
    with pytest.raises(UsageError, match="Its columns are: path, name, text"):
        first_requests(small, order=Order(prompt="{{content}}"))


def test_cells_that_need_escaping_find_their_files(guard: PathGuard, data: Path, tmp_path: Path) -> None:
    names = ['quote".png', "back\\slash.png", "Käse & 日本.png", "apos'trophe.png", "[1]*.png", "\x7f.png", "tab .png"]
    for number, name in enumerate(names):
        (data / name).write_bytes(png(number))
    source = table(data / "t.csv", names)

    _, values = written(source, tmp_path / "out", planned(source, guard))

    assert [parts(value)[0] for value in values] == [inlined(png(number), "image/png") for number in range(len(names))]


def test_thousands_of_rows_with_files_inside_keep_their_order_and_little_memory(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    contents = [png(number, 300 * number) for number in range(40)]
    for number, content in enumerate(contents):
        (data / f"{number}.png").write_bytes(content)
    source = table(data / "t.csv", [f"{number % 41}.png" if number % 41 < 40 else "" for number in range(4100)])
    plan = planned(source, guard, max_in_lines_bytes=2_000_000)
    assert {content.mode for content in plan.contents} == {"inline", "upload"}

    _, values = written(source, tmp_path / "out", plan, at_gemini(plan))

    known = at_gemini(plan)
    by_sha256 = {content.sha256: content for content in plan.contents}
    for number, value in enumerate(values):
        assert parts(value)[-1] == {"text": f"What is on it, {number + 1}?"}
        if number % 41 == 40:
            assert len(parts(value)) == 1
            continue
        planned_as = by_sha256[plan.cells[f"{number % 41}.png"][0]]
        if planned_as.mode == "inline":
            assert parts(value)[0] == inlined(contents[number % 41], "image/png")
        else:
            assert parts(value)[0]["fileData"]["fileUri"] == known[planned_as.sha256].uri


def test_a_line_over_the_limit_is_refused_with_its_row(guard: PathGuard, data: Path, tmp_path: Path) -> None:
    write(data, a_png=png(1, 2 << 20))
    source = data / "t.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "photo"), ("short", "a.png"), ("x" * (MAX_LINE_BYTES - 1_000_000), "a.png")])
    plan = plan_attachments(source, column="photo", guard=guard, scratch=tmp_path)
    plan = replace(plan, contents=(replace(plan.contents[0], mode="inline"),))

    with pytest.raises(RequestProblems) as caught:
        written(source, tmp_path / "out", plan)

    assert "Row 2 becomes a request of" in caught.value.problems[0].message
    assert caught.value.problem_count == 1


def test_a_file_that_changed_since_the_plan_is_never_put_into_a_line(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_png=png(2))
    source = table(data / "t.csv", ["a.png", "b.png"])
    plan = planned(source, guard)
    write(data, a_png=png(3))

    with pytest.raises(UsageError, match=r"a\.png changed while the order was being prepared"):
        written(source, tmp_path / "out", plan)
    (data / "a.png").unlink()
    with pytest.raises(PathError, match=r"a\.png cannot be read: No such file"):
        written(source, tmp_path / "out", plan)
    write(data, a_png=png(1), c_png=png(3))
    table(source, ["a.png", "c.png"])
    with pytest.raises(UsageError, match="The table changed while the order was being prepared"):
        written(source, tmp_path / "out", plan)
    assert list((tmp_path / "out").iterdir()) == []


def test_files_and_the_order_must_go_together(guard: PathGuard, data: Path, tmp_path: Path) -> None:
    write(data, a_png=png(1))
    source = table(data / "t.csv", ["a.png"])
    plan = planned(source, guard)

    for order in (replace(ORDER, attach="id"), replace(ORDER, attach="")):
        with pytest.raises(UsageError, match="have not been checked yet"):
            first_requests(source, order=order, attachments=plan)
    with pytest.raises(UsageError, match="have not been checked yet"):
        first_requests(source, order=ORDER)
    with pytest.raises(UsageError, match="Embeddings take text only"):
        first_requests(source, order=replace(ORDER, task="embed"), attachments=plan)
    assert isinstance(plan.cells, MappingProxyType)


def test_lines_without_a_size_limit_are_still_limited(guard: PathGuard, data: Path, tmp_path: Path) -> None:
    write(data, a_png=png(1, 10_000))
    source = table(data / "t.csv", ["a.png"])
    plan = planned(source, guard)

    with pytest.raises(UsageError, match=r"t\.csv, rendered, has .* bytes; a batch file has at most 9,999"):
        write_rows(
            source, tmp_path / "r", order=ORDER, keys_path=tmp_path / "k", max_file_bytes=9_999, attachments=plan
        )
    assert not (tmp_path / "r").exists()
    with pytest.raises(StorageError, match="The request file could not be written"):
        (tmp_path / "d.whole").mkdir()
        (tmp_path / "d.whole" / "x").touch()
        write_rows(source, tmp_path / "d", order=ORDER, keys_path=tmp_path / "k", attachments=plan)


def test_a_cell_may_be_cut_by_the_end_of_a_block_and_must_not_be_cut_by_that_of_the_file(
    guard: PathGuard, data: Path
) -> None:
    write(data, a_png=png(1, 900_000))
    plan = planned(table(data / "t.csv", ["a.png"]), guard)
    text = b"x" * ((1 << 18) - 4)
    marked = b'\x04"a.png"\x04'

    output = io.BytesIO()
    whole = AttachedLines(io.BytesIO(text + marked * 3 + b"end"), Parts(plan, None), output).read()
    lines = AttachedLines(io.BytesIO(text + marked * 3 + b"end"), Parts(plan, None), output)
    pieces = []
    while piece := lines.read(100_000):
        pieces.append(piece)

    part = json.dumps(inlined(png(1, 900_000), "image/png"), separators=(",", ":")).encode() + b","
    assert b"".join(pieces) == text + part * 3 + b"end"
    assert whole + b"".join(pieces) == output.getvalue()
    cut = AttachedLines(io.BytesIO(text + marked + b'\x04"a.png'), Parts(plan, None), output)
    with pytest.raises(StorageError, match="not written completely"):
        while cut.read(1 << 20):
            pass


def test_a_request_is_shown_without_the_base64_of_its_files() -> None:
    data = base64.b64encode(bytes(3000)).decode()
    request = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": data}}, {"text": data}]}]}

    shown = without_files(request)

    part = shown["contents"][0]["parts"][0]["inlineData"]
    assert part == {"mimeType": "image/png", "data": f"{data[:24]}… (4,000 characters of base64)"}
    assert shown["contents"][0]["parts"][1] == {"text": data}
    assert without_files({"data": "short", "n": 1}) == {"data": "short", "n": 1}


def test_references_in_stored_lines_are_renewed_and_texts_are_left_alone(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_pdf=pdf())
    quote = f'"fileUri":"{START}files/f0"'
    source = table(data / "t.csv", ["a.png", "b.pdf", "a.png"])
    order = replace(ORDER, prompt=f"{quote} {{{{id}}}}")
    plan = planned(source, guard, max_in_lines_bytes=0)
    file, before = written(source, tmp_path / "out", plan, at_gemini(plan), order)

    changed = renew_references(file.path, tmp_path / "renewed", {f"{START}files/f0": f"{START}files/new"})

    assert changed == 2
    after = [json.loads(line) for line in (tmp_path / "renewed").read_bytes().splitlines()]
    assert [parts(value)[0]["fileData"]["fileUri"].rpartition("/")[2] for value in after] == ["new", "f1", "new"]
    assert [parts(value)[1] for value in after] == [parts(value)[1] for value in before]
    assert parts(after[0])[1]["text"] == f"{quote} 1"
    with pytest.raises(StorageError, match="could not be copied"):
        renew_references(tmp_path / "gone", tmp_path / "x", {})


def test_several_files_of_a_row_stand_in_their_order_before_the_text(
    guard: PathGuard, data: Path, tmp_path: Path
) -> None:
    write(data, a_png=png(1), b_png=png(2))
    source = data / "t.csv"
    source.write_text("id,front,back\n1,a.png;b.png,gs://bucket/c.mp4\n2,,https://youtu.be/abc\n", encoding="utf-8")
    order = Order(prompt="{{id}}", attach="front,back")
    _, values = written(source, tmp_path / "out", planned(source, guard, order), order=order)

    assert [parts(value) for value in values] == [
        [
            inlined(png(1), "image/png"),
            inlined(png(2), "image/png"),
            {"fileData": {"fileUri": "gs://bucket/c.mp4", "mimeType": "video/mp4"}},
            {"text": "1"},
        ],
        [{"fileData": {"fileUri": "https://youtu.be/abc"}}, {"text": "2"}],
    ]
