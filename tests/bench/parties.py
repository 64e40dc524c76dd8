"""Who takes part in a measurement: the service, our server, the plain way, each a process of its own; and a figure."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

HERE: Final = Path(__file__).parent
MODEL: Final = "gemini-3-flash-preview"
MEGABYTE: Final = 1000**2


@dataclass(frozen=True)
class Figure:
    """One measured figure and the bound it is held to. `bound` is an upper one."""

    name: str
    value: float
    bound: float
    unit: str
    detail: str

    @property
    def met(self) -> bool:
        return self.value <= self.bound


def write_requests(path: Path, megabytes: int, rows: int) -> None:
    """Write `rows` plain text requests that fill about `megabytes`; the answers come out about as long."""
    size = max(200, megabytes * MEGABYTE // rows)
    answer = f"[[sandbox:chars:{max(50, size - 450)}]]"
    frame = '{{"key":"row-{0:08d}","request":{{"contents":[{{"role":"user","parts":[{{"text":"{1}{2}"}}]}}]}}}}\n'
    padding = size - len(frame.format(0, answer, ""))
    words = ("classify this review of a kettle that boils fast and stays cool " * (padding // 60 + 1))[
        : max(0, padding)
    ]
    with path.open("w", encoding="utf-8", buffering=MEGABYTE) as file:
        for number in range(rows):
            file.write(frame.format(number, answer, words))


@contextmanager
def service(directory: Path, *, seconds_per_job: int) -> Iterator[str]:
    """Run the sandbox on a port; yields its address."""
    command = [
        sys.executable,
        "-m",
        "gemini_batch_mcp",
        "sandbox",
        "--port",
        "0",
        "--seconds-per-job",
        str(seconds_per_job),
    ]
    process = subprocess.Popen(
        [*command, "--directory", str(directory)], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split()[-1].strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def plain(what: str, base_url: str, argument: str) -> dict[str, Any]:
    """Run the plain way in a process of its own."""
    command = [sys.executable, str(HERE / "plain.py"), what, base_url, argument, MODEL]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@asynccontextmanager
async def our_server(base_url: str, home: Path, root: Path) -> AsyncIterator[Client]:
    """Run our server as a client does, on stdio."""
    env = {
        "GEMINI_API_KEY": "bench",
        "GOOGLE_GEMINI_BASE_URL": base_url,
        "GEMINI_BATCH_HOME": str(home),
        "GEMINI_BATCH_ROOTS": str(root),
        "GEMINI_BATCH_POLL_SECONDS": "0.05",
        # Nobody is here to be asked.
        "GEMINI_BATCH_CONFIRM_ABOVE_USD": "1000000",
    }
    server = StdioServerParameters(command=sys.executable, args=["-m", "gemini_batch_mcp"], env=env)
    async with Client(stdio_client(server), mode="legacy") as client:
        yield client


def peak_bytes() -> int:
    """Return the highest resident size so far of our server, the one child that is not the service."""
    children = [child for child in psutil.Process().children() if child.cmdline()[1:] == ["-m", "gemini_batch_mcp"]]
    statuses = [Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines() for child in children]
    return max(int(row.split()[1]) * 1024 for status in statuses for row in status if row.startswith("VmHWM"))


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error and result.structured_content is not None, result.content
    return dict(result.structured_content)


def plain_peak(peaks: list[int]) -> str:
    """Say how much memory the plain way took."""
    return f"plain: {max(peaks) / MEGABYTE:.0f} MB"
