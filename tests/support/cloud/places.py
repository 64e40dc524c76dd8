"""Google Cloud for tests: a sandbox on a port, and settings with credentials that it takes."""

import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gemini_batch_mcp.sandbox.app import Sandbox
from gemini_batch_mcp.sandbox.cloud.routes import TOKEN_PREFIX
from gemini_batch_mcp.settings import Cloud, Settings

PROJECT = "sandbox-project"
BUCKET = "sandbox-bucket"
DATASET = "sandbox_data"


def credentials(directory: Path) -> Path:
    """Write credentials as gcloud leaves them, with a token that the sandbox takes and that never ends."""
    path = directory / "credentials.json"
    content = {
        "type": "authorized_user",
        "client_id": "tests",
        "client_secret": "none",
        "refresh_token": "none",
        "token": f"{TOKEN_PREFIX}tests",
        "expiry": "2199-01-01T00:00:00Z",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@contextmanager
def on_cloud(settings: Settings, sandbox: Sandbox) -> Generator[Settings]:
    """Give settings with which batches run on the sandbox's Google Cloud; no key is set."""
    with sandbox.listening() as url:
        path = credentials(settings.home.parent)
        cloud = Cloud(
            project=PROJECT,
            bucket=BUCKET,
            credentials_path=str(path),
            base_url=url + "/",
            storage_url=url,
            warehouse_url=url,
        )
        yield replace(settings, api_key=None, cloud=cloud)


def cloud_env(url: str, directory: Path) -> dict[str, str]:
    """The same as environment of a process, beside what says that batches run on Google Cloud."""
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "GEMINI_BATCH_BUCKET": BUCKET,
        "GOOGLE_APPLICATION_CREDENTIALS": str(credentials(directory)),
        "GOOGLE_VERTEX_BASE_URL": f"{url}/",
        "STORAGE_EMULATOR_HOST": url,
        "BIGQUERY_EMULATOR_HOST": url,
    }


def put(sandbox: Sandbox, name: str, lines: Iterable[bytes]) -> str:
    """Put an object of lines into the bucket, as another program does; returns its whole name."""
    draft = sandbox.cloud.objects.draft()
    draft.write_bytes(b"".join(line + b"\n" for line in lines))
    sandbox.cloud.objects.finish(draft, BUCKET, name, content_type="application/jsonl", metadata={})
    return f"gs://{BUCKET}/{name}"


def table(sandbox: Sandbox, name: str, select: str) -> str:
    """Make a table of a SELECT in DuckDB's words, as another program does; returns its whole name."""
    sandbox.cloud.tables.put(DATASET, name, select)
    return f"bq://{PROJECT}.{DATASET}.{name}"


def tables(sandbox: Sandbox) -> list[str]:
    """The names of the tables that there are."""
    return [name.removeprefix(f"{DATASET}.") for name in sandbox.cloud.tables.names()]


def objects(sandbox: Sandbox, prefix: str = "") -> list[str]:
    """The names of what lies in the bucket."""
    return [record.name.removeprefix(f"{BUCKET}/") for record in sandbox.state.objects(f"{BUCKET}/{prefix}")]
