"""The hosts that are known: where each keeps its MCP servers on each system, in which form, and how it names a key.

Sources: the hosts' own documentation and what was measured with them, as of 2026-11. Antigravity's file is the one that
its documentation names; whether it fills in variables is not documented, so the key is copied there, if at all.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Final, Literal

#: The name of our entry in every host.
ENTRY: Final = "gemini-batch"
#: The id of the input in which VS Code asks for the key, once, and keeps it encrypted.
KEY_INPUT: Final = "gemini-api-key"
#: How long Codex waits for the server to start, and for a call: ours end within 50 seconds.
_START_SECONDS: Final = 20
_CALL_SECONDS: Final = 120

System = Literal["linux", "macos", "windows"]


def this_system() -> System:
    """Return the system this runs on, as far as places of files go."""
    systems: dict[str, System] = {"darwin": "macos", "win32": "windows"}
    return systems.get(sys.platform, "linux")


@dataclass(frozen=True, slots=True)
class Launch:
    """What starts the server: the command with its arguments, and the variables that it gets besides the key."""

    command: str
    arguments: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `path` leads to our entry in its file; `reference` is how a variable is named there, "" for not at all.

    `reload` is what makes the host read its file again.
    """

    name: str
    title: str
    path: tuple[str, ...]
    reference: str
    reload: str

    def file(self, system: System, home: Path, env: Mapping[str, str]) -> Path:
        """Return where the host keeps its servers."""
        roaming = Path(env.get("APPDATA") or home / "AppData" / "Roaming")
        if self.name == "codex":
            return Path(env.get("CODEX_HOME") or home / ".codex") / "config.toml"
        if self.name == "claude-code" and env.get("CLAUDE_CONFIG_DIR"):
            return Path(env["CLAUDE_CONFIG_DIR"]) / _IN_HOME[self.name]
        if self.name in _IN_HOME:
            return home / _IN_HOME[self.name]
        inside = _IN_CONFIGURATION[self.name]
        if system == "macos":
            return home / "Library" / "Application Support" / inside
        if system == "windows":
            return roaming / PureWindowsPath(inside)
        return Path(env.get("XDG_CONFIG_HOME") or home / ".config") / inside

    @property
    def is_toml(self) -> bool:
        """Whether the file is TOML; the others are JSON, with comments allowed."""
        return self.name == "codex"

    @property
    def can_refer(self) -> bool:
        """Whether the entry can name the variable that holds the key, so that the key itself stands nowhere."""
        return bool(self.reference)

    def entry(self, launch: Launch, key_variable: str, copied_key: str = "") -> dict[str, Any]:
        """Return our entry, with the key by its variable where the host can, or copied where the user wants that."""
        variables = dict(launch.variables)
        entry: dict[str, Any] = {"command": launch.command, "args": list(launch.arguments)}
        if self.name in ("vscode", "claude-code"):
            entry = {"type": "stdio"} | entry
        if copied_key:
            variables[key_variable] = copied_key
        elif key_variable and self.can_refer and not self.is_toml:
            variables[key_variable] = self.reference.format(key_variable)
        if variables:
            entry["env"] = variables
        if self.is_toml:
            if key_variable and not copied_key:
                entry["env_vars"] = [key_variable]
            entry |= {"required": True, "startup_timeout_sec": _START_SECONDS, "tool_timeout_sec": _CALL_SECONDS}
        return entry


_IN_HOME: Final = {
    "claude-code": ".claude.json",
    "cursor": ".cursor/mcp.json",
    "gemini-cli": ".gemini/settings.json",
    "antigravity": ".gemini/antigravity/mcp_config.json",
}
_IN_CONFIGURATION: Final = {"claude-desktop": "Claude/claude_desktop_config.json", "vscode": "Code/User/mcp.json"}

HOSTS: Final = {
    host.name: host
    for host in (
        Host("claude-desktop", "Claude Desktop", ("mcpServers", ENTRY), "", "Quit Claude Desktop and start it again."),
        Host("claude-code", "Claude Code", ("mcpServers", ENTRY), "${{{}}}", "Start claude again; /mcp shows it."),
        Host(
            "vscode",
            "VS Code",
            ("servers", ENTRY),
            f"${{{{input:{KEY_INPUT}}}}}",
            "Run “MCP: List Servers” in VS Code and start it there.",
        ),
        Host("cursor", "Cursor", ("mcpServers", ENTRY), "${{env:{}}}", "Turn it on under Settings, Tools & MCP."),
        Host("codex", "Codex", ("mcp_servers", ENTRY), "env_vars", "Start codex again; /mcp shows it."),
        Host(
            "gemini-cli",
            "Gemini CLI",
            ("mcpServers", ENTRY),
            "${}",
            "Start gemini again in a folder that it trusts; /mcp shows it.",
        ),
        Host(
            "antigravity",
            "Antigravity",
            ("mcpServers", ENTRY),
            "",
            "Refresh the list of servers under Manage MCP Servers.",
        ),
    )
}
