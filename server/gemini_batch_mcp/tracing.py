"""What takes time, as spans of OpenTelemetry: figures and ids, never a prompt, an answer, a key or an address.

Without an SDK of OpenTelemetry in the process they cost next to nothing and go nowhere; the MCP SDK makes one for each
message in the same way, and these hang below it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from gemini_batch_mcp import __version__

_SCOPE: Final = "gemini-batch-mcp"


@contextmanager
def span(name: str, *, calls_gemini: bool = True, **attributes: str | int) -> Iterator[Span]:
    """Time what is done in the context. Attributes are named `gemini_batch.…`.

    An error is told by its kind alone: its sentence may name a file or a row.
    """
    tracer = trace.get_tracer(_SCOPE, __version__)
    named = {f"gemini_batch.{key}": value for key, value in attributes.items()}
    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT if calls_gemini else SpanKind.INTERNAL,
        attributes=named,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise
