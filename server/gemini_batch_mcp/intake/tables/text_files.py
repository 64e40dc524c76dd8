"""Text files of any usual encoding, as UTF-8 that can be read line by line; what is no text is refused.

What neither a mark nor UTF-8 settles is found out in `intake/encodings`.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.errors import BatchError, Problem, RequestProblems, UsageError, storage_errors
from gemini_batch_mcp.intake.encodings.finding import find_page, sample
from gemini_batch_mcp.intake.encodings.names import ISO_2022_JP, UTF_8, Page, page_named, page_of
from gemini_batch_mcp.intake.file_kinds import described_binary
from gemini_batch_mcp.intake.opened import SourceFile, buffered
from gemini_batch_mcp.intake.tables.kinds import FOREIGN, file_kind

BLOCK_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 1 << 16
#: Bytes that are decoded at a time: what comes of them stays in the processor's cache (measured: 1.7 times as fast as
#: a megabyte).
_DECODED_BYTES: Final = 1 << 16
_BOMS: Final = (
    # Longest first: the mark of UTF-32 starts with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: With the letters and a digit before it, too much for chance: the first block's mark.
_BZIP2_BLOCK: Final = b"1AY&SY"
#: How nothing begins that is UTF-8 without a mark.
_MAGICS: Final = (*(magic for magic, _, _ in FOREIGN), *(mark for mark, _ in _BOMS))
_WEB_PAGE: Final = re.compile(rb"\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
#: UTF-8 with damage has many right sequences for each wrong one, Windows-1252 hardly ever a right one.
_WRONG_PER_RIGHT: Final = 20
#: How Japanese in seven bits leaves ASCII, and comes back.
_SEVEN_BITS: Final = re.compile(rb"\x1b\$[@B].*\x1b\([BJ]", re.DOTALL)
#: No text holds a control character below the tabulator.
_LOWEST_LETTER: Final = 9
#: What to say when the disk does not take a copy that is easier to read.
COPY_FAILED: Final = "A copy of the source could not be written"
_REPLACEMENT: Final = "\ufffd"
_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of UTF-8 text. `path` is a copy when the user's file has another encoding."""

    path: Path
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Damage:
    """Bytes that are no UTF-8: the line of the first, and how many sequences are right and wrong."""

    line: int
    byte: int
    right: int
    wrong: int


def as_utf8(path: Path, workspace: Path, encoding: str = "") -> TextFile:
    """Return `path` itself when it is UTF-8, or else a copy of it as UTF-8 in `workspace`.

    `encoding` is what the user says that it is in, empty for what it says itself; a mark at its start counts for more.

    Raises:
        UsageError: the file is empty or holds no text, its encoding isn't certain, or none is called `encoding`.
        RequestProblems: bytes cannot be read as text; names the line of the first.
        PathError: the file cannot be read.
    """
    given = page_named(encoding) if encoding else None
    with buffered(path) as file:
        head = file.read(_HEAD_BYTES)
        announced, skip = _announced(head)
        if not head[skip:].strip():
            raise UsageError(f"{path.name} is empty.", "Give a file with at least one row.")
        if given is not None and given.codec != announced and skip:
            raise UsageError(
                f"{path.name} begins with the mark of {page_of(announced).shown}, so it isn't {given.shown}.",
                "Leave out `encoding`.",
            )
        if given is not None and given is not UTF_8:
            return _copy(path, file, given, skip, workspace)
        if not announced:
            _refuse_foreign(path, head)
        if announced not in ("", "utf-8"):
            return _copy(path, file, page_of(announced), skip, workspace)
        _refuse_page(path, head[skip:])
        damage = _damage(path, file)
        if damage is None and head.startswith(codecs.BOM_UTF8, skip):
            return _copy(path, file, UTF_8, skip, workspace)
        if damage is None and given is None and _SEVEN_BITS.search(head):
            return _copy(path, file, ISO_2022_JP, 0, workspace)
        if damage is None:
            return TextFile(path)
        return _copy(path, file, _found(path, file, damage, is_utf8=bool(announced or given)), 0, workspace)


def plain_utf8(whole: bytes) -> str | None:
    """Return the text of a small file, of which `whole` is all; None where `as_utf8` has to look at it more closely.

    What is text here is UTF-8 without marks or doubts, as nearly every file of a folder of texts.
    """
    is_doubtful = b"\0" in whole or b"\x1b" in whole or not whole.strip() or _WEB_PAGE.match(whole)
    if is_doubtful or whole.startswith(_MAGICS) or described_binary(whole[:_HEAD_BYTES]):
        return None
    try:
        return whole.decode("utf-8")
    except UnicodeDecodeError:
        return None


def reads_otherwise(path: Path, workspace: Path, encoding: str) -> bool:
    """True when a file is another text in this encoding than without it, or cannot be read without.

    Raises:
        UsageError, RequestProblems, PathError: as `as_utf8` with this encoding.
    """
    named = workspace / "named"
    named.mkdir()
    text = as_utf8(path, named, encoding).path
    try:
        plain = as_utf8(path, workspace).path
    except BatchError:
        return True
    with SourceFile(text) as one, SourceFile(plain) as other:
        while (block := one.read(BLOCK_BYTES)) or other.read(1):
            if block != other.read(len(block)) or not block:
                return True
    return False


def _found(path: Path, file: BinaryIO, damage: _Damage, *, is_utf8: bool) -> Page:
    """Return the encoding of a file that isn't UTF-8 throughout. Raises as `find_page`."""
    fix = "Save the file as UTF-8 again, or repair that line."
    page, looks_utf8 = None, damage.right * _WRONG_PER_RIGHT > damage.wrong
    if not is_utf8:
        file.seek(0)
        chosen = sample(file)
        # Of a short text in another encoding some bytes may be right by chance, though hardly a line.
        looks_utf8 = looks_utf8 and (bool(chosen.unicode) or damage.right >= damage.wrong)
        try:
            page = find_page(path.name, chosen, (damage.line, damage.byte))
        except BatchError:
            if not looks_utf8:
                raise
    # In encodings of several bytes to a character some of them look like UTF-8 by chance.
    if page is None or (looks_utf8 and not page.is_wide):
        raise _refused(path, damage.line, f"The byte 0x{damage.byte:02x} is not UTF-8.", fix)
    return page


def line_at(path: Path, position: int) -> int:
    """Return the number of the line that holds the byte at `position`, both from 1 and 0."""
    line_feeds = returns = 0
    with SourceFile(path) as file:
        while position > 0 and (block := file.read(min(BLOCK_BYTES, position))):
            position -= len(block)
            line_feeds += block.count(b"\n")
            returns += block.count(b"\r")
    return 1 + (line_feeds or returns)


def is_utf8(path: Path) -> bool:
    """True for a file that is UTF-8 throughout, or begins with the mark of a Unicode encoding.

    Raises:
        RequestProblems: it holds a NUL byte.
        PathError: it cannot be read.
    """
    with buffered(path) as file:
        return bool(_announced(file.read(_HEAD_BYTES))[0]) or _damage(path, file) is None


def announces_wide(path: Path) -> bool:
    """True for a file that shows at its start that it is UTF-16 or UTF-32. Raises PathError when it cannot be read."""
    with buffered(path) as file:
        return _announced(file.read(_HEAD_BYTES))[0] not in ("", "utf-8")


def is_binary(head: bytes) -> bool:
    """True when a file that starts so holds no text: NUL bytes that no encoding explains."""
    return b"\0" in head and not _announced(head)[0]


def _announced(head: bytes) -> tuple[str, int]:
    """Return the encoding that the first bytes announce, empty when they do not, and the length of the mark."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    if b"\0" in head[:4096]:
        # Text of our alphabets in UTF-16 has a NUL in nearly every second place, and only there.
        even, odd = head[0:4096:2], head[1:4096:2]
        for zeros, letters, encoding in ((even, odd, "utf-16-be"), (odd, even, "utf-16-le")):
            if zeros.count(0) * 10 > len(zeros) * 4 and min(letters, default=0) >= _LOWEST_LETTER:
                return encoding, 0
    return "", 0


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, what, fix in FOREIGN:
        if head.startswith(magic) and (magic != b"BZh" or head[4:10] == _BZIP2_BLOCK):
            raise UsageError(f"{path.name} is {what}, not text.", fix)
    if what := described_binary(head):
        raise UsageError(f"{path.name} is {what}, not text.", "Give a table, or the folder that holds such files.")


def _refuse_page(path: Path, text: bytes) -> None:
    kind = file_kind(path)
    if kind is not None and kind.is_never_page and _WEB_PAGE.match(text):
        raise UsageError(
            f"{path.name} is a saved web page, not a table.",
            "Download the table itself: a link that needs a login or a click on Download yields such a page.",
        )


def _damage(path: Path, file: BinaryIO) -> _Damage | None:
    """Look for bytes that are no UTF-8 in the whole file."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    read = 0
    for block in _blocks(file, _DECODED_BYTES):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            line = line_at(path, read - pending + error.start)
            return _Damage(line, error.object[error.start], *_sequences(file))
        if b"\0" in block:
            line = line_at(path, read + block.index(b"\0"))
            raise _refused(path, line, "The file contains a NUL byte: it isn't plain text.", "Save it as plain text.")
        read += len(block)
    if pending_bytes := decoder.getstate()[0]:
        return _Damage(line_at(path, read), pending_bytes[0], *_sequences(file))
    return None


def _sequences(file: BinaryIO) -> tuple[int, int]:
    """Count the non-ASCII characters that are right UTF-8, and the places that are not."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    right = wrong = 0
    for block in _blocks(file):
        text = decoder.decode(block)
        replaced = text.count(_REPLACEMENT)
        wrong += replaced
        right += len(text) - len(text.encode("ascii", "ignore")) - replaced
    return right, wrong + bool(decoder.decode(b"", final=True))


def _copy(path: Path, file: BinaryIO, page: Page, skip: int, workspace: Path) -> TextFile:
    """Write the file as UTF-8, in blocks."""
    file.seek(skip)
    decoder = codecs.getincrementaldecoder(page.codec)("strict")
    copy = workspace / f"{path.stem[:40]}.utf8{path.suffix}"
    lines, is_start = 1, True
    with storage_errors(COPY_FAILED), copy.open("w", encoding="utf-8", newline="") as output:
        for block in chain(_blocks(file), (b"",)):
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                message = f"The byte 0x{error.object[error.start]:02x} is not {page.shown}, which other lines are in."
                if page.codec.startswith("utf-"):
                    message = f"The file declares itself as {page.shown} but isn't."
                before = error.object[: error.start].decode(page.codec, "replace").count("\n")
                raise _refused(path, lines + before, message, "Save the file as UTF-8.") from None
            lines += text.count("\n")
            if is_start:
                # Two tools have each written one.
                text, is_start = text.lstrip(_MARK), False
            try:
                output.write(text)
            except UnicodeEncodeError:
                raise _refused(path, lines, "It contains half of a surrogate pair.", "Save it as UTF-8.") from None
    if page is UTF_8:
        return TextFile(copy, (f"{path.name} begins with more than one byte-order mark; all were removed.",))
    return TextFile(copy, (f"{path.name} is not UTF-8; it was read as {page.shown}.",))


def _blocks(file: BinaryIO, size_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    while block := file.read(size_bytes):
        yield block


def _refused(path: Path, line: int, message: str, fix: str) -> RequestProblems:
    return RequestProblems(
        [Problem(line, "", message, fix)],
        1,
        f"{path.name} cannot be read as text; nothing was submitted.",
        "Correct it, then submit the order again.",
    )
