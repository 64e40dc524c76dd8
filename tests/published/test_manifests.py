"""What hosts read: written by the package itself, right by each host's own schema, one version everywhere."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import skillsaw

from gemini_batch_mcp import __version__
from gemini_batch_mcp.assistant.definitions import DEFINITIONS_FILE
from gemini_batch_mcp.assistant.tools import TOOLS
from gemini_batch_mcp.settings import SETTINGS

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
#: What a host puts into a bundle's settings, by the name under which it asked the user.
_FILLED_IN = re.compile(r"\$\{user_config\.(\w+)\}")


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((MANIFESTS / name).read_text(encoding="utf-8"))
    return content


def test_generated_files_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(MANIFESTS / "generate.py"), "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_check_names_a_file_that_is_not_up_to_date(tmp_path: Path) -> None:
    """On a copy, so that nothing here is touched."""
    definitions = f"server/gemini_batch_mcp/assistant/{DEFINITIONS_FILE}"
    shutil.copytree(MANIFESTS, tmp_path / "manifests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "docs/guide.md", definitions):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "manifests" / "server.json").write_text("{}", encoding="utf-8")
    (tmp_path / definitions).write_text("[]", encoding="utf-8")
    command = [sys.executable, str(tmp_path / "manifests" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.strip() == f"Not up to date: {definitions}, manifests/server.json. Run: make manifests"


def test_the_hosts_linter_finds_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skillsaw", "lint", str(MANIFESTS)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_server_json_fits_the_registrys_schema() -> None:
    schemas = list(Path(skillsaw.__file__).parent.rglob("*2025*12*11*/server.schema.json"))
    assert schemas, "skillsaw no longer brings the registry's schema"
    schema = json.loads(schemas[0].read_text(encoding="utf-8"))
    jsonschema.validate(_read("server.json"), schema)


def test_one_version_everywhere() -> None:
    server = _read("server.json")
    plugins = (".claude-plugin/plugin.json", "plugin.json", "gemini-extension.json")
    versions = {_read("manifest.json")["version"], *(_read(f"plugin/{name}")["version"] for name in plugins)}
    assert {server["version"], server["packages"][0]["version"], *versions} == {__version__}


def test_the_readme_carries_the_registrys_name() -> None:
    assert f"mcp-name: {_read('server.json')['name']} " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_secret_has_a_default() -> None:
    variables = _read("server.json")["packages"][0]["environmentVariables"]
    secret = {variable["name"]: variable for variable in variables if variable.get("isSecret")}
    assert secret.keys() == {"GEMINI_API_KEY", "GOOGLE_API_KEY", "GEMINI_BATCH_HTTP_TOKEN"}
    for variable in secret.values():
        assert variable.keys() & {"default", "value"} == set()


def test_the_bundle_has_what_its_format_requires() -> None:
    manifest = _read("manifest.json")
    assert all(manifest[key] for key in ("manifest_version", "name", "version", "description", "author", "server"))
    assert manifest["server"]["mcp_config"]["command"] == "uv"
    assert (MANIFESTS / manifest["server"]["entry_point"]).is_file()
    assert {tool["name"] for tool in manifest["tools"]} == {spec.function.__name__ for spec in TOOLS}


def test_the_bundle_asks_the_user_for_what_it_hands_to_the_server() -> None:
    manifest = _read("manifest.json")
    handed = {name for value in manifest["server"]["mcp_config"]["env"].values() for name in _FILLED_IN.findall(value)}
    assert handed == manifest["user_config"].keys()
    # Nothing is read before the user has chosen a directory.
    assert "default" not in manifest["user_config"]["directory"]
    assert manifest["server"]["mcp_config"]["env"].keys() <= {setting.name for setting in SETTINGS}


def test_the_registry_shows_the_icon_of_the_reports_where_it_stands() -> None:
    server = _read("server.json")
    (icon,) = server["icons"]
    repository, _, path = icon["src"].partition("/raw/main/")
    assert repository == server["repository"]["url"]
    assert (ROOT / path).read_text(encoding="utf-8").startswith("<svg ")


def test_every_host_is_given_the_same_server_in_its_own_form() -> None:
    """Whoever installs by hand, at a click, as a plugin or as an extension gets what `install` writes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (vscode,) = re.findall(r"vscode\.dev/redirect/mcp/install\?name=gemini-batch&config=([^)]+)\)", readme)
    (cursor,) = re.findall(r"cursor-deeplink/mcp/install\?name=gemini-batch&config=([^)]+)\)", readme)
    entries = {
        "Claude Code": _read("plugin/.mcp.json")["mcpServers"]["gemini-batch"],
        "Gemini CLI": _read("plugin/gemini-extension.json")["mcpServers"]["gemini-batch"],
        "Agent Plugins": _read("plugin/mcp.json")["mcpServers"]["gemini-batch"],
        "VS Code": json.loads(unquote(vscode)),
        "Cursor": json.loads(b64decode(unquote(cursor))),
        **{
            host: next(iter(_parsed(form, text).values()))["gemini-batch"]
            for host, form, text in re.findall(
                r"^(Claude Desktop|Codex):\n\n```(\w+)\n(.*?)\n```$", readme, re.M | re.S
            )
        },
    }
    assert len(entries) == 7
    for host, entry in entries.items():
        assert (entry["command"], entry["args"]) == ("gemini-batch-mcp", []), host
        assert entry.get("env", {}).keys() <= {setting.name for setting in SETTINGS}, host


def _parsed(form: str, text: str) -> dict[str, Any]:
    return tomllib.loads(text) if form == "toml" else dict(json.loads(text))
