"""Claude Code without a person, and a scripted model in the words of Anthropic's API."""

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
    servers = {SERVER: {"type": "stdio", "command": ground.command, "args": ground.args, "env": ground.env}}
    configuration = Path(os.environ["HOME"], "mcp.json")
    configuration.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    command = [str(Path(ground.packages, ".bin", "claude")), "--print", "Process the reviews."]
    command += ["--mcp-config", str(configuration), "--strict-mcp-config", "--allowedTools", f"mcp__{SERVER}"]
    with serving(model) as url:
        done = subprocess.run(
            [*command, "--output-format", "json"],
            cwd=ground.cwd,
            env={
                **os.environ,
                "ANTHROPIC_BASE_URL": url,
                "ANTHROPIC_API_KEY": "not-a-key",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
                # All tools are in the first request, not found by a search.
                "ENABLE_TOOL_SEARCH": "false",
                "MCP_TIMEOUT": "60000",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    sys.stdout.write(done.stdout + done.stderr)
    model.assert_ended()
    assert json.loads(done.stdout)["result"] == LAST_WORDS


main()
