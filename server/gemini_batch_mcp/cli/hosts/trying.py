"""The configured command started as its host starts it, and its tools listed: what is in the file is what is tried."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, get_default_environment, stdio_client

from gemini_batch_mcp.text import safe_text

#: How long hosts wait for a server to start, at the least.
_SECONDS: Final = 30
#: How much of what a server says as it fails is shown.
_SHOWN_CHARS: Final = 600
#: How hosts refer to a variable: what stands before its name, and after it. An input of VS Code has no variable.
_REFERENCES: Final = (("${env:", "}"), ("${input:", "}"), ("${", "}"), ("$", ""))


@dataclass(frozen=True, slots=True)
class Trial:
    """How the start went: how many tools the server offers, or why it offers none."""

    tools: int
    failure: str = ""


async def start(entry: Mapping[str, Any], env: Mapping[str, str]) -> Trial:
    """Start what an entry says, with the few variables that hosts pass on and its own, and list the tools.

    `env` is where variables that the entry refers to are looked up.
    """
    command = str(entry.get("command", ""))
    if shutil.which(command) is None:
        return Trial(0, f"{command} is not there, or cannot be run")
    variables, handed_on = entry.get("env"), entry.get("env_vars")
    given: dict[str, str] = {}
    if isinstance(variables, Mapping):
        given |= {name: _filled_in(str(value), env) for name, value in variables.items()}
    if isinstance(handed_on, list):
        given |= {name: env[name] for name in handed_on if isinstance(name, str) and name in env}
    server = StdioServerParameters(
        command=command,
        args=[str(argument) for argument in entry.get("args", ())],
        env=get_default_environment() | {name: value for name, value in given.items() if value},
        cwd=str(Path.home()),
    )
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        try:
            with anyio.fail_after(_SECONDS):
                async with Client(stdio_client(server, errlog=said), mode="legacy") as client:
                    return Trial(len((await client.list_tools()).tools))
        except TimeoutError:
            return Trial(0, f"it did not answer within {_SECONDS} seconds")
        except Exception:
            # Whatever a command does that is not a server of MCP: what it has said is what helps.
            said.seek(0)
            return Trial(
                0, safe_text(said.read().strip()[-_SHOWN_CHARS:], _SHOWN_CHARS) or "it ended without an answer"
            )


def _filled_in(value: str, env: Mapping[str, str]) -> str:
    """Return a value with the variable filled in that it refers to, as hosts do; "" where nothing is set."""
    for before, after in _REFERENCES:
        if value.startswith(before) and value.endswith(after):
            return env.get(value[len(before) : len(value) - len(after)], "")
    return value
