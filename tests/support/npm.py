"""What needs node: the JavaScript SDK and the tokenizer in tests/js. Without them tests are skipped, and say so."""

import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parents[1] / "js"


def run_node(script: str, *arguments: str, text: str = "", timeout_seconds: float = 100) -> str:
    """Run a script of tests/js and return what it printed; a failure shows its stderr."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (JS / "node_modules" / "gpt-tokenizer").is_dir():
        pytest.skip("tests/js/node_modules is empty: run npm install in tests/js")
    done = subprocess.run(
        [node, script, *arguments], input=text, capture_output=True, text=True, cwd=JS, timeout=timeout_seconds
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def count_tokens(text: str) -> int:
    """Count tokens of the vocabulary o200k_base."""
    return int(run_node("count_tokens.mjs", text=text))
