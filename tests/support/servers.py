"""A server as a process, spoken to line by line, and whatever processes it starts: what a host sees, and a system."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from support.conversation import process_env

#: The server stops for good where it renames a part of a table into place, and says so; see `stalled_server`.
STALL = "GEMINI_TEST_STALL"
#: Far more than a process for queries uses before it can be asked: 0.2, and several times that on a slow machine.
_START_SECONDS: Final = 3.0
_STALLED_SERVER = Path(__file__).parents[1] / "cli" / "stalled_server.py"
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


class ServerProcess:
    """A server on standard input and output, after its handshake where the era has one."""

    def __init__(self, process: "subprocess.Popen[bytes]", era: str) -> None:
        self.process = process
        self.era = era
        self.errors = b""
        #: Each line of its output so far.
        self.output: list[bytes] = []
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ids = iter(range(1_000_000, 2_000_000))
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        if era == "legacy":
            client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            self.ask("initialize", client)
            self.tell("notifications/initialized", {})

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def tell(self, method: str, params: Mapping[str, Any]) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def begin(self, method: str, params: Mapping[str, Any]) -> int:
        """Send a request; returns its id."""
        number = next(self._ids)
        meta = {"_meta": MODERN_META} if self.era == "auto" else {}
        self.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, **meta}}).encode())
        return number

    def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        number = self.begin(method, params)
        while (answer := self.next()).get("id") != number:
            pass
        return answer

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed."""
        answer = self.ask("tools/call", {"name": tool, "arguments": arguments})
        assert not answer["result"].get("isError"), answer
        return dict(answer["result"]["structuredContent"])

    def next(self, seconds: float = 60.0) -> dict[str, Any]:
        """Return the next message of the server."""
        return dict(json.loads(self._lines.get(timeout=seconds)))

    @property
    def family(self) -> frozenset[int]:
        """This process and all that it has started, as Linux lists them."""
        return frozenset(_family(self.process.pid))

    def busy_child(self) -> int:
        """Wait until a process that it started has used the processor for longer than a start takes, and return it."""
        busy: list[int] = []

        def is_busy() -> bool:
            busy[:] = [pid for pid in self.family - {self.process.pid} if _busy_seconds(pid) > _START_SECONDS]
            return bool(busy)

        eventually(is_busy)
        return busy[0]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def ended(self) -> int:
        """Wait until it has ended by itself and all that it said is here; returns its code."""
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join(10)
        return code

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


@contextmanager
def server_process(
    home: Path, cwd: Path, env: Mapping[str, str], *arguments: str, era: str = "legacy"
) -> Iterator[ServerProcess]:
    """Run a server while the block runs."""
    program = [str(_STALLED_SERVER)] if STALL in env else ["-m", "gemini_batch_mcp"]
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=process_env(GEMINI_BATCH_HOME=str(home), GEMINI_BATCH_POLL_SECONDS="0.1", **env),
    )
    server = ServerProcess(process, era)
    try:
        yield server
    finally:
        server.close()


def eventually(is_so: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait until something is so; returns how long that took."""
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < seconds, "It never came to be."
        time.sleep(0.01)
    return time.monotonic() - begun


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="ascii").split():
                yield from _family(int(child))


def _busy_seconds(pid: int) -> float:
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def used_seconds(pid: int) -> float:
    """Return what a process and those that it has waited for have used; 0 when it is gone."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on; a name may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
