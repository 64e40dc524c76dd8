"""Embeddings of single requests: unit vectors that follow from the request alone and mean nothing."""

import hashlib
import math
from functools import lru_cache
from typing import Final

import msgspec

from gemini_batch_mcp.sandbox.replies.tokens import text_tokens

_DEFAULT_DIMENSIONS: Final = 3072
#: Larger vectors than any model gives would only fill the disk.
_MAX_DIMENSIONS: Final = 16_384
#: Eight magnitudes that repeat along a vector; the request decides the signs.
_MAGNITUDES: Final = (0.9, 0.4, 0.7, 0.2, 1.0, 0.5, 0.3, 0.8)
_BITS: Final = len(_MAGNITUDES)


class _Part(msgspec.Struct, gc=False):
    text: str = ""


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] = []


class _Request(msgspec.Struct, gc=False):
    content: _Content = msgspec.field(default_factory=_Content)
    dimensions: int | str = msgspec.field(name="outputDimensionality", default=0)
    snake_dimensions: int | str = msgspec.field(name="output_dimensionality", default=0)


_decode_request = msgspec.json.Decoder(_Request).decode


def embedding_response(request: bytes) -> bytes:
    """Return an EmbedContentResponse as JSON, as batch output files hold it: `{"tokenCount", "embedding"}`."""
    decoded = _decode_request(request)
    wanted = int(decoded.dimensions or decoded.snake_dimensions) or _DEFAULT_DIMENSIONS
    dimensions = min(wanted, _MAX_DIMENSIONS)
    tokens = sum([text_tokens(part.text) for part in decoded.content.parts])
    return b'{"tokenCount":"%d","embedding":{"values":[%b]}}' % (tokens, _vector(request, dimensions))


def _vector(request: bytes, dimensions: int) -> bytes:
    signs = hashlib.shake_128(request).digest(-(-dimensions // _BITS))
    pieces, rest = _pieces(dimensions)
    whole = [pieces[byte] for byte in signs[: dimensions // _BITS]]
    if rest:
        whole.append(rest[signs[-1]])
    return b",".join(whole)


@lru_cache(maxsize=16)
def _pieces(dimensions: int) -> tuple[list[bytes], list[bytes]]:
    """Return the text of eight values for each byte of signs, and that of the values left over at the end."""
    left_over = dimensions % _BITS
    squares = [magnitude**2 for magnitude in _MAGNITUDES]
    norm = math.sqrt(dimensions // _BITS * sum(squares) + sum(squares[:left_over]))
    values = [magnitude / norm for magnitude in _MAGNITUDES]

    def text(byte: int, count: int) -> bytes:
        signed = [-value if byte >> bit & 1 else value for bit, value in enumerate(values[:count])]
        return b",".join([b"%.9g" % value for value in signed])

    return [text(byte, _BITS) for byte in range(256)], [text(byte, left_over) for byte in range(256) if left_over]
