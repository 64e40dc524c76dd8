"""Files that answers carry (images, sound), written next to the table: never as base64 in a cell, a page or a context.

A file is named after its row's key: `<key>-<n><suffix>`, from `n` 1. A key that is no plain name (lower case letters,
digits, single hyphens) is made one and followed by `_` and a hash of itself, a retry's answer by `_a` and the number of
its attempt. So no two rows share a name, on no file system, and a name always means the same content.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

import base64
import binascii
import hashlib
import io
import json
import re
import secrets
import wave
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gemini_batch_mcp.results.engine import quoted, rows_of
from gemini_batch_mcp.results.table.inputs import TablePlan
from gemini_batch_mcp.results.table.lines import answer_lines, mended
from gemini_batch_mcp.results.table.merge import answered_rows
from gemini_batch_mcp.settings import MAX_ANSWER_FILES

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The table of a build that has what became of each row's files: `row`, `files` (relative paths), `fault` or NULL.
MEDIA_TABLE: Final = "media"

_NOT_BASE64: Final = "a file in the answer is not valid base64"
_UNREADABLE: Final = "the files in the answer cannot be read"
_PLAIN_KEY: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_KEY_CHARS: Final = 60
_HASH_BYTES: Final = 8
_FETCHED_ROWS: Final = 1024

#: How files of a kind begin, at which byte.
_BEGINNINGS: Final = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (8, b"WAVE", ".wav"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftyphei", ".heic"),
    (4, b"ftyp", ".mp4"),
    (0, b"OggS", ".ogg"),
    (0, b"fLaC", ".flac"),
    (0, b"ID3", ".mp3"),
    (0, b"%PDF-", ".pdf"),
)
#: By MIME type, where the beginning says nothing. Nothing here is opened by a program that would run it.
_SUFFIXES: Final[Mapping[str, str]] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/heic": ".heic",
    "image/avif": ".avif",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "audio/aac": ".aac",
    "video/mp4": ".mp4",
    "application/pdf": ".pdf",
    "text/plain": ".txt",
    "text/csv": ".csv",
    "application/json": ".json",
}
#: Sound without a header, which Gemini's speech models send: 16 bits, one channel, the rate in the MIME type.
_RAW_SOUND: Final = frozenset({"audio/l16", "audio/pcm"})
_RATE: Final = re.compile(r"rate=(\d{4,6})")
_USUAL_RATE: Final = 24_000
#: A header has 32 bits for its length.
_MAX_WAVE_BYTES: Final = (1 << 32) - 100
_NO_SOUND: Final = "audio in the answer ({size:,} bytes, {rate:,} samples a second) cannot be made a .wav file"


class _NoFile(Exception):
    """What an answer carries cannot be made a file; the text says why."""


def load_media(connection: "DuckDBPyConnection", plan: TablePlan, staged: Path, position: str, workspace: Path) -> None:
    """Write the files of all answers that are in the table, and make the table `media`. Needs `placed`.

    At most one answer line is held in memory.

    Raises:
        OSError: a file cannot be written.
    """
    connection.execute(f"CREATE TEMP TABLE {MEDIA_TABLE} (row BIGINT, files VARCHAR[], fault VARCHAR)")
    if plan.media is None:
        return
    found = connection.execute(
        f"""SELECT file, answers.line, placed.row, placed.key, answers.attempt
            FROM ({answered_rows(staged, position)}) answers JOIN placed ON answers.position = placed.position
            WHERE files IS NOT NULL ORDER BY file, answers.line"""
    ).fetchall()
    if not found:
        return
    plan.media.mkdir(mode=0o700, exist_ok=True)
    encoder = msgspec.json.Encoder()
    written = workspace / "media.jsonl"
    with written.open("wb") as file:
        for number, rows in groupby(found, key=itemgetter(0)):
            path = plan.answers[number].path
            assert path is not None, "the line was read from it"
            lines = enumerate(answer_lines(path), start=1)
            at, line = 0, b""
            for _, line_number, row, key, attempt in rows:
                # Several rows may have the same answer.
                while at < line_number:
                    at, (_, line) = next(lines)
                names, fault = _write_files(line, plan.media, _stem(key, attempt))
                paths = [f"{plan.media.name}/{name}" for name in names]
                file.write(encoder.encode({"row": row, "files": paths or None, "fault": fault or None}) + b"\n")
    connection.execute(
        f"""INSERT INTO {MEDIA_TABLE}
            FROM read_json({quoted(written)}, format = 'newline_delimited', hive_partitioning = false,
                           columns = {{row: 'BIGINT', files: 'VARCHAR[]', fault: 'VARCHAR'}})"""
    )


def clear_stale_media(connection: "DuckDBPyConnection", table: Path, media: Path) -> None:
    """Remove what is in the directory of media and in no row of the table: of older builds, and of killed ones."""
    if not media.is_dir():
        return
    named = {
        name.rpartition("/")[2]
        for chunk in _chunks(connection.execute(f"SELECT unnest(files) FROM {rows_of(table)} WHERE files IS NOT NULL"))
        for (name,) in chunk
    }
    for path in media.iterdir():
        if path.name not in named and path.is_file():
            path.unlink(missing_ok=True)


def _write_files(line: bytes, directory: Path, stem: str) -> tuple[list[str], str]:
    """Write the files of one answer; returns their names, and what was wrong with one of them or nothing."""
    names: list[str] = []
    found = list(_inline_files(line))
    fault = "" if found else _UNREADABLE
    if len(found) > MAX_ANSWER_FILES:
        fault = f"the answer carries {len(found):,} files; the first {MAX_ANSWER_FILES:,} are written"
    for mime_type, data in found[:MAX_ANSWER_FILES]:
        content = _decoded(data)
        if not content:
            fault = _NOT_BASE64
            continue
        try:
            content, suffix = _as_file(content, mime_type)
        except _NoFile as no_file:
            fault = str(no_file)
            continue
        name = f"{stem}-{len(names) + 1}{suffix}"
        _write(directory / name, content)
        names.append(name)
    return names, fault


def _inline_files(line: bytes) -> Iterator[tuple[str, object]]:
    """Yield MIME type and base64 of every file of the first candidate that is no part of its thoughts."""
    candidates = _member(_member(_parsed(line), "response"), "candidates")
    parts = _member(_member(candidates[0] if isinstance(candidates, list) and candidates else None, "content"), "parts")
    for part in parts if isinstance(parts, list) else ():
        inline = _member(part, "inlineData")
        if isinstance(inline, dict) and _member(part, "thought") not in (True, "true"):
            yield str(inline.get("mimeType") or ""), inline.get("data")


def _parsed(line: bytes) -> object:
    """Return what a line says, nothing when only the engine, which is more lenient, could read it."""
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(mended(line))
    except (ValueError, RecursionError):
        return None


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _decoded(data: object) -> bytes:
    """Return what base64 stands for, nothing when it is none. It may be of either alphabet, with or without its end."""
    if not isinstance(data, str):
        return b""
    try:
        text = data.encode("ascii").rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return b""


def _as_file(content: bytes, mime_type: str) -> tuple[bytes, str]:
    """Return a file's content and suffix: what it begins with decides, then its MIME type."""
    for start, beginning, suffix in _BEGINNINGS:
        if content.startswith(beginning, start):
            return content, suffix
    kind = mime_type.partition(";")[0].strip().lower()
    if kind in _RAW_SOUND:
        stated = _RATE.search(mime_type)
        rate = int(stated[1]) if stated else _USUAL_RATE
        if not rate or len(content) > _MAX_WAVE_BYTES:
            raise _NoFile(_NO_SOUND.format(rate=rate, size=len(content)))
        return _with_wave_header(content, rate), ".wav"
    return content, _SUFFIXES.get(kind, ".bin")


def _with_wave_header(samples: bytes, rate: int) -> bytes:
    file = io.BytesIO()
    with closing(wave.open(file, "wb")) as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; one that is there as it should be is left alone."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _stem(key: str, attempt: int) -> str:
    plain = "-".join(re.findall(r"[a-z0-9]+", key.lower()))[:_MAX_KEY_CHARS].strip("-") or "answer"
    if plain != key or not _PLAIN_KEY.fullmatch(key):
        plain += "_" + hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).hexdigest()
    return plain if attempt == 1 else f"{plain}_a{attempt}"


def _chunks(result: "DuckDBPyConnection") -> Iterator[list[Any]]:
    while chunk := result.fetchmany(_FETCHED_ROWS):
        yield chunk
