"""What needs node: the JavaScript SDK, the tokenizer and the browser's driver in tests/js. Without them tests are
skipped, and say so."""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

JS = Path(__file__).parents[1] / "js"


def run_node(script: str, *arguments: str, text: str = "", timeout_seconds: float = 100) -> str:
    """Run a script of tests/js and return what it printed; a failure shows its stderr."""
    done = subprocess.run(
        [_node("gpt-tokenizer"), script, *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=JS,
        timeout=timeout_seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def count_tokens(text: str) -> int:
    """Count tokens of the vocabulary o200k_base."""
    return int(run_node("count_tokens.mjs", text=text))


def chromium() -> str:
    """Return the program of Debian's Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    _node("playwright-core")
    return browser


async def talk_to_node(
    script: str, *arguments: str, answer: Callable[[dict[str, Any]], Awaitable[Any]], timeout_seconds: float = 110
) -> Any:
    """Run a script of tests/js that asks, a line of JSON each with an `id`; returns its last line, which has none.

    What `answer` makes of a question goes back as `{"id", "result"}`. A failure shows the script's stderr.
    """
    command = [_node("esbuild", "@modelcontextprotocol/ext-apps"), script, *arguments]
    with tempfile.TemporaryFile() as errors, anyio.fail_after(timeout_seconds):
        async with (
            await anyio.open_process(command, cwd=JS, stderr=errors) as process,
            anyio.create_task_group() as tasks,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            asker, lock = process.stdin, anyio.Lock()

            async def reply(question: dict[str, Any]) -> None:
                line = json.dumps({"id": question["id"], "result": await answer(question)}).encode() + b"\n"
                async with lock:
                    await asker.send(line)

            lines, message = BufferedByteReceiveStream(process.stdout), {}
            with contextlib.suppress(anyio.IncompleteRead):
                while "id" in (message := json.loads(await lines.receive_until(b"\n", 1 << 24))):
                    tasks.start_soon(reply, message)
            await process.wait()
        errors.seek(0)
        assert process.returncode == 0, errors.read().decode()
        return message


def _node(*packages: str) -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    for package in packages:
        if not (JS / "node_modules" / package).is_dir():
            pytest.skip(f"tests/js/node_modules has no {package}: run npm install in tests/js")
    return node
