"""Directories and globs as sources: which files they mean, none outside the roots, and what is left out is said."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import PathError, RequestProblems, UsageError
from gemini_batch_mcp.intake.tables import folders
from gemini_batch_mcp.intake.tables.folders import Folder, find_source, list_folder, read_folder
from gemini_batch_mcp.paths import PathGuard
from support.extent import in_part, tries
from support.sources import first_requests


@pytest.fixture
def guard(data: Path) -> PathGuard:
    return PathGuard(roots=(data,), working_directory=data)


def tree(root: Path, *names: str) -> None:
    """Write a file of each name, directories included."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def names(source: Path | Folder) -> tuple[str, ...]:
    assert isinstance(source, Folder)
    return source.names


def test_a_directory_means_its_own_files_in_order_and_says_that_there_are_more_below(
    guard: PathGuard, data: Path
) -> None:
    tree(data, "docs/b.pdf", "docs/a.pdf", "docs/deep/c.pdf", "docs/.hidden.pdf", "docs/.git/config")

    for text in ("docs", "docs/", "./docs", str(data / "docs")):
        folder = find_source(text, guard)
        assert names(folder) == ("a.pdf", "b.pdf")
    assert isinstance(folder, Folder)
    assert (folder.name, folder.root, folder.path("a.pdf")) == ("docs", data / "docs", data / "docs" / "a.pdf")
    assert folder.warnings == ("1 subdirectory was skipped; end the source in /**/* to include its files.",)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.pdf", ("a.pdf", "b.pdf")),
        ("[ab].pdf", ("a.pdf", "b.pdf")),
        ("?.jpg", ("c.jpg",)),
        ("**/*.pdf", ("a.pdf", "b.pdf", "x/d.pdf", "x/y/e.pdf")),
        ("**/**/*.pdf", ("a.pdf", "b.pdf", "x/d.pdf", "x/y/e.pdf")),
        ("*/*.pdf", ("x/d.pdf",)),
        ("x/**", ("d.pdf", "y/e.pdf")),
        ("**/y/*", ("x/y/e.pdf",)),
        ("**", ("a.pdf", "b.pdf", "c.jpg", "x/d.pdf", "x/y/e.pdf")),
        ("*", ("a.pdf", "b.pdf", "c.jpg")),
        ("x/./*.pdf", ("d.pdf",)),
    ],
)
def test_a_glob_means_what_matches_on_each_level(
    guard: PathGuard, data: Path, pattern: str, expected: tuple[str, ...]
) -> None:
    tree(data, "in/b.pdf", "in/a.pdf", "in/c.jpg", "in/x/d.pdf", "in/x/y/e.pdf", "in/x/.z/f.pdf")

    folder = find_source(f"in/{pattern}", guard)

    assert names(folder) == expected
    assert isinstance(folder, Folder)
    assert [warning for warning in folder.warnings if "several kinds" not in warning] == []
    # A stored order finds the same files again by the absolute text.
    assert find_source(folder.source, guard) == folder


def test_what_exists_by_its_very_name_is_no_pattern(guard: PathGuard, data: Path) -> None:
    tree(data, "photos [2024]/a.jpg", "photos [2024]/b*.jpg", "photos [2024]/bc.jpg", "what?.csv", "photos 2/x.jpg")

    assert names(find_source("photos [2024]", guard)) == ("a.jpg", "b*.jpg", "bc.jpg")
    assert names(find_source("photos [2024]/*.jpg", guard)) == ("a.jpg", "b*.jpg", "bc.jpg")
    assert find_source("photos [2024]/b*.jpg", guard) == data / "photos [2024]" / "b*.jpg"
    assert find_source("what?.csv", guard) == data / "what?.csv"
    assert names(find_source("*/b*.jpg", guard)) == ("photos [2024]/b*.jpg", "photos [2024]/bc.jpg")
    assert names(find_source("photos ?/*", guard)) == ("photos 2/x.jpg",)


def test_a_piece_of_a_pattern_also_means_the_name_that_is_written_like_it(guard: PathGuard, data: Path) -> None:
    tree(data, "a/x[1].jpg", "a/x1.jpg")

    assert names(find_source("*/x[1].jpg", guard)) == ("a/x1.jpg", "a/x[1].jpg")


def test_a_glob_that_matches_nothing_says_what_it_looked_for(guard: PathGuard, data: Path) -> None:
    tree(data, "photos/a.JPG", "photos/b.JPG", "empty/.hidden")

    with pytest.raises(UsageError) as caught:
        find_source("photos/*.jpg", guard)
    assert caught.value.message == "photos holds no file that matches *.jpg."
    assert "2 files were left out because their names match only if case is ignored." in caught.value.next_step
    with pytest.raises(UsageError, match=r"empty holds no files\."):
        find_source("empty", guard)
    with pytest.raises(PathError, match=r"'nope/\*\.jpg' is a pattern for files in .*nope, which is not a directory"):
        find_source("nope/*.jpg", guard)
    with pytest.raises(PathError, match="There is no file 'nope'"):
        find_source("nope", guard)


def test_files_that_differ_in_capital_letters_only_are_counted(guard: PathGuard, data: Path) -> None:
    tree(data, "a.jpg", "b.JPG")

    folder = find_source("*.jpg", guard)

    assert names(folder) == ("a.jpg",)
    assert isinstance(folder, Folder)
    assert folder.warnings == ("1 file was left out because its name matches only if case is ignored.",)


def test_links_are_followed_inside_the_roots_and_left_out_when_they_lead_outside(guard: PathGuard, data: Path) -> None:
    outside = data.parent / "outside"
    tree(outside, "secret.pdf", "sub/secret.pdf")
    tree(data, "real/a.pdf", ".private/b.pdf")
    links = data / "links"
    links.mkdir()
    (links / "inside.pdf").symlink_to(data / "real" / "a.pdf")
    (links / "outside.pdf").symlink_to(outside / "secret.pdf")
    (links / "hidden.pdf").symlink_to(data / ".private" / "b.pdf")
    (links / "loop.pdf").symlink_to(links / "loop.pdf")
    (links / "gone.pdf").symlink_to(data / "gone.pdf")
    (links / "there").symlink_to(data / "real", target_is_directory=True)
    (links / "out").symlink_to(outside, target_is_directory=True)
    (links / "up").symlink_to(data, target_is_directory=True)

    folder = find_source("links/*.pdf", guard)
    assert names(folder) == ("inside.pdf",)
    assert isinstance(folder, Folder)
    assert folder.warnings == (
        "3 links that lead outside the roots were left out.",
        "1 entry that is not a regular file was left out.",
    )
    assert names(find_source("links/*/*.pdf", guard)) == ("there/a.pdf",)
    assert names(find_source("links/**/*.pdf", guard)) == ("inside.pdf",)
    assert names(find_source("links/there", guard)) == ("a.pdf",)
    for text in ("links/out", "links/out/*", "links/out/*.pdf", "links/outside.pdf"):
        with pytest.raises(PathError, match="outside"):
            find_source(text, guard)


def test_without_a_guard_no_link_is_followed(data: Path) -> None:
    tree(data, "in/a.txt")
    (data / "in" / "b.txt").symlink_to(data / "in" / "a.txt")

    assert list_folder(data / "in").names == ("a.txt",)


def test_an_entry_that_cannot_be_looked_at_is_no_file(data: Path) -> None:
    tree(data, "in/a.txt")
    (data / "in" / "loop.txt").symlink_to(data / "in" / "loop.txt")

    folder = list_folder(data / "in", "*.txt", target=lambda path: path)

    assert (folder.names, folder.warnings) == (("a.txt",), ("1 entry that is not a regular file was left out.",))


def test_pipes_and_sockets_are_never_opened(guard: PathGuard, data: Path) -> None:
    tree(data, "in/a.txt")
    os.mkfifo(data / "in" / "pipe")

    folder = find_source("in", guard)

    assert isinstance(folder, Folder)
    assert (folder.names, folder.warnings) == (("a.txt",), ("1 entry that is not a regular file was left out.",))
    with pytest.raises(PathError, match="device, pipe or socket"):
        find_source("in/pipe", guard)


def test_names_that_are_no_text_are_left_out(guard: PathGuard, data: Path) -> None:
    tree(data, "in/a.txt", "in/line\nbreak.txt", "in/odd\x1fdir/b.txt")
    Path(os.fsdecode(os.fsencode(data) + b"/in/\xff.txt")).write_text("x", encoding="utf-8")

    folder = find_source("in/**/*.txt", guard)

    assert isinstance(folder, Folder)
    assert folder.names == ("a.txt",)
    assert folder.warnings == ("3 files were left out because their names aren't plain text; rename them.",)


def test_a_directory_that_may_not_be_read_is_counted(
    guard: PathGuard, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(data, "in/a.txt", "in/sealed/b.txt")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path.name == "sealed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # The suite may run as root, who may read everything.
    monkeypatch.setattr(os, "scandir", refusing)
    folder = find_source("in/**/*.txt", guard)

    assert isinstance(folder, Folder)
    assert folder.names == ("a.txt",)
    assert folder.warnings == ("1 directory could not be read and was left out.",)


def test_very_deep_directories_are_walked(guard: PathGuard, data: Path) -> None:
    levels = [data]
    for _ in range(1200):
        levels.append(levels[-1] / "d")
        levels[-1].mkdir()
    (levels[-1] / "a.txt").write_text("x", encoding="utf-8")

    assert names(find_source("**/*.txt", guard)) == ("d/" * 1200 + "a.txt",)

    # What tidies up after tests calls itself once for each level.
    (levels[-1] / "a.txt").unlink()
    for level in levels[:0:-1]:
        level.rmdir()


def test_a_source_of_too_many_files_is_refused(guard: PathGuard, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(data, *(f"{number}.txt" for number in range(11)))

    monkeypatch.setattr(folders, "MAX_FILES", 10)
    with pytest.raises(UsageError, match="more than 10 files match"):
        find_source("*.txt", guard)
    monkeypatch.setattr(folders, "MAX_FILES", 11)
    assert len(names(find_source("*.txt", guard))) == 11
    monkeypatch.setattr(folders, "MAX_ENTRIES", 10)
    with pytest.raises(UsageError, match="looking at more than 10 entries"):
        find_source("*.pdf", guard)


def test_patterns_made_to_take_for_ever_do_not(guard: PathGuard, data: Path) -> None:
    for number in range(40):
        tree(data, f"{'a' * 30}{number}/b/c/d.txt")

    assert names(find_source("/".join(["**"] * 30) + "/*.txt", guard))
    with pytest.raises(UsageError):
        find_source(f"{'*a' * 40}b", guard)


def test_a_pilot_opens_no_file_beyond_its_own(data: Path) -> None:
    tree(data, "in/a.txt", "in/b.txt")
    (data / "in" / "c.txt").write_bytes("ü".encode() + b"\xff")
    folder = list_folder(data / "in")

    lines = first_requests(folder, order=Order(prompt="{{text}}"))

    assert [line["request"]["contents"][0]["parts"] for line in lines] == [
        [{"text": "in/a.txt"}],
        [{"text": "in/b.txt"}],
    ]
    assert folder.first(0) is folder
    with pytest.raises(RequestProblems, match=r"c\.txt cannot be read as text"):
        first_requests(folder, order=Order(prompt="{{text}}"), count=3)


def test_the_digest_of_a_folder_depends_on_names_and_contents_and_not_on_the_place(data: Path) -> None:
    tree(data, "one/a.txt", "two/a.txt")
    (data / "two" / "a.txt").write_text("one/a.txt", encoding="utf-8")
    digest = read_folder(list_folder(data / "one")).sha256

    assert read_folder(list_folder(data / "two")).sha256 == digest
    assert len(digest) == 64
    (data / "two" / "a.txt").rename(data / "two" / "b.txt")
    assert read_folder(list_folder(data / "two")).sha256 != digest
    (data / "one" / "a.txt").write_text("One/a.txt", encoding="utf-8")
    assert read_folder(list_folder(data / "one")).sha256 != digest
    with pytest.raises(PathError, match=r"gone\.txt cannot be read"):
        read_folder(Folder(data / "one", ("gone.txt",)))


PIECES = st.sampled_from(
    ["*", "**", "..", ".", "in", "out", "up", "secret", ".hid", "a.txt", "?", "[a-z]*", "[", "/", ""]
)


@in_part
@settings(max_examples=tries(300, 100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(PIECES, max_size=6))
def test_whatever_a_source_is_made_of_no_file_outside_the_roots_is_ever_named(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    base = tmp_path_factory.getbasetemp() / "glob-property"
    root = base / "root"
    if not root.exists():
        tree(base, "root/a.txt", "root/in/a.txt", "root/in/deep/b.txt", "root/.hid/c.txt", "secret/key.txt")
        (root / "out").symlink_to(base / "secret", target_is_directory=True)
        (root / "up").symlink_to(base, target_is_directory=True)
        (root / "in" / "link.txt").symlink_to(base / "secret" / "key.txt")
    guard = PathGuard((root,), root)
    try:
        source = find_source("/".join(pieces), guard)
    except UsageError as error:
        assert error.message
        assert error.next_step
        return
    files = [source.path(name) for name in source.names] if isinstance(source, Folder) else [source]
    assert files
    for file in files:
        resolved = file.resolve()
        assert resolved.is_relative_to(root)
        assert not any(part.startswith(".") for part in resolved.relative_to(root).parts)


def test_what_systems_and_programs_keep_for_themselves_is_left_out_and_counted(guard: PathGuard, data: Path) -> None:
    (data / "mine").mkdir()
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "~$report.pdf", "x.tmp", "notes.txt~", "a.pdf", "tmp.txt"):
        (data / "mine" / name).write_bytes(b"x")

    folder = find_source("mine", guard)

    assert names(folder) == ("a.pdf", "tmp.txt")
    assert isinstance(folder, Folder)
    assert folder.warnings == (
        "5 files that systems or programs keep for themselves (Thumbs.db, lock and temporary files) were left out.",
        "The files are of several kinds, judging by their names: 1 PDF, 1 text.",
    )
    assert names(find_source("mine/*.tmp", guard)) == ("x.tmp",)
