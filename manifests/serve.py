"""Starts the server of the bundle that this file is part of, in an environment made at the first start.

`uv run --with-requirements` does not compare hashes, so the environment is made by `uv pip install --require-hashes`:
nothing runs that is not, byte for byte, what the bundle was packed with. It stands beside this file under a name that
follows from the requirements; a start that is interrupted, or beside another, leaves no half of one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).resolve().parent
_PINS: Final = _HERE / "requirements.txt"


def environment() -> Path:
    """Return the environment of this bundle, made if there is none.

    Raises:
        OSError: it cannot be written.
        subprocess.CalledProcessError: a package cannot be had, or is not what the hashes say.
    """
    digest = hashlib.sha256(_PINS.read_bytes()).hexdigest()[:12]
    made = _HERE / f".env-{digest}"
    if made.is_dir():
        return made
    draft = Path(tempfile.mkdtemp(prefix=".env-", dir=_HERE))
    try:
        _uv("venv", "--quiet", "--clear", "--relocatable", "--python", sys.executable, str(draft))
        _uv("pip", "install", "--quiet", "--require-hashes", "--python", str(draft), "-r", str(_PINS))
        # Renamed when it is whole: two hosts may start at once, and the second finds that it is there.
        if not made.is_dir():
            draft.rename(made)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def _uv(*arguments: str) -> None:
    """Run the uv that runs this; what it says goes to standard error, since standard output is the protocol's."""
    subprocess.run([os.environ.get("UV", "uv"), *arguments], cwd=_HERE, check=True, stdout=sys.stderr)  # noqa: S603


def main() -> None:
    """Serve until the host closes the input."""
    place = Path("Scripts", "python.exe") if sys.platform == "win32" else Path("bin", "python")
    command = [str(environment() / place), "-m", "gemini_batch_mcp"]
    if sys.platform == "win32":
        sys.exit(subprocess.call(command))  # noqa: S603
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
