"""Standard output and error of this process: free of secrets, whoever writes there, and without tracebacks or paths."""

import contextlib
import io
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from gemini_batch_mcp.errors import StorageError
from gemini_batch_mcp.redaction import Secrets

logger = logging.getLogger(__name__)

#: A line that grows longer than this is passed on in pieces: a progress bar never ends one.
_LONGEST_LINE_CHARS: Final = 1 << 16


def clean_streams(secrets: Secrets) -> None:
    """Let nothing leave by standard output and error but what may be seen; logs and warnings come to lines of text."""
    # In the order of their numbers: what is opened in place of one that was closed gets the lowest that is free.
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - open until the process ends
    sys.stdout = _CleanStream(_fit(sys.stdout), secrets)
    sys.stderr = _CleanStream(_fit(sys.stderr), secrets, is_needed=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    warnings.showwarning = _log_warning
    threading.excepthook = _log_failure


def _fit(stream: TextIO | None) -> TextIO:
    """Return a stream that writes out what its encoding does not have; one that fails where it was closed."""
    if stream is None:
        # Its number must not go to a file of ours, into which everything written here would go then.
        stream = open(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor has no path; open until the end
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


class _CleanStream(io.TextIOBase):
    """A text stream that passes on what is written to it without secrets, a line at a time.

    The bytes under it are as they were: the protocol goes there, and its replies are clean. What cannot be written is
    an error, unless the stream is not needed: its words are lost then, and the work goes on.
    """

    def __init__(self, stream: TextIO, secrets: Secrets, *, is_needed: bool = True) -> None:
        super().__init__()
        self._is_needed = is_needed
        self._stream = stream
        self._secrets = secrets
        self._lock = threading.Lock()
        self._line = ""

    def write(self, text: str, /) -> int:
        """Write some text; the last line of it stays here until it ends, or until `flush`."""
        with self._lock:
            lines, newline, self._line = (self._line + text).rpartition("\n")
            if newline:
                self._write(self._secrets.cut(lines + newline))
            if len(self._line) > _LONGEST_LINE_CHARS:
                self._pass_on()
        return len(text)

    def flush(self) -> None:
        """Write what has come so far."""
        with self._lock:
            self._pass_on()
            with self._failing():
                self._stream.flush()

    def _pass_on(self) -> None:
        line, self._line = self._line, ""
        if line:
            self._write(self._secrets.cut(line))

    def _write(self, text: str) -> None:
        with self._failing():
            self._stream.write(text)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Whoever read it has seen enough, which click and rich take for the end.
            raise
        except OSError as error:
            if not self._is_needed:
                return
            # What is left of it is written again when the process ends, and Python would tell of that in its own words.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            reason = error.strerror or type(error).__name__
            raise StorageError(f"The output cannot be written: {reason}.") from None

    def isatty(self) -> bool:
        """Return whether a person sees it."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of its file."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def buffer(self) -> Any:
        """The bytes under it."""
        return self._stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute that can be set, there
        """How text becomes bytes."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        """What becomes of text that cannot become bytes."""
        return self._stream.errors


class _Lines(logging.Formatter):
    """Says of an exception what it is and where it came up in words; its text and its traceback may hold anything."""

    def __init__(self) -> None:
        super().__init__("%(message)s")

    def formatException(self, ei: Any) -> str:
        """Return the kind of an exception and the function that it came from."""
        return f"({_place(ei[1])})"

    def formatStack(self, stack_info: str) -> str:
        """Return nothing of a stack."""
        return ""


def _place(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    where = f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _log_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Without the file that it comes from: a path of the installation.
    logger.warning("%s: %s", category.__name__, message)


def _log_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit:
        logger.error("A thread ended with an unexpected %s", _place(failure.exc_value))
