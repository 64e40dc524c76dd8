"""What hosts read: written by the package itself, right by each host's own schema, one version everywhere."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import skillsaw

from gemini_batch_mcp import __version__

ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"


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
    for name in ("README.md", "manifests/generate.py", "manifests/server.json", "manifests/manifest.json"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "manifests" / "server.json").write_text("{}", encoding="utf-8")
    command = [sys.executable, str(tmp_path / "manifests" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 1
    assert "server.json" in done.stderr


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
    for variable in _read("server.json")["packages"][0]["environmentVariables"]:
        if variable.get("isSecret"):
            assert "default" not in variable
            assert "value" not in variable


@pytest.mark.parametrize("key", ["name", "version", "description", "author", "server"])
def test_the_bundle_has_what_its_format_requires(key: str) -> None:
    manifest = _read("manifest.json")
    assert manifest[key]
    assert manifest["server"]["mcp_config"]["command"] == "uv"
    assert (ROOT / manifest["server"]["entry_point"]).is_file()
