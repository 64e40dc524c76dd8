"""The wire samples: requests and replies of the Gemini API, as `tests/support/wire-samples` keeps them."""

import json
from pathlib import Path
from typing import Any, Final

SAMPLES: Final = Path(__file__).parent / "wire-samples"


JOB = "batches/q7m2k9x4c1v8b5n3z6l0p2w4t8r1y5u7d3e9"
RESULT_FILE = "files/batch-q7m2k9x4c1v8b5n3z6l0p2w4t8r1y5u7d3e9"


def sample(number: str) -> Any:
    (path,) = SAMPLES.glob(f"{number}-*.json")
    return json.loads(path.read_text(encoding="utf-8"))
