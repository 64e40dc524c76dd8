"""What is opened by a resolved path, and what is done in an open directory, wherever paths lead by then."""

import errno
import os
import sys
from pathlib import Path

import pytest

from gemini_batch_mcp import handles
from gemini_batch_mcp.handles import Directory, listed, open_file
from gemini_batch_mcp.paths import DRAFT_PREFIX

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no directory handles")

#: Linux opens in one call, and as other systems do where the kernel is old.
WAYS = ["as here", "one by one"]


@pytest.fixture(params=WAYS, autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one by one":
        monkeypatch.setattr(handles, "_openat2", lambda text, flags: None)
        monkeypatch.setattr(handles, "_IN_ONE_GO", 0)


def content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_a_file_is_read_where_its_path_says_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.txt").write_bytes(b"inside")
    (tmp_path / "file.txt").symlink_to(tmp_path / "in" / "deep" / "a.txt")
    (tmp_path / "way").symlink_to(tmp_path / "in")

    assert content(open_file(tmp_path / "in" / "deep" / "a.txt")) == b"inside"
    for path in (tmp_path / "file.txt", tmp_path / "way" / "deep" / "a.txt"):
        with pytest.raises(OSError) as caught:
            open_file(path)
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    with pytest.raises(OSError):
        next(listed(tmp_path / "way"))
    with pytest.raises(OSError):
        Directory(tmp_path / "way")
    assert [entry.name for entry in listed(tmp_path / "in")] == ["deep"]


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path, reason in ((tmp_path / "pipe", "pipe"), (tmp_path, "directory"), (tmp_path / "gone", "No such file")):
        with pytest.raises(OSError, match=reason):
            open_file(path)


def test_what_is_done_in_a_directory_is_done_there_when_its_path_leads_elsewhere(tmp_path: Path) -> None:
    place, elsewhere, moved = tmp_path / "place", tmp_path / "elsewhere", tmp_path / "moved"
    for directory in (place, elsewhere):
        directory.mkdir()
        (directory / f"{DRAFT_PREFIX}old.csv").touch()
    for name in ("one", "two"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    with Directory(place) as opened:
        place.rename(moved)
        place.symlink_to(elsewhere)
        opened.publish(tmp_path / "one", "a.csv")
        with pytest.raises(FileExistsError):
            opened.publish(tmp_path / "two", "a.csv")
        assert opened.status("a.csv") is not None and opened.status("b.csv") is None
        opened.replace(tmp_path / "two", "a.csv")
        opened.sweep(-60)
        assert content(opened.open_file("a.csv")) == b"two"

    assert [path.name for path in moved.iterdir()] == ["a.csv"]
    assert [path.name for path in elsewhere.iterdir()] == [f"{DRAFT_PREFIX}old.csv"]
    assert not (tmp_path / "one").exists() and not (tmp_path / "two").exists()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_a_draft_on_another_disk_is_copied_into_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """EXDEV is another disk; EPERM one that knows no second names at all."""
    link, replace = os.link, os.replace

    def linking(source: str, *arguments: object, src_dir_fd: int | None = None, **more: int) -> None:
        if src_dir_fd is None or code == errno.EPERM:
            raise OSError(code, os.strerror(code))
        link(source, *arguments, src_dir_fd=src_dir_fd, **more)  # type: ignore[arg-type]

    def replacing(source: str, *arguments: object, src_dir_fd: int | None = None, **more: int) -> None:
        if src_dir_fd is None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, *arguments, src_dir_fd=src_dir_fd, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", linking)
    monkeypatch.setattr(os, "replace", replacing)
    (tmp_path / "place").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    with Directory(tmp_path / "place") as opened:
        opened.publish(tmp_path / "one", "a.csv")
        with pytest.raises(FileExistsError):
            opened.publish(tmp_path / "two", "a.csv")
        assert content(opened.open_file("a.csv")) == b"one"
        opened.replace(tmp_path / "two", "a.csv")

    assert {path.name: path.read_text("utf-8") for path in (tmp_path / "place").iterdir()} == {"a.csv": "two"}
