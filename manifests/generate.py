"""Writes what hosts read about this server, from the package itself: manifests, plugins, tables of README and guide.

And what the server itself reads when it starts: `definitions.json`, the tools as clients are told of them.

`python manifests/generate.py` writes; `--check` fails and names the files that are not as they would be written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import hosts
import yaml
from mcp_types import Tool

from gemini_batch_mcp import __version__
from gemini_batch_mcp.assistant.definitions import DEFINITIONS_FILE, made_definitions, written
from gemini_batch_mcp.cli.hosts.known import HOSTS
from gemini_batch_mcp.settings import LIMITS, SETTINGS, Setting

ROOT: Final = Path(__file__).resolve().parent.parent
#: The registry's name of this server; README.md carries it as `mcp-name:` so that the registry trusts the package.
REGISTRY_NAME: Final = "io.github.gemini-batch-mcp/gemini-batch-mcp"
SERVER_SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
#: The registry's limit for a description.
_MAX_DESCRIPTION_CHARS: Final = 100


def server_json() -> dict[str, Any]:
    """Return the MCP Registry entry (schema of 2025-12-11)."""
    summary = hosts.summary()
    assert len(summary) <= _MAX_DESCRIPTION_CHARS, summary
    return {
        "$schema": SERVER_SCHEMA,
        "name": REGISTRY_NAME,
        "title": "Gemini Batch",
        "description": summary,
        "version": __version__,
        "repository": {"url": hosts.REPOSITORY, "source": "github"},
        "icons": [{"src": f"{hosts.REPOSITORY}/raw/main/{hosts.ICON}", "mimeType": "image/svg+xml", "sizes": ["any"]}],
        "packages": [
            {
                "registryType": "pypi",
                "identifier": hosts.PACKAGE,
                "version": __version__,
                "runtimeHint": "uvx",
                "transport": {"type": "stdio"},
                "environmentVariables": [_registry_variable(setting) for setting in SETTINGS],
            }
        ],
    }


def _registry_variable(setting: Setting) -> dict[str, Any]:
    variable: dict[str, Any] = {
        "name": setting.name,
        "description": setting.description,
        "isRequired": False,
        "format": setting.format,
    }
    if setting.is_secret:
        variable["isSecret"] = True
    elif setting.default and " " not in setting.default and setting.default != "Google's":
        variable["default"] = setting.default
    return variable


def tools_table(tools: list[Tool]) -> str:
    """Return the README's table of tools."""
    rows = [f"| `{tool.name}` | {hosts.first_sentence(tool)} |" for tool in tools]
    return "\n".join(["| tool | what it does |", "| --- | --- |", *rows])


def settings_table() -> str:
    """Return the README's table of settings."""
    rows = [f"| `{setting.name}` | {setting.description} | {setting.default or '-'} |" for setting in SETTINGS]
    return "\n".join(["| variable | meaning | default |", "| --- | --- | --- |", *rows])


def limits_table() -> str:
    """Return the guide's table of limits."""
    rows = [f"| {limit.subject} | {limit.amount} | {limit.said} |" for limit in LIMITS]
    return "\n".join(["| what | how much | what is said beyond |", "| --- | --- | --- |", *rows])


def hosts_section() -> str:
    """Return the README's other ways into hosts: a click, or lines put into a file by hand."""
    blocks = [
        f"{HOSTS[name].title}:\n\n```{form}\n{hosts.by_hand(name)}\n```"
        for name, form in (("claude-desktop", "json"), ("codex", "toml"))
    ]
    return "\n\n".join(
        [
            f"At a click: [VS Code]({hosts.vscode_link()}), [Cursor]({hosts.cursor_link()}).",
            "<details><summary>By hand</summary>",
            *blocks,
            "</details>",
        ]
    )


def _between(text: str, name: str, content: str, file: str = "README.md") -> str:
    start, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    head, found, rest = text.partition(start)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        sys.exit(f"{file} has no markers for {name}: {start} … {end}")
    return f"{head}{start}\n{content}\n{end}{tail}"


def generated() -> dict[Path, str]:
    """Return every generated file with its content."""
    tools = made_definitions()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if f"mcp-name: {REGISTRY_NAME}" not in readme:
        sys.exit(f"README.md must hold the line mcp-name: {REGISTRY_NAME}")
    readme = _between(_between(readme, "tools", tools_table(tools)), "settings", settings_table())
    readme = _between(readme, "hosts", hosts_section())
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    files: dict[str, dict[str, Any]] = {
        "server.json": server_json(),
        "manifest.json": hosts.mcpb_manifest(tools),
        ".claude-plugin/marketplace.json": hosts.claude_marketplace(),
        "plugin/.claude-plugin/plugin.json": hosts.claude_plugin(),
        "plugin/.mcp.json": hosts.claude_servers(),
        "plugin/plugin.json": hosts.agent_plugin(),
        "plugin/mcp.json": hosts.agent_servers(),
        "plugin/gemini-extension.json": hosts.gemini_extension(),
    }
    return {
        ROOT / "server" / "gemini_batch_mcp" / "assistant" / DEFINITIONS_FILE: written(tools),
        **{
            ROOT / "manifests" / name: json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            for name, content in files.items()
        },
        ROOT / "manifests" / "docker" / "server.yaml": yaml.safe_dump(
            hosts.docker_catalog(), sort_keys=False, width=120
        ),
        ROOT / "README.md": readme,
        ROOT / "docs" / "guide.md": _between(guide, "limits", limits_table(), "docs/guide.md"),
    }


def main() -> None:
    """Write the files, or with --check only compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a file is not up to date")
    check = parser.parse_args().check
    stale = []
    for path, content in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="utf-8")
    if check and stale:
        names = ", ".join(str(path) for path in stale)
        sys.exit(f"Not up to date: {names}. Run: make manifests")


if __name__ == "__main__":
    main()
