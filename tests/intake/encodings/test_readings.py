"""Texts in 35 languages and the encodings that are usual for them: never wrong letters without a question."""

import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gemini_batch_mcp.errors import RequestProblems, UsageError
from gemini_batch_mcp.intake.tables.text_files import as_utf8
from support.extent import few, long, tries

_TEXTS: Final = Path(__file__).with_name("texts.txt").read_text(encoding="utf-8").splitlines()
_LANGUAGES: Final = [[part.strip() for part in line.split(" | ")] for line in _TEXTS]
#: Rows of a file: one, the five sentences of a language, and many.
_SIZES: Final = {"one row": (1, 1), "five rows": (5, 1), "forty rows": (5, 8)}
_LEAST_SETTLED: Final = 0.9


def encoded(text: str, page: str) -> bytes:
    """Vietnamese has its tones as marks of their own there; all else as it is."""
    if page != "cp1258":
        return text.encode(page)
    found: list[str] = []
    for char in unicodedata.normalize("NFD", text):
        joined = unicodedata.normalize("NFC", found[-1] + char) if found else char
        if found and len(joined) == 1 and char in "\u0302\u0306\u031b":
            found[-1] = joined
        elif found and found[-1] in "\u0300\u0301\u0303\u0309\u0323" and char in "\u0302\u0306\u031b":
            found[-2] = unicodedata.normalize("NFC", found[-2] + char)
        else:
            found.append(char)
    return "".join(found).encode(page)


def table(rows: list[str]) -> str:
    return "id,text\n" + "".join(f"{number},{row.replace(',', ';')}\n" for number, row in enumerate(rows, 1))


def outcome(text: str, page: str, directory: Path) -> str:
    """What becomes of a text in that encoding: `settled`, `asked`, `refused`, or `wrong`."""
    path = directory / "t.csv"
    path.write_bytes(encoded(text, page))
    try:
        read = as_utf8(path, directory).path.read_text(encoding="utf-8")
    except UsageError as question:
        assert "encoding=" in question.next_step, question
        return "asked"
    except RequestProblems:
        return "refused"
    return "settled" if unicodedata.normalize("NFC", read) == text else f"wrong: {page} {read!r}"


def every_file() -> Iterator[tuple[str, str]]:
    for _, pages, *sentences in _LANGUAGES:
        for page in pages.split():
            for count, times in _SIZES.values():
                yield table(sentences[:count] * times), page


@long
def test_texts_of_all_sizes_are_read_rightly_or_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Counter(outcome(text, page, tmp_path) for text, page in every_file())
    share = found["settled"] / found.total()
    with capsys.disabled():
        print(f" {share:.1%} of {found.total()} files settled without a question", end="")  # noqa: T201 - what it is for
    assert set(found) <= {"settled", "asked"}, found
    assert share >= _LEAST_SETTLED


@few(6)
@pytest.mark.parametrize("language", _LANGUAGES, ids=lambda language: language[0])
def test_words_put_together_at_random_are_never_taken_for_others(tmp_path: Path, language: list[str]) -> None:
    """Much less than people have: one to five words of a language, each in a row of its own."""
    _, pages, *sentences = language
    words = [word.strip(".,;“”") for word in " ".join(sentences).split()]
    chance = random.Random(language[0])
    for page in pages.split():
        for count in (1, 2, 3, 5):
            for _ in range(tries(8, 2)):
                text = table(chance.sample(words, min(count, len(words))))
                assert text.isascii() or outcome(text, page, tmp_path) in ("settled", "asked", "refused")
