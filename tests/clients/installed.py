"""What `install` writes, and what is packed for two of them, listed and started by the hosts themselves.

Claude Code, Codex and Gemini CLI, each in an empty home directory: first with the entries, then with plugin and
extension alone. Codex lists its servers without starting them; `codex.py` has it start one.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from clients.ground import SERVER, Ground

_MANIFESTS: Final = Path(__file__).resolve().parents[2] / "manifests"
_KEY: Final = "AIzaNobodysKey-0123456789"
_HOSTS: Final = ("claude-code", "codex", "gemini-cli")


class Machine:
    """A person's machine with nothing on it but the hosts and our program."""

    def __init__(self, ground: Ground, home: Path) -> None:
        self.home = home
        self.programs = Path(ground.packages, ".bin")
        self.ours = Path(ground.command).with_name("gemini-batch-mcp")
        self._cwd = ground.cwd
        self._env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(Path(ground.node).parent), str(self.ours.parent), os.environ["PATH"]]),
            "GEMINI_API_KEY": _KEY,
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        # Gemini CLI starts nothing in a folder that the person has not called trusted, and installs nothing from one.
        folder = home / ".gemini"
        folder.mkdir(parents=True)
        trusted = {str(path): "TRUST_FOLDER" for path in (self._cwd, home / "plugin")}
        (folder / "trustedFolders.json").write_text(json.dumps(trusted), encoding="utf-8")

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of npm's, or ours; returns all that it says: Gemini CLI lists its servers among its errors."""
        path = self.ours if program == self.ours.name else self.programs / program
        done = subprocess.run(
            [str(path), *arguments],
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(done.stdout)  # noqa: T201
        assert done.returncode == 0, (program, *arguments)
        return done.stdout


def main() -> None:
    """Install for each, ask each; then the same with what is packed."""
    ground = Ground.given()
    person = Path(os.environ["HOME"])
    machine = Machine(ground, person / "with entries")
    for host in _HOSTS:
        said = machine.run("gemini-batch-mcp", "install", host, "--root", ground.cwd)
        assert f"offers {len(ground.tools)} tools" in said
    assert f"{SERVER}: {machine.ours}  - ✔ Connected" in machine.run("claude", "mcp", "list")
    assert f"✓ {SERVER}: {machine.ours}  (stdio) - Connected" in machine.run("gemini", "mcp", "list")
    listed = machine.run("codex", "mcp", "list", "--json")
    (server,) = json.loads(listed[listed.index("[\n") :])
    assert (server["name"], server["enabled"]) == (SERVER, True)
    assert (server["transport"]["command"], server["transport"]["env_vars"]) == (str(machine.ours), ["GEMINI_API_KEY"])
    for host in _HOSTS:
        machine.run("gemini-batch-mcp", "install", host, "--undo")
    for host in ("claude", "codex", "gemini"):
        assert "No MCP servers configured" in machine.run(host, "mcp", "list")

    machine = Machine(ground, person / "with what is packed")
    machine.run("claude", "plugin", "marketplace", "add", str(_MANIFESTS))
    machine.run("claude", "plugin", "install", f"{SERVER}@gemini-batch-mcp")
    assert f"plugin:{SERVER}:{SERVER}: gemini-batch-mcp  - ✔ Connected" in machine.run("claude", "mcp", "list")
    shutil.copytree(_MANIFESTS / "plugin", machine.home / "plugin")
    extension = str(machine.home / "plugin")
    machine.run("gemini", "extensions", "install", extension, "--consent", "--skip-settings")
    said = machine.run("gemini", "mcp", "list")
    assert f"✓ {SERVER} (from {SERVER}): gemini-batch-mcp  (stdio) - Connected" in said


main()
