"""Codex without a person, and a scripted model in the words of OpenAI's Responses API."""

import json
import os
import subprocess
import sys
from pathlib import Path

from clients.ground import SERVER, Ground
from clients.scripted import LAST_WORDS, ScriptedModel, serving


def main() -> None:
    """Have the conversation."""
    ground = Ground.given()
    model = ScriptedModel(ground)
    folder = Path(os.environ["HOME"], ".codex")
    folder.mkdir()
    with serving(model) as url:
        environment = ", ".join(f"{name} = {json.dumps(value)}" for name, value in ground.env.items())
        # `required`: the tools are in the first request.
        (folder / "config.toml").write_text(
            f"""
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.scripted]
name = "scripted"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "SCRIPTED_KEY"

[mcp_servers.{SERVER}]
command = {json.dumps(ground.command)}
args = {json.dumps(ground.args)}
cwd = {json.dumps(ground.cwd)}
env = {{ {environment} }}
startup_timeout_sec = 60
tool_timeout_sec = 60
required = true
default_tools_approval_mode = "approve"
""",
            encoding="utf-8",
        )
        done = subprocess.run(
            [
                ground.node,
                str(Path(ground.packages, ".bin", "codex")),
                "exec",
                "--skip-git-repo-check",
                "Process them.",
            ],
            cwd=ground.cwd,
            env={**os.environ, "SCRIPTED_KEY": "not-a-key", "CODEX_HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    sys.stdout.write(done.stdout + done.stderr)
    model.assert_ended()
    assert LAST_WORDS in done.stdout


main()
