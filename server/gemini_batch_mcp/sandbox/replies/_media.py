"""The smallest picture and sound that are real ones: what the sandbox gives where a model would give media."""

import base64
import struct
import zlib
from typing import Final

_SAMPLES_PER_SECOND: Final = 24_000
_SAMPLE_BYTES: Final = 2
_SAMPLES: Final = b"\0" * _SAMPLE_BYTES * (_SAMPLES_PER_SECOND // 100)
#: A hundredth of a second of 16-bit silence at 24 kHz, as models of speech give it: samples and nothing else.
SILENCE: Final = base64.b64encode(_SAMPLES)
#: The same as a WAV file.
WAV: Final = base64.b64encode(
    struct.pack("<4sI4s", b"RIFF", 36 + len(_SAMPLES), b"WAVE")
    + struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, 1, _SAMPLES_PER_SECOND, _SAMPLES_PER_SECOND * _SAMPLE_BYTES, _SAMPLE_BYTES, 16
    )
    + struct.pack("<4sI", b"data", len(_SAMPLES))
    + _SAMPLES
)


def png(seed: int) -> bytes:
    """Return a picture of one pixel in a colour that follows from the request."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + (seed & 0xFFFFFF).to_bytes(3))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
