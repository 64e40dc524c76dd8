"""What each host is given: bundle, plugins, extension, and the lines of a configuration by hand.

One entry for all of them (`gemini_batch_mcp.cli.hosts.known` says each host's form), one place that says how
the package is got, one version. `generate.py` writes the files.
"""

import base64
import json
from importlib.metadata import metadata
from typing import Any, Final
from urllib.parse import quote

import tomlkit
from mcp_types import Tool

from gemini_batch_mcp import __version__
from gemini_batch_mcp.cli.hosts.known import ENTRY, HOSTS, Launch

PACKAGE: Final = "gemini-batch-mcp"
REPOSITORY: Final = "https://github.com/gemini-batch-mcp/gemini-batch-mcp"
AUTHOR: Final = "gemini-batch-mcp contributors"
#: The switch: once the package is on PyPI, every entry gets it from there by itself. Until then it has to be installed
#: from a checkout or a wheel (`uv tool install .`), and entries name the command that this puts on the PATH.
PUBLISHED: Final = False
KEY: Final = "GEMINI_API_KEY"
#: The one icon, which reports have in their tab, by its place in the repository; and what the bundle has of it.
ICON: Final = "server/gemini_batch_mcp/results/report/icon.svg"
BUNDLE_ICON: Final = "icon.png"
#: What Claude Code and MCPB ask the user for, by the names under which their files use it.
_API_KEY: Final = {
    "type": "string",
    "title": "Gemini API key",
    "description": "From Google AI Studio. Batches need a project with billing.",
    "sensitive": True,
}
_DIRECTORY: Final = {
    "type": "directory",
    "title": "Directory",
    "description": "The one directory where data is read and results are written.",
}


def launch(*arguments: str, **variables: str) -> Launch:
    """Return what starts the server, wherever it is got from."""
    command, first = ("uvx", (f"{PACKAGE}=={__version__}",)) if PUBLISHED else (PACKAGE, ())
    return Launch(command, (*first, *arguments), tuple(variables.items()))


def summary() -> str:
    """Return the package's one line."""
    return str(metadata(PACKAGE)["Summary"])


def first_sentence(tool: Tool) -> str:
    """Return what a tool does, in one sentence."""
    return (tool.description or "").split(". ")[0].rstrip(".") + "."


def mcpb_manifest(tools: list[Tool]) -> dict[str, Any]:
    """Return the MCPB manifest (version 0.4). Type `uv`: compiled wheels cannot travel inside a bundle portably.

    `make bundle` packs it with the wheel and its pinned requirements; nothing is resolved where it is installed.
    """
    return {
        "manifest_version": "0.4",
        "name": PACKAGE,
        "display_name": "Gemini Batch",
        "version": __version__,
        "description": summary(),
        "author": {"name": AUTHOR, "url": REPOSITORY},
        "repository": {"type": "git", "url": REPOSITORY},
        "license": "Apache-2.0",
        "icon": BUNDLE_ICON,
        "keywords": ["gemini", "batch", "jsonl"],
        "privacy_policies": [f"{REPOSITORY}/blob/main/PRIVACY.md"],
        "server": {
            "type": "uv",
            "entry_point": "serve.py",
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--no-project", "--python", ">=3.11", "${__dirname}/serve.py"],
                "env": {
                    KEY: "${user_config.api_key}",
                    "GEMINI_BATCH_ROOTS": "${user_config.directory}",
                    "GEMINI_BATCH_SANDBOX": "${user_config.sandbox}",
                },
            },
        },
        "tools": [{"name": tool.name, "description": first_sentence(tool)} for tool in tools],
        "user_config": {
            "api_key": {**_API_KEY, "required": False},
            "directory": {**_DIRECTORY, "required": True},
            "sandbox": {
                "type": "boolean",
                "title": "Sandbox",
                "description": "Try it without a key and without cost; the answers are made up.",
                "required": False,
                "default": False,
            },
        },
        "compatibility": {"platforms": ["darwin", "win32", "linux"], "runtimes": {"python": ">=3.11"}},
    }


def claude_plugin() -> dict[str, Any]:
    """Return `.claude-plugin/plugin.json`; the server and the skill stand beside it."""
    return {
        "name": ENTRY,
        "version": __version__,
        "description": summary(),
        "author": {"name": AUTHOR},
        "homepage": REPOSITORY,
        "license": "Apache-2.0",
        "keywords": ["gemini", "batch", "mcp"],
        "userConfig": {"api_key": _API_KEY},
    }


def claude_servers() -> dict[str, Any]:
    """Return `.mcp.json` of the Claude Code plugin."""
    entry = HOSTS["claude-code"].entry(launch(), KEY)
    return {"mcpServers": {ENTRY: entry | {"env": {KEY: "${user_config.api_key}"}}}}


def claude_marketplace() -> dict[str, Any]:
    """Return `.claude-plugin/marketplace.json`, which lists the plugin of this repository."""
    return {
        "name": PACKAGE,
        "owner": {"name": AUTHOR},
        "metadata": {"description": summary(), "version": __version__},
        "plugins": [{"name": ENTRY, "source": "./plugin", "description": summary(), "version": __version__}],
    }


def agent_plugin() -> dict[str, Any]:
    """Return `plugin.json` of Agent Plugins 1.0, which VS Code, Cursor, Codex and others read."""
    return {
        "$schema": "https://agent-plugins.org/schemas/1.0.0/plugin.schema.json",
        "name": ENTRY,
        "version": __version__,
        "description": summary(),
        "license": "Apache-2.0",
        "repository": REPOSITORY,
    }


def agent_servers() -> dict[str, Any]:
    """Return `mcp.json` of Agent Plugins 1.0: the key comes from the host's environment."""
    started = launch()
    return {"mcpServers": {ENTRY: {"type": "stdio", "command": started.command, "args": list(started.arguments)}}}


def gemini_extension() -> dict[str, Any]:
    """Return `gemini-extension.json`, which Gemini CLI and Antigravity read."""
    return {
        "name": ENTRY,
        "version": __version__,
        "description": summary(),
        "mcpServers": {ENTRY: HOSTS["gemini-cli"].entry(launch(), KEY)},
        "contextFileName": "skills/gemini-batch/SKILL.md",
        "settings": [
            {"name": "Gemini API key", "description": _API_KEY["description"], "envVar": KEY, "sensitive": True}
        ],
    }


def by_hand(host: str) -> str:
    """Return the lines that a person puts into a host's file, with a directory of theirs to fill in."""
    known = HOSTS[host]
    entry = known.entry(launch(GEMINI_BATCH_ROOTS="/path/to/your/data"), KEY)
    if known.is_toml:
        return tomlkit.dumps({known.path[0]: {ENTRY: entry}}).strip()
    if not known.can_refer:
        entry["env"] = {KEY: "...", **entry["env"]}
    content: dict[str, Any] = {known.path[0]: {ENTRY: entry}}
    return json.dumps(content, indent=2, ensure_ascii=False)


def docker_catalog() -> dict[str, Any]:
    """Return `servers/gemini-batch/server.yaml` of Docker's MCP registry, which builds the image from our Dockerfile.

    A person adds `source.commit` when it is handed in: what is pinned is what has been pushed by then.
    """
    return {
        "name": ENTRY,
        "image": f"mcp/{ENTRY}",
        "type": "server",
        "meta": {"category": "ai", "tags": ["ai", "gemini", "batch"]},
        "about": {"title": "Gemini Batch", "description": summary()},
        "source": {"project": REPOSITORY},
        "run": {
            "volumes": [f"{{{{{ENTRY}.directory}}}}:/data", f"{ENTRY}-state:/state"],
            "allowHosts": ["generativelanguage.googleapis.com:443"],
        },
        "config": {
            "description": "The key for Gemini, and the one directory where data is read and results are written.",
            "secrets": [{"name": f"{ENTRY}.api_key", "env": KEY, "example": "YOUR_GEMINI_API_KEY"}],
            "env": [
                {"name": "GEMINI_BATCH_SANDBOX", "example": "1", "value": f"{{{{{ENTRY}.sandbox}}}}"},
                {"name": "GEMINI_BATCH_MAX_COST_USD", "example": "5", "value": f"{{{{{ENTRY}.max_cost_usd}}}}"},
            ],
            "parameters": {
                "type": "object",
                "properties": {
                    "directory": {"type": "string"},
                    "sandbox": {"type": "string", "default": "0"},
                    "max_cost_usd": {"type": "string"},
                },
                "required": ["directory"],
            },
        },
    }


def vscode_link() -> str:
    """Return the address that installs it in VS Code at a click."""
    config = json.dumps(HOSTS["vscode"].entry(launch(), KEY), separators=(",", ":"))
    return f"https://insiders.vscode.dev/redirect/mcp/install?name={ENTRY}&config={quote(config)}"


def cursor_link() -> str:
    """Return the address that installs it in Cursor at a click."""
    config = json.dumps(HOSTS["cursor"].entry(launch(), KEY), separators=(",", ":"))
    encoded = base64.b64encode(config.encode()).decode()
    return f"cursor://anysphere.cursor-deeplink/mcp/install?name={ENTRY}&config={quote(encoded)}"
