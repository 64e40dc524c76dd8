"""Text files of any usual encoding, as UTF-8 that can be read line by line; what is no text is refused.

charset-normalizer does not stand in for this: it takes Windows-1252 for Windows-1250 and NUL bytes for text, and tells
no line; it knows encodings that are not read here (Shift JIS, GB 18030, Windows-1251).
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from gemini_batch_mcp.errors import Problem, RequestProblems, UsageError, storage_errors
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
_WEB_PAGE: Final = re.compile(rb"\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
#: UTF-8 with damage has many right sequences for each wrong one, Windows-1252 hardly ever a right one.
_WRONG_PER_RIGHT: Final = 20
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


def as_utf8(path: Path, workspace: Path) -> TextFile:
    """Return `path` itself when it is UTF-8, or else a copy of it as UTF-8 in `workspace`.

    Raises:
        UsageError: the file is empty or holds no text.
        RequestProblems: bytes cannot be read as text; names the line of the first.
        PathError: the file cannot be read.
    """
    with buffered(path) as file:
        head = file.read(_HEAD_BYTES)
        encoding, skip = _announced(head)
        if not head[skip:].strip():
            raise UsageError(f"{path.name} is empty.", "Give a file with at least one row.")
        if not encoding:
            _refuse_foreign(path, head)
        if encoding in ("", "utf-8"):
            _refuse_page(path, head[skip:])
        if encoding not in ("", "utf-8"):
            return _copy(path, file, encoding, skip, workspace)
        damage = _damage(path, file)
        if damage is None and head.startswith(codecs.BOM_UTF8, skip):
            return _copy(path, file, "utf-8", skip, workspace)
        if damage is None:
            return TextFile(path)
        if encoding or damage.right * _WRONG_PER_RIGHT > damage.wrong:
            fix = "Save the file as UTF-8 again, or repair that line."
            raise _refused(path, damage.line, f"The byte 0x{damage.byte:02x} is not UTF-8.", fix)
        return _copy(path, file, "cp1252", 0, workspace)


def line_at(path: Path, position: int) -> int:
    """Return the number of the line that holds the byte at `position`, both from 1 and 0."""
    line_feeds = returns = 0
    with SourceFile(path) as file:
        while position > 0 and (block := file.read(min(BLOCK_BYTES, position))):
            position -= len(block)
            line_feeds += block.count(b"\n")
            returns += block.count(b"\r")
    return 1 + (line_feeds or returns)


def is_binary(head: bytes) -> bool:
    """True when a file that starts so holds no text: NUL bytes that no encoding explains."""
    return not _announced(head)[0] and b"\0" in head


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


def _copy(path: Path, file: BinaryIO, encoding: str, skip: int, workspace: Path) -> TextFile:
    """Write the file as UTF-8, in blocks."""
    file.seek(skip)
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    copy = workspace / f"{path.stem[:40]}.utf8{path.suffix}"
    lines, is_start = 1, True
    with storage_errors(COPY_FAILED), copy.open("w", encoding="utf-8", newline="") as output:
        for block in chain(_blocks(file), (b"",)):
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                name = _NAMES[encoding]
                message = f"The byte 0x{error.object[error.start]:02x} is neither UTF-8 nor {name}."
                if encoding != "cp1252":
                    message = f"The file declares itself as {name} but isn't."
                before = error.object[: error.start].decode(encoding, "replace").count("\n")
                raise _refused(path, lines + before, message, "Save the file as UTF-8.") from None
            lines += text.count("\n")
            if is_start:
                # Two tools have each written one.
                text, is_start = text.lstrip(_MARK), False
            try:
                output.write(text)
            except UnicodeEncodeError:
                raise _refused(path, lines, "It contains half of a surrogate pair.", "Save it as UTF-8.") from None
    if encoding == "utf-8":
        return TextFile(copy, (f"{path.name} begins with more than one byte-order mark; all were removed.",))
    return TextFile(copy, (f"{path.name} is not UTF-8; it was read as {_NAMES[encoding]}.",))


_NAMES: Final = {
    "utf-8": "UTF-8",
    "cp1252": "Windows-1252 (Latin-1)",
    "utf-16-le": "UTF-16",
    "utf-16-be": "UTF-16",
    "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32",
}


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
