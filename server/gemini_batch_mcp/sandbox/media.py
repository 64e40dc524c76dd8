"""The smallest picture and sound that are real ones: what the sandbox gives where a model would give media."""

import base64
import struct
import zlib
from typing import Final

#: A hundredth of a second of 16-bit silence at 24 kHz.
SILENCE: Final = base64.b64encode(b"\0\0" * 240)


def png(seed: int) -> bytes:
    """Return a picture of one pixel in a colour that follows from the request."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + (seed & 0xFFFFFF).to_bytes(3))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
