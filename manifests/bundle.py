"""Packs the MCPB bundle: the wheel, what it needs pinned by hash, and the manifest, in `dist/gemini-batch-mcp.mcpb`.

`python manifests/bundle.py [DIRECTORY]`. Nothing in it was resolved on somebody's machine: the pins are those of
constraints.txt, without what only tests and development need.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import anyio
import hosts
import vl_convert
import zopfli

from gemini_batch_mcp.assistant.definitions import made_definitions
from gemini_batch_mcp.cli.hosts import trying

ROOT: Final = Path(__file__).resolve().parent.parent
#: The same bytes from the same files: a zip holds times, and its format knows none before this one.
_TIME: Final = (1980, 1, 1, 0, 0, 0)
#: From the 16 units of the icon's drawing to the 512 pixels that Claude's directory asks for.
_ICON_SCALE: Final = 32
#: Of Zopfli over each file, in five seconds; 15 of them take three seconds more and save 2,600 bytes of 953,000.
_PASSES: Final = 5


def pack(directory: Path) -> Path:
    """Build the wheel and pack the bundle into `directory`; return the bundle.

    Raises:
        subprocess.CalledProcessError: the wheel cannot be built, or the requirements cannot be read.
    """
    with tempfile.TemporaryDirectory() as temporary:
        content = Path(temporary)
        _run(
            "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(content), str(ROOT)
        )
        for left in content.glob(".*"):
            left.unlink()
        (wheel,) = content.glob("*.whl")
        _store(wheel)
        own = f"./{wheel.name} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        (content / "requirements.txt").write_text(requirements() + own, encoding="utf-8")
        manifest = hosts.mcpb_manifest(made_definitions())
        (content / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False), encoding="utf-8")
        for path in (ROOT / "manifests" / "serve.py", ROOT / "LICENSE"):
            shutil.copy(path, content)
        picture = vl_convert.svg_to_png((ROOT / hosts.ICON).read_text(encoding="utf-8"), scale=_ICON_SCALE)
        (content / hosts.BUNDLE_ICON).write_bytes(picture)
        directory.mkdir(parents=True, exist_ok=True)
        bundle = directory / f"{hosts.PACKAGE}.mcpb"
        with zopfli.ZipFile(bundle, "w", iterations=_PASSES) as packed:
            for path in sorted(content.iterdir()):
                entry = zipfile.ZipInfo(path.name, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, path.read_bytes())
    return bundle


def _store(wheel: Path) -> None:
    """Write a wheel anew with its files uncompressed: the bundle compresses them together, to a sixth less."""
    with zipfile.ZipFile(wheel) as packed:
        files = [(name, packed.read(name)) for name in packed.namelist()]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as stored:
        for name, content in files:
            stored.writestr(zipfile.ZipInfo(name, _TIME), content)


def requirements() -> str:
    """Return what the package needs to run, each with its version and hashes as constraints.txt has them."""
    return _run(
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version=3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--constraint=constraints.txt",
        "pyproject.toml",
    )


def _run(*arguments: str, directory: Path = ROOT) -> str:
    command = [sys.executable, "-m", "uv", *arguments]
    done = subprocess.run(command, cwd=directory, check=True, text=True, stdout=subprocess.PIPE)  # noqa: S603
    return done.stdout


def started(bundle: Path) -> trying.Trial:
    """Unpack the bundle somewhere else, and start its server as a host does, without a key and without a network.

    What it needs is in uv's cache by then. Of our own variables, only those about uv and certificates go along.
    """
    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(bundle) as packed:
            packed.extractall(temporary)
        fill = ("pip", "install", "--quiet", "--require-hashes", "--target", "cached", "-r", "requirements.txt")
        _run(*fill, directory=Path(temporary))
        config = json.loads(Path(temporary, "manifest.json").read_text(encoding="utf-8"))["server"]["mcp_config"]
        kept = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_"))}
        home = {"GEMINI_BATCH_ROOTS": temporary, "GEMINI_BATCH_HOME": str(Path(temporary, "home"))}
        entry = {
            "command": shutil.which(config["command"], path=_search_path()),
            "args": [argument.replace("${__dirname}", temporary) for argument in config["args"]],
            "env": {**kept, **home, "UV_OFFLINE": "1"},
        }
        return anyio.run(trying.start, entry, {})


def _search_path() -> str:
    """Return where programs are looked for: beside this Python first, which brings its uv."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.defpath])


def main() -> None:
    """Pack it, start it once from somewhere else, and say where it is and how large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / "dist")
    bundle = pack(parser.parse_args().directory)
    trial = started(bundle)
    if trial.failure:
        sys.exit(f"{bundle} does not start: {trial.failure}")
    sys.stdout.write(
        f"{bundle}: {bundle.stat().st_size:,} bytes; started from it, the server offers {trial.tools} tools\n"
    )


if __name__ == "__main__":
    main()
