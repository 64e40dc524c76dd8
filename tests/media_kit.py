"""Tiny files of the kinds that people attach: real ones where that is small, else as far as anybody looks at them."""

import struct
import zlib
from pathlib import Path


def png(seed: int = 0, extra_bytes: int = 0) -> bytes:
    """A picture of one pixel; `extra_bytes` of a private chunk make it as large as wanted."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + (seed & 0xFFFFFF).to_bytes(3))
    padding = chunk(b"zzZz", bytes(extra_bytes)) if extra_bytes else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + padding + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def jpeg(seed: int = 0) -> bytes:
    """The beginning and the end of a JPEG."""
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + bytes([seed]) * 8 + b"\xff\xd9"


def pdf(pages: int = 1, *, title: str = "", packed: bool = False) -> bytes:
    """A whole PDF with empty pages; `packed` puts the objects into a compressed stream, as newer writers do."""
    kids = " ".join(f"{number} 0 R" for number in range(3, 3 + pages))
    objects = [
        "<</Type /Catalog /Pages 2 0 R>>",
        f"<</Type /Pages /Kids [{kids}] /Count {pages}>>",
        *["<</Type /Page /Parent 2 0 R /MediaBox [0 0 9 9]>>"] * pages,
    ]
    head = f"%PDF-1.7\n%{title}\n".encode()
    if packed:
        body = zlib.compress(" ".join(objects).encode())
        stream = f"1 0 obj\n<</Type /ObjStm /N {len(objects)} /Filter /FlateDecode /Length {len(body)}>>\nstream\n"
        return head + stream.encode() + body + b"\nendstream\nendobj\n%%EOF\n"
    written = "".join(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, 1))
    return head + f"{written}trailer\n<</Size {len(objects) + 1} /Root 1 0 R>>\n%%EOF\n".encode()


def mp4(seed: int = 0) -> bytes:
    """The first boxes of an MP4 video."""
    return b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x09mdat" + bytes([seed])


def write(directory: Path, **files: bytes) -> None:
    """Write files whose names are given with `_` for the dot: `a_png=b"…"`."""
    for name, content in files.items():
        directory.joinpath(".".join(name.rsplit("_", 1))).write_bytes(content)
