"""The Inspector's command line: a process for each call, over stdio or HTTP, in the era that is the last argument.

Over stdio each call has a server of its own: what one has ordered, the next finds.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clients.ground import Ground, converse


async def main(wire: str, era: str) -> None:
    """Have the conversation; then the checks of its own: schemas that every host takes, and the dashboard's."""
    ground = Ground.given()
    program = Path(ground.packages, "@modelcontextprotocol/inspector/clients/launcher/build/index.js")

    def inspect(*arguments: str) -> dict[str, Any]:
        options = [*arguments, "--protocol-era", era]
        command = [ground.node, str(program), "--cli"]
        if wire == "http":
            command += ["--server-url", ground.url, "--transport", "http", *options]
        else:
            words = [word for name, value in ground.env.items() for word in ("-e", f"{name}={value}")]
            command += [*words, "--cwd", ground.cwd, *options, "--", ground.command, *ground.args]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ground.cwd, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    async def call(tool: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
        given = ("--tool-args-json", json.dumps(arguments))
        result = inspect("--method", "tools/call", "--tool-name", tool, *given)
        assert not result.get("isError"), result
        return dict(result["structuredContent"])

    offered = [tool["name"] for tool in inspect("--method", "tools/list", "--strict")["tools"]]
    await converse(ground, offered, call)
    app = inspect("--method", "tools/call", "--tool-name", "check_status", "--app-info")
    assert "ui://" in json.dumps(app), app


asyncio.run(main(*sys.argv[2:4]))
