"""Paths: resolved first, then contained. As properties, whatever a path is made of."""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemini_batch_mcp.errors import PathError
from gemini_batch_mcp.paths import PathGuard, is_name_after, names_after, slug


@pytest.fixture
def guard(data: Path) -> PathGuard:
    return PathGuard(roots=(data,), working_directory=data)


def test_a_relative_path_starts_in_the_working_directory_when_that_is_inside_a_root(data: Path) -> None:
    inner = data / "inner"
    inner.mkdir()
    (inner / "a.jsonl").write_text("x", encoding="utf-8")

    assert PathGuard((data,), inner).readable_file("a.jsonl") == inner / "a.jsonl"
    assert PathGuard((inner,), data.parent).readable_file("a.jsonl") == inner / "a.jsonl"


def test_a_symlink_inside_the_roots_is_followed_and_one_that_leads_out_is_refused(guard: PathGuard, data: Path) -> None:
    (data / "real.jsonl").write_text("x", encoding="utf-8")
    (data / "inside.jsonl").symlink_to(data / "real.jsonl")
    (data / "out").symlink_to(data.parent, target_is_directory=True)
    (data / "loop").symlink_to(data / "loop")

    assert guard.readable_file("inside.jsonl") == data / "real.jsonl"
    for text in ("out/anything.jsonl", "out/data/../../etc/passwd"):
        with pytest.raises(PathError, match="outside"):
            guard.readable_file(text)
    with pytest.raises(PathError):
        guard.readable_file("loop")


def test_a_root_with_a_similar_name_does_not_let_in_its_neighbour(data: Path) -> None:
    neighbour = data.with_name(data.name + "-secret")
    neighbour.mkdir()
    (neighbour / "a.jsonl").write_text("x", encoding="utf-8")
    with pytest.raises(PathError, match="outside"):
        PathGuard((data,), data).readable_file(str(neighbour / "a.jsonl"))


def test_a_file_that_may_not_be_read_is_refused(guard: PathGuard, data: Path) -> None:
    (data / "sealed").mkdir(mode=0o700)
    (data / "sealed" / "a.jsonl").write_text("x", encoding="utf-8")
    (data / "sealed" / "a.jsonl").chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    with pytest.raises(PathError, match="cannot be read"):
        guard.readable_file("sealed/a.jsonl")


def test_a_directory_to_write_to_gets_the_default_name(guard: PathGuard, data: Path) -> None:
    (data / "out").mkdir()

    assert guard.writable_file("out", default_name="b.jsonl") == data / "out" / "b.jsonl"
    assert guard.writable_file("new.jsonl", default_name="b.jsonl") == data / "new.jsonl"
    os.mkfifo(data / "pipe")
    with pytest.raises(PathError, match="not a regular file"):
        guard.writable_file("pipe", default_name="b.jsonl")


def test_a_file_beside_another_one_goes_before_one_that_is_found_as_any_other(guard: PathGuard, data: Path) -> None:
    inner = data / "inner"
    inner.mkdir()
    for path in (inner / "a.png", data / "a.png", data / "b.png"):
        path.write_text("x", encoding="utf-8")

    assert guard.readable_file("a.png", beside=inner) == inner / "a.png"
    assert guard.readable_file("b.png", beside=inner) == data / "b.png"
    assert guard.readable_file(str(data / "a.png"), beside=inner) == data / "a.png"
    with pytest.raises(PathError, match="There is no file"):
        guard.readable_file("c.png", beside=inner)
    with pytest.raises(PathError, match="outside"):
        guard.readable_file("../../a.png", beside=inner)


def test_a_name_that_is_nearly_that_of_a_file_is_told_with_that(guard: PathGuard, data: Path) -> None:
    for name in ("reviews.csv", ".reviews.csv", "other.txt"):
        (data / name).write_text("x", encoding="utf-8")
    for text, advice in (
        ("revews.csv", "Did you mean 'reviews.csv'? Check the name, or give the absolute path."),
        (str(data / "review.csv"), "Did you mean 'reviews.csv'? Check the name."),
        (str(data / "nothing-like-it.parquet"), "Check the name."),
        ("nothing-like-it.parquet", "Check the name, or give the absolute path."),
    ):
        with pytest.raises(PathError) as error:
            guard.readable_file(text)
        assert error.value.next_step == advice


def test_who_stands_outside_is_told_so_and_not_whether_the_file_lies_there(tmp_path: Path, data: Path) -> None:
    (tmp_path / "reviews.csv").write_text("x", encoding="utf-8")
    guard = PathGuard(roots=(data,), working_directory=tmp_path)
    for name in ("reviews.csv", "gone.csv"):
        with pytest.raises(PathError) as error:
            guard.readable_file(name)
        assert error.value.message == f"There is no file {name!r} in {data}."
        assert f"Files in {tmp_path}, where this runs, may not be used unless" in error.value.next_step
    # What a relative path means is what lies in the root, where there is something of that name.
    (data / "reviews.csv").write_text("x", encoding="utf-8")
    assert guard.readable_file("reviews.csv") == data / "reviews.csv"


def test_a_place_is_a_file_a_directory_or_a_directory_and_a_pattern(guard: PathGuard, data: Path) -> None:
    (data / "in [1]").mkdir()
    (data / "a.csv").write_text("x", encoding="utf-8")

    assert guard.readable_place("a.csv") == (data / "a.csv", ())
    assert guard.readable_place(".") == (data, ())
    assert guard.readable_place("in [1]") == (data / "in [1]", ())
    assert guard.readable_place("in [1]/*/x?.pdf") == (data / "in [1]", ("*", "x?.pdf"))
    assert guard.readable_place(f"{data}/**") == (data, ("**",))
    for text, problem in (
        ("a.csv/*", "is a pattern for files in"),
        ("in [2]/*.pdf/..", "after a wildcard"),
        ("*/../../*", "after a wildcard"),
        ("../*", "outside"),
        ("/*", "outside"),
        ("/etc/*.conf", "outside"),
        (".hidden/*", "hidden"),
        ("gone/a.csv", "There is no file"),
        ("", "empty"),
    ):
        with pytest.raises(PathError, match=problem):
            guard.readable_place(text)


def test_what_a_link_leads_to_decides_whether_it_is_allowed(guard: PathGuard, data: Path) -> None:
    (data / ".git").mkdir()
    for name, target in (("in", data), ("out", data.parent), ("hidden", data / ".git"), ("loop", data / "loop")):
        (data / name).symlink_to(target)

    allowed = [name for name in ("in", "out", "hidden", "loop", "loop/below", "not-there") if guard.target(data / name)]
    assert allowed == ["in", "not-there"]
    assert guard.target(data / "in" / "in" / "a.txt") == data / "a.txt"


@given(
    parts=st.lists(
        st.sampled_from(["..", ".", "a", "data", "/", "\\", " ", "é", "%2e%2e", "*", "**", "[a]", "x" * 300]),
        max_size=8,
    )
)
def test_whatever_is_let_through_lies_inside_a_root(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "property-root"
    root.mkdir(exist_ok=True)
    guard = PathGuard((root,), root)
    asks: tuple[Callable[[str], Path], ...] = (
        guard.readable_file,
        lambda text: guard.readable_file(text, beside=root),
        lambda text: guard.readable_place(text)[0],
        lambda text: guard.writable_file(text, default_name="d.jsonl"),
    )
    for ask in asks:
        try:
            allowed = ask("/".join(parts))
        except PathError as error:
            assert error.message
            assert error.next_step
        else:
            assert allowed.is_relative_to(root)


@given(st.text())
@example("\x7f/0")
@example("\u202e/x.jsonl")
def test_any_text_is_either_a_path_inside_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp() / "property-text"
    root.mkdir(exist_ok=True)
    guard = PathGuard((root,), root)
    asks: tuple[Callable[[str], Path], ...] = (
        lambda text: guard.readable_place(text)[0],
        lambda text: guard.writable_file(text, default_name="d.jsonl"),
    )
    for ask in asks:
        try:
            allowed = ask(text)
        except PathError as error:
            assert all(character.isprintable() for character in error.message)
        else:
            assert allowed.is_relative_to(root)


def test_names_to_take_where_one_is_taken_follow_each_other_and_are_known_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    names = tuple(islice(names_after(path), 3))

    assert names == (path, tmp_path / "a-2.jsonl", tmp_path / "a-3.jsonl")
    assert [is_name_after(path, name) for name in (*names, tmp_path / "a-b.jsonl")] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Reviews.jsonl", "my-reviews"),
        ("/tmp/Käse & Wein.jsonl", "k-se-wein"),
        ("", "batch"),
        ("日本語", "batch"),
        ("x" * 80, "x" * 24),
        ("--a--", "a"),
    ],
)
def test_a_slug_is_short_and_plain(text: str, expected: str) -> None:
    assert slug(text) == expected
