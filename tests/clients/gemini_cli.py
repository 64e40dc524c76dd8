"""Gemini CLI without a person, and a scripted model that sets `wait_for_previous`, as this host tells models to."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clients.ground import SERVER, Call, Ground
from clients.scripted import LAST_WORDS, ScriptedModel, serving


def waiting(call: Call, schema: dict[str, Any]) -> dict[str, Any]:
    """Add what the host has added to the schema of every tool."""
    assert "wait_for_previous" in schema["properties"], schema
    return {**call.arguments, "wait_for_previous": True}


def main() -> None:
    """Have the conversation."""
    ground = Ground.given()
    model = ScriptedModel(ground, waiting)
    folder = Path(os.environ["HOME"], ".gemini")
    folder.mkdir()
    server = {"command": ground.command, "args": ground.args, "env": ground.env, "cwd": ground.cwd, "trust": True}
    settings = {
        "mcpServers": {SERVER: server},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"disableAutoUpdate": True, "disableUpdateNag": True, "enableAutoUpdate": False},
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    program = Path(ground.packages, ".bin", "gemini")
    command = [ground.node, str(program), "--prompt", "Process the reviews.", "--model", "gemini-3-flash-preview"]
    with serving(model) as url:
        done = subprocess.run(
            [*command, "--approval-mode", "yolo", "--output-format", "json", "--skip-trust"],
            cwd=ground.cwd,
            env={**os.environ, "GEMINI_API_KEY": "not-a-key", "GOOGLE_GEMINI_BASE_URL": url},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    sys.stdout.write(done.stdout + done.stderr)
    model.assert_ended()
    assert LAST_WORDS in done.stdout


main()
