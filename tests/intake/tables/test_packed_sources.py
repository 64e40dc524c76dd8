"""Sources that are packed: read as what is in them, the same order packed or not, and no bomb goes off."""

import bz2
import gzip
import io
import json
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from backports import zstd

from gemini_batch_mcp.batches.opening import lazy_desk
from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import BatchError, UsageError
from gemini_batch_mcp.intake import unpacked
from gemini_batch_mcp.intake.unpacked import unpacking
from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.settings import Settings
from support.conversation import Conversation, line
from support.sources import outcome

ROWS: Final = {
    "t.csv": b"id,text\n1,a\n2,\xc3\xa4\n",
    "t.tsv": b"id\ttext\n1\ta\n2\tb\n",
    "t.json": b'[{"id":1.10,"text":"a"},{"id":2,"text":"b"}]',
    "t.jsonl": b'{"id":1,"text":"a"}\n{"id":2,"text":"b"}\n',
    "t.ndjson": b'{"id":1,"text":"a"}\n',
    "t.txt": b"first\nsecond\n",
}


def zipped(*files: tuple[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", packing) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return output.getvalue()


def as_windows_does(name: str, content: bytes) -> bytes:
    """Names in the letters of an old code page, directories and what the system keeps in them."""
    kept = ("Exporte/Thumbs.db", b"\xd0\xcf\x11\xe0"), (f"{name}:Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
    packed = zipped(("Exporte\\Kopie/", b""), (name, content), *kept)
    return packed.replace(b"Kopie", b"K\x94pie").replace(b"Maerz", b"M\x84rz!")


def as_a_mac_does(*files: tuple[str, bytes]) -> bytes:
    """Names in UTF-8, decomposed, that do not say so, and beside each file what a Mac keeps of it."""
    kept = [(f"__MACOSX/._{name}", b"\0\5\x16\7\0\2\0\0Mac OS X") for name, _ in files]
    packed = bytearray(zipped(*((unicodedata.normalize("NFD", name), content) for name, content in (*files, *kept))))
    for mark, place in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        at = -1
        while (at := packed.find(mark, at + 1)) >= 0:
            packed[at + place] &= ~8
    return bytes(packed)


PACKINGS: Final[dict[str, Callable[[str, bytes], bytes]]] = {
    ".gz": lambda _, content: gzip.compress(content),
    ".GZ": lambda _, content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    ".bz2": lambda _, content: bz2.compress(content),
    ".zst": lambda _, content: zstd.compress(content),
    ".zip": lambda name, content: zipped((name, content)),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_text_form_is_read_as_what_is_in_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ROWS[name])
    plain = outcome(tmp_path / name)
    assert plain["rows"]

    for suffix, pack in PACKINGS.items():
        packed = tmp_path / f"{name}{suffix}"
        content = pack(name, ROWS[name])
        packed.write_bytes(content)
        assert outcome(packed) == plain, suffix
        assert packed.read_bytes() == content


def test_an_archive_is_named_by_what_is_in_it_whatever_systems_add(tmp_path: Path) -> None:
    expected = {"columns": ["id", "text"], "rows": [["1", "a"], ["2", "ä"]]}
    table = ROWS["t.csv"]
    archives = {
        "export.zip": zipped(("data/2024/t.csv", table)),
        "mac.zip": zipped(("t.csv", table), ("__MACOSX/._t.csv", b"\0\5\x16\7"), (".DS_Store", b"\0")),
        "windows.zip": as_windows_does("Exporte/t.csv", table),
        "old letters.zip": as_windows_does("Exporte\\Maerz.csv", table),
        "apple.zip": as_a_mac_does(("\u00dcbersicht.csv", table)),
        "dotnet.zip": zipped(("data\\", b""), ("data\\t.csv", table)),
        "bare.csv.zip": zipped(("t", table)),
        "stored.zip": zipped(("t.csv", table), packing=zipfile.ZIP_STORED),
        "bzip2.zip": zipped(("t.csv", table), packing=zipfile.ZIP_BZIP2),
        "lzma.zip": zipped(("t.csv", table), packing=zipfile.ZIP_LZMA),
        "up.zip": zipped(("../../t.csv", table)),
        "other encoding.zip": zipped(("t.csv", "id,text\n1,a\n2,ä\n".encode("utf-16"))),
    }
    for name, content in archives.items():
        (tmp_path / name).write_bytes(content)
        seen = outcome(tmp_path / name)
        seen.pop("warnings", None)
        assert seen == expected, name
    assert {path.name for path in tmp_path.iterdir()} == archives.keys()


def protected(content: bytes) -> bytes:
    """An archive whose entries say that they are encrypted."""
    changed = bytearray(content)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[changed.index(mark) + place] |= 1
    return bytes(changed)


def in_tar(content: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        entry = tarfile.TarInfo("t.csv")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


MANY: Final = [(f"{number:02}.csv", b"x" * number) for number in range(1, 13)]
TABLE: Final = b"id,text\n" + b"".join(b"%d,%d\n" % (number, number * 7919) for number in range(2000))
#: File names with what is in them, and the sentence that refuses it.
REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "cut.csv.gz": (gzip.compress(TABLE)[:-9], "cut.csv.gz is damaged, or no gzip file."),
    "cut.csv.bz2": (bz2.compress(TABLE)[:-9], "cut.csv.bz2 is damaged, or no bzip2 file."),
    "cut.csv.zst": (zstd.compress(TABLE)[:-9], "cut.csv.zst is damaged, or no Zstandard file."),
    "cut.zip": (zipped(("t.csv", TABLE))[:-9], "cut.zip is damaged, or no ZIP archive."),
    "plain.csv.gz": (TABLE, "plain.csv.gz is damaged, or no gzip file."),
    "plain.csv.bz2": (TABLE, "plain.csv.bz2 is damaged, or no bzip2 file."),
    "plain.csv.zst": (TABLE, "plain.csv.zst is damaged, or no Zstandard file."),
    "plain.zip": (TABLE, "plain.zip is damaged, or no ZIP archive."),
    "wrong sum.csv.gz": (
        gzip.compress(TABLE)[:-8] + bytes(8),
        "wrong sum.csv.gz is damaged, or no gzip file.",
    ),
    "wrong sum.zip": (
        zipped(("t.csv", TABLE), packing=zipfile.ZIP_STORED).replace(b"7919\n2,", b"7918\n2,", 1),
        "wrong sum.zip is damaged, or no ZIP archive.",
    ),
    "empty.csv.gz": (gzip.compress(b""), "empty.csv is empty."),
    "nothing.csv.gz": (b"", "nothing.csv is empty."),
    "none.zip": (zipped(), "none.zip holds no file."),
    "junk.zip": (zipped(("__MACOSX/._a", b"x"), ("Desktop.ini", b"x")), "junk.zip holds no file."),
    "two.zip": (
        zipped(("a.csv", TABLE), ("b/c.csv", b"id\n1\n")),
        f"two.zip holds 2 files: a.csv ({len(TABLE):,} bytes), b/c.csv (5 bytes).",
    ),
    "mac.zip": (
        as_a_mac_does(("\u00c4rger.csv", TABLE), ("b.csv", b"id\n1\n")),
        f"mac.zip holds 2 files: A\u0308rger.csv ({len(TABLE):,} bytes), b.csv (5 bytes).",
    ),
    "many.zip": (
        zipped(*MANY),
        f"many.zip holds 12 files: {', '.join(f'{name} ({len(data)} bytes)' for name, data in MANY[:10])} and 2 more.",
    ),
    "secret.zip": (protected(zipped(("t.csv", TABLE))), "secret.zip is protected by a password."),
    "book.zip": (zipped(("book.xlsx", b"PK")), "book.zip holds book.xlsx, which doesn't have a text file's name."),
    "t.parquet.gz": (gzip.compress(b"PAR1"), "t.parquet.gz holds t.parquet, which doesn't have a text file's name."),
    "t.gz": (gzip.compress(TABLE), "t.gz holds t, which doesn't have a text file's name."),
    "t.csv.gz.gz": (
        gzip.compress(gzip.compress(TABLE)),
        "t.csv.gz.gz holds t.csv.gz, which doesn't have a text file's name.",
    ),
    "tar.csv.gz": (in_tar(TABLE), "tar.csv.gz holds a tar archive."),
}


@pytest.mark.anyio
async def test_what_cannot_be_unpacked_is_refused_in_a_sentence(
    settings: Settings, sandbox: Sandbox, data: Path
) -> None:
    async with lazy_desk(settings, sandbox.transport) as lazy:
        desk = await lazy.get()
        for name, (content, message) in REFUSED.items():
            (data / name).write_bytes(content)
            with pytest.raises(BatchError) as refused:
                await desk.preview(Order(source=str(data / name), prompt="{{text}}"))
            assert refused.value.message == message
            assert refused.value.next_step
        left = [path.name for path in settings.home.rglob("*") if "unpacked" in path.name]
        assert left == []


@pytest.mark.parametrize("suffix", PACKINGS)
def test_a_bomb_is_unpacked_up_to_a_limit(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits a thousand times smaller than the real ones, on two megabytes of one letter."""
    source = tmp_path / f"t.txt{suffix}"
    source.write_bytes(PACKINGS[suffix]("t.txt", b"x" * 2_000_000))
    size_bytes = source.stat().st_size

    def read() -> int:
        with unpacking(source) as file:
            return sum(len(block) for block in iter(lambda: file.read(1000), b""))

    assert read() == 2_000_000
    monkeypatch.setattr(unpacked, "MAX_UNSEEN_UNPACKED_BYTES", 256 * 1024)
    with pytest.raises(UsageError, match=rf"unpacks to more than 300 times its {size_bytes:,} bytes"):
        read()
    monkeypatch.setattr(unpacked, "MAX_UNPACKED_RATIO", 1_000_000)
    assert read() == 2_000_000
    monkeypatch.setattr(unpacked, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(UsageError, match="unpacks to more than 1,000,000 bytes, and was not unpacked any further"):
        read()


def test_no_disk_is_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TABLE))
    monkeypatch.setattr(unpacked, "LEAST_FREE_BYTES", 1 << 62)

    refused = outcome(tmp_path / "t.csv.gz")["refused"]

    assert refused.startswith("t.csv.gz cannot be unpacked: less than ")


@pytest.mark.anyio
async def test_ready_lines_are_read_packed_and_the_same_order_packed_or_not_is_ordered_once(
    talk: Conversation, data: Path
) -> None:
    lines = "".join(f"{line(f'k{number}', f'text {number}')}\n" for number in range(3)).encode()
    openai = json.dumps(
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "hi"}]},
        }
    ).encode()
    table: dict[str, Any] = {"prompt": "{{text}}"}
    for name, content, order in (("r.jsonl", lines, {}), ("t.csv", TABLE, table), ("o.jsonl", openai, {})):
        batches = set()
        for suffix in ("", ".gz", ".zip"):
            (data / f"{name}{suffix}").write_bytes(PACKINGS[suffix](name, content) if suffix else content)
            created = await talk.call("create_batch", source=str(data / f"{name}{suffix}"), **order)
            assert created["reused"] == bool(suffix)
            batches.add(created["batch_id"])
        assert len(batches) == 1
    (data / "new.jsonl.zst").write_bytes(zstd.compress(lines + line("k3", "new").encode()))
    created = await talk.call("create_batch", source=str(data / "new.jsonl.zst"))
    assert (created["request_count"], created["reused"]) == (4, False)
    pilot = await talk.call("preview_batch", source=str(data / "new.jsonl.zst"), limit_rows=2)
    assert pilot["request_count"] == 2


def test_progress_is_told_in_bytes_read(tmp_path: Path) -> None:
    for suffix, pack in PACKINGS.items():
        source = tmp_path / f"t.csv{suffix}"
        source.write_bytes(pack("t.csv", TABLE * 60))
        seen: list[tuple[int, int]] = []
        with unpacking(source, lambda done, total: seen.append((done, total))) as file:  # noqa: B023 - called within
            assert file.read() == TABLE * 60
        assert seen == sorted(seen)
        assert len(seen) > 2
        assert {total for _, total in seen} == {source.stat().st_size}
        assert seen[-1][0] == seen[-1][1] or suffix == ".zip"
