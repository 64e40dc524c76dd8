"""What hosts read: written by the package itself, right by each host's own schema, one version everywhere."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import skillsaw

from gemini_batch_mcp import __version__
from gemini_batch_mcp.assistant.definitions import DEFINITIONS_FILE
from gemini_batch_mcp.assistant.tools import TOOLS
from gemini_batch_mcp.settings import SETTINGS

ROOT = Path(__file__).parent.parent
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
    for name in ("README.md", "manifests/generate.py", "manifests/server.json", "manifests/manifest.json", definitions):
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
    assert server["version"] == server["packages"][0]["version"] == _read("manifest.json")["version"] == __version__


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
    assert (ROOT / manifest["server"]["entry_point"]).is_file()
    assert {tool["name"] for tool in manifest["tools"]} == {spec.function.__name__ for spec in TOOLS}


def test_the_bundle_asks_the_user_for_what_it_hands_to_the_server() -> None:
    manifest = _read("manifest.json")
    handed = {name for value in manifest["server"]["mcp_config"]["env"].values() for name in _FILLED_IN.findall(value)}
    assert handed == manifest["user_config"].keys()
    assert manifest["server"]["mcp_config"]["env"].keys() <= {setting.name for setting in SETTINGS}
