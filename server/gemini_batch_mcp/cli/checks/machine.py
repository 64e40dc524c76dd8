"""This machine: the versions on it, and whether the directories can be used."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Final

from gemini_batch_mcp import __version__
from gemini_batch_mcp.cli.checks.finding import Check
from gemini_batch_mcp.errors import BatchError
from gemini_batch_mcp.intake.prices.price_list import load_prices
from gemini_batch_mcp.settings import LEAST_FREE_BYTES, SETTINGS, Settings
from gemini_batch_mcp.text import dollars, safe_text

_PROGRAM: Final = "gemini-batch-mcp"
#: What another version says about itself may take as long as it takes to start.
_ANSWER_SECONDS: Final = 20
#: File systems of other machines: locks on them are lost with the connection, and SQLite's journal does not work there.
_REMOTE: Final = frozenset(
    {"afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)
_OURS: Final = "GEMINI_BATCH_"
#: From here on two names are alike.
_ALIKE: Final = 0.8
_MOUNTS: Final = Path("/proc/self/mountinfo")


def versions() -> Check:
    """Say which versions run."""
    parts = [f"{name} {version(name)}" for name in ("mcp", "google-genai", "duckdb")]
    python = ".".join(str(number) for number in sys.version_info[:3])
    return Check("version", True, f"gemini-batch-mcp {__version__}, Python {python}, {', '.join(parts)}")


def other_versions(env: Mapping[str, str]) -> list[Check]:
    """Say which programs of this name on the PATH are of another version: whoever names no path starts the first."""
    checks = []
    found = list(_programs(env))
    for number, program in enumerate(found):
        said = _version_of(program)
        if said == __version__:
            continue
        first = " and comes first on the PATH" if number == 0 else ""
        what = f"is version {said}" if said else "does not start"
        checks.append(
            Check(
                "other version",
                number > 0,
                f"{program} {what}{first}; this is {__version__}. Remove the other one: rm {program}",
            )
        )
    return checks


def _programs(env: Mapping[str, str]) -> Iterator[Path]:
    """Give the programs of our name on the PATH, each once, in its order."""
    seen = set()
    for directory in env.get("PATH", "").split(os.pathsep):
        found = shutil.which(_PROGRAM, path=directory) if directory else None
        if found is not None and (real := Path(found).resolve()) not in seen:
            seen.add(real)
            yield Path(found)


def _version_of(program: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a program of our name, found where a shell would find it
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    words = done.stdout.split()
    return safe_text(words[-1], 40) if done.returncode == 0 and words else ""


def state(settings: Settings, taken_back: Sequence[str], unknown: Sequence[str]) -> Check:
    """Say where the ledger is, and what it had lost."""
    finding = str(settings.home)
    if taken_back:
        finding += f"; the ledger had lost {', '.join(taken_back)}: just restored from their directories"
    if unknown:
        finding += (
            f"; the ledger has no record of {', '.join(unknown[:5])}, and their directories do not hold enough to "
            "restore them: put an earlier ledger.sqlite3 back, or remove them"
        )
    return Check("state", not unknown, finding)


def disk(home: Path) -> Check:
    """Say how much is free for the state directory, and whether it is on a disk of this machine."""
    kind = file_system(home, _MOUNTS.read_text(encoding="utf-8", errors="replace") if _MOUNTS.exists() else "")
    return judged_disk(home, shutil.disk_usage(home).free, kind)


def judged_disk(home: Path, free_bytes: int, kind: str) -> Check:
    """Judge a disk by what is free on it and by its file system ("" for one that is not known)."""
    if kind in _REMOTE:
        return Check(
            "disk",
            False,
            f"{home} is on {kind}, the file system of another machine, where locks and the ledger are not safe. "
            "Choose a directory on this machine: export GEMINI_BATCH_HOME=/a/local/directory",
        )
    free = f"{free_bytes / 1000**3:,.1f} GB" if free_bytes >= 1000**3 else f"{free_bytes / 1000**2:,.0f} MB"
    if free_bytes < LEAST_FREE_BYTES:
        return Check(
            "disk",
            False,
            f"only {free} are free where {home} is. Free some, with gemini-batch-mcp delete BATCH for instance, or "
            "choose another disk: export GEMINI_BATCH_HOME=/a/directory/there",
        )
    return Check("disk", True, f"{free} free")


def file_system(path: Path, mounts: str) -> str:
    """Return the type of file system that `path` is on, by the text of Linux's mountinfo; "" where that is unknown."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split(" ")
        if len(parts) < 5 or not rest:
            continue
        point = Path(parts[4].replace("\\040", " "))
        # Of two on one point the later one covers the other.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind


def named_settings(settings: Settings, env: Mapping[str, str]) -> list[Check]:
    """Say what guards the money, and which variables look like settings of ours and are none: a cap may be misspelt."""
    asks, cap = settings.confirm_above_usd, settings.max_cost_usd
    spending = "asks before nothing" if asks is None else f"asks before what may cost more than {dollars(asks)}"
    limit = "no cap for one order (GEMINI_BATCH_MAX_COST_USD)" if cap is None else f"refuses beyond {dollars(cap)}"
    checks = [Check("spending", True, f"{spending}; {limit}")]
    known = [setting.name for setting in SETTINGS]
    for name in sorted(name for name in env if name.startswith(_OURS) and name not in known):
        near = get_close_matches(name, known, n=1, cutoff=_ALIKE)
        meant = f"did you mean {near[0]}? Then: " if near else ""
        shown = safe_text(name, 60)
        checks.append(Check("settings", False, f"{shown} isn't a setting and changes nothing; {meant}unset {shown}"))
    if settings.prices_path is not None:
        try:
            load_prices(settings.prices_path)
        except BatchError as error:
            checks.append(Check("prices", False, str(error)))
    return checks


def roots(settings: Settings) -> list[Check]:
    """Look at each directory that may be used; of what lies in object stores, say that it was not looked at."""
    stores = [Check("root", True, f"{address} (not looked at until it is used)") for address in settings.addresses]
    return [*map(root, settings.roots), *stores]


def root(directory: Path) -> Check:
    """Say whether a root can be used, by writing something there that nobody sees."""
    shown = shlex.quote(str(directory))
    if directory.exists() and not directory.is_dir():
        return Check("root", False, f"{directory} is a file; name a directory in GEMINI_BATCH_ROOTS")
    if not directory.is_dir():
        return Check("root", False, f"{directory} isn't a directory; correct GEMINI_BATCH_ROOTS, or: mkdir -p {shown}")
    try:
        with os.scandir(directory), tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Check(
            "root",
            False,
            f"{directory} can't be read and written ({error.strerror}); correct its rights, or GEMINI_BATCH_ROOTS: "
            f"chmod u+rwx {shown}",
        )
    return Check("root", True, str(directory))
