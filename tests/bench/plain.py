"""The plain way, as a process of its own: what a script does with google-genai and json, and nothing more.

Prints one JSON object with seconds and peak memory in bytes. Every measured figure is set against one of these.
"""

import csv
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from google import genai
from google.genai import types


def create(client: genai.Client, source: str, model: str) -> dict[str, Any]:
    """Upload and create, unchecked."""
    uploaded = client.files.upload(file=source, config=types.UploadFileConfig(display_name="plain", mime_type="jsonl"))
    job = client.batches.create(model=model, src=uploaded.name or "", config={"display_name": "plain"})
    return {"job": job.name}


def results(client: genai.Client, job_name: str, _: str) -> dict[str, Any]:
    """Download into memory, split, parse every line, count, and take a page."""
    job = client.batches.get(name=job_name)
    assert job.dest is not None
    content = client.files.download(file=job.dest.file_name or "").decode("utf-8")
    rows = [json.loads(row) for row in content.splitlines() if row]
    ok = sum("response" in row for row in rows)
    return {"rows": len(rows), "ok": ok, "page": [row["key"] for row in rows[:20]], "bytes": len(content)}


def parse(_: genai.Client, source: str, __: str) -> dict[str, Any]:
    """Parse each line of a file and check nothing."""
    rows = 0
    with Path(source).open("rb") as file:
        for line in file:
            json.loads(line)
            rows += 1
    return {"rows": rows}


def render(prompt: str, source: str) -> dict[str, Any]:
    """Render a prompt row by row, as a script would."""
    count = 0
    path = Path(source)
    with (
        path.open(encoding="utf-8", newline="") as file,
        path.with_suffix(".plain").open("w", encoding="utf-8") as output,
    ):
        for count, row in enumerate(csv.DictReader(file), 1):
            text = prompt.replace("{{text}}", row["text"]).replace("{{rating}}", row["rating"])
            request = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            output.write(json.dumps({"key": f"row-{count:06d}", "request": request}) + "\n")
    path.with_suffix(".plain").unlink()
    return {"rows": count}


def main() -> None:
    """plain.py create|results|parse BASE_URL ARGUMENT MODEL, or plain.py render PROMPT SOURCE MODEL."""
    what, base_url, argument, model = sys.argv[1:5]
    if what == "render":
        started = time.perf_counter()
        _report(render(base_url, argument), started)
        return
    client = genai.Client(api_key="bench", http_options=types.HttpOptions(api_version="v1beta", base_url=base_url))
    started = time.perf_counter()
    _report({"create": create, "results": results, "parse": parse}[what](client, argument, model), started)


def _report(answer: dict[str, Any], started: float) -> None:
    answer["seconds"] = time.perf_counter() - started
    answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
