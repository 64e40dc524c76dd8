"""What is released: what wheel and image hold, and that the check of a release finds what is wrong with one."""

import re
from pathlib import Path

import hosts
import pytest
import release
import yaml
from hatchling.builders.wheel import WheelBuilder
from health import address

from gemini_batch_mcp import __version__
from gemini_batch_mcp.settings import SETTINGS

ROOT = Path(__file__).parents[2]
INFO = f"gemini_batch_mcp-{__version__}.dist-info"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_holds_what_the_server_needs_and_no_test() -> None:
    names = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert release.wheel_problems(names) == []
    assert sum(name.endswith(".py") for name in names) > 200


def test_a_wheel_with_something_too_much_or_too_little_is_told() -> None:
    names = [f"gemini_batch_mcp/{name}" for name in release.NEEDED if "dashboard" not in name]
    names += ["tests/conftest.py", "gemini_batch_mcp/bench/wire.py", f"{INFO}/METADATA", "gemini_batch_mcp/attests.py"]
    assert release.wheel_problems(names) == [
        "assistant/resources/dashboard.html is missing",
        "tests/conftest.py has no place in a wheel",
        "gemini_batch_mcp/bench/wire.py has no place in a wheel",
        "tests/conftest.py has no place in a wheel",
    ]


def test_the_changelog_has_something_to_say_about_what_is_released() -> None:
    assert release.changelog_problems(CHANGELOG, __version__, is_final=False) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "## [Unreleased]\n\n- x\n",
            "has no entry for 1.2.0: give what is under Unreleased the heading [1.2.0] - DATE",
        ),
        ("## [Unreleased]\n\n## [1.2.0]\n\n- x\n", "names no date"),
        ("## [1.2.0] - 2026-12-01\n\n### Added\n\n## [1.1.0] - 2026-11-01\n\n- x\n", "says nothing under 1.2.0"),
        ("## [1.2.0] - 2026-12-01\n\n- x\n", ""),
    ],
)
def test_a_changelog_that_is_not_ready_for_a_release_is_told(text: str, said: str) -> None:
    problems = release.changelog_problems(text, "1.2.0", is_final=True)
    assert len(problems) == bool(said)
    assert said in "".join(problems)


@pytest.mark.parametrize(
    ("stated", "is_permitted"),
    [
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("License :: OSI Approved :: MIT License OR License :: OSI Approved :: Apache Software License", True),
        ("Apache License, Version 2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("LicenseRef-Proprietary", False),
        ("", False),
    ],
)
def test_a_licence_is_permitted_as_a_whole(stated: str, is_permitted: bool) -> None:
    assert release.is_permitted(stated) is is_permitted


def test_name_and_version_stand_in_one_place() -> None:
    assert release.name_problems() == []


def test_the_image_gets_the_files_that_it_copies_and_no_others() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert release.context_problems(dockerfile) == []
    assert release.context_problems(dockerfile + "COPY tests gone ./\n") == [
        "the Dockerfile copies gone, which is not there",
        ".dockerignore keeps gone from the image",
        ".dockerignore keeps tests from the image",
    ]
    # Nobody is root in it, and what it sets are settings that there are.
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    names = set(re.findall(r"GEMINI_\w+|GOOGLE_\w+", dockerfile))
    assert names == {"GEMINI_BATCH_HOME", "GEMINI_BATCH_ROOTS"}


def test_the_catalog_hands_over_what_the_image_takes() -> None:
    entry = yaml.safe_load((ROOT / "manifests" / "docker" / "server.yaml").read_text(encoding="utf-8"))
    assert entry == hosts.docker_catalog()
    config = entry["config"]
    handed = {variable["env"] for variable in config["secrets"]} | {variable["name"] for variable in config["env"]}
    assert handed <= {setting.name for setting in SETTINGS}
    named = re.findall(r"\{\{gemini-batch\.(\w+)\}\}", str(entry))
    assert set(named) == config["parameters"]["properties"].keys()
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    mounted = [volume.rpartition(":")[2] for volume in entry["run"]["volumes"]]
    assert f"VOLUME {mounted}".replace("'", '"') in dockerfile


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["gemini-batch-mcp"], ""),
        (["python", "gemini-batch-mcp", "serve", "--transport", "stdio"], ""),
        (["gemini-batch-mcp", "serve", "--transport", "http", "--host", "0.0.0.0"], "http://127.0.0.1:8765/health"),
        (["gemini-batch-mcp", "serve", "--port=99", "--transport=http"], "http://127.0.0.1:99/health"),
    ],
)
def test_the_health_check_asks_where_the_server_listens(arguments: list[str], asked: str) -> None:
    assert address(arguments) == asked
