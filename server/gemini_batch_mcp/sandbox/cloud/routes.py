"""The routes of Google Cloud, and the credentials that they ask for: a bearer token that begins with `sandbox-token-`.

A file with such a token, as gcloud's own hold one, is what GOOGLE_APPLICATION_CREDENTIALS may name.

What is assumed of Vertex AI, Cloud Storage and BigQuery, and what is known, stands in `docs/google-cloud.md`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gemini_batch_mcp.sandbox.api.guard import Guard, Handler
from gemini_batch_mcp.sandbox.cloud._bigquery import BigQuery
from gemini_batch_mcp.sandbox.cloud._jobs import CloudJobs
from gemini_batch_mcp.sandbox.cloud._objects import Objects
from gemini_batch_mcp.sandbox.cloud._outputs import deliver
from gemini_batch_mcp.sandbox.cloud._storage import Storage
from gemini_batch_mcp.sandbox.cloud._tables import Tables
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.jobs import Delivered, Jobs
from gemini_batch_mcp.sandbox.state import JobRecord, State
from gemini_batch_mcp.sandbox.wire import ApiError

#: What every token begins with that is taken here.
TOKEN_PREFIX: Final = "sandbox-token-"  # noqa: S105 - the beginning of one, not one
_JOBS: Final = "/{version}/projects/{project}/locations/{location}/batchPredictionJobs"
_OBJECTS: Final = "/storage/v1/b/{bucket}/o"
_QUERIES: Final = "/bigquery/v2/projects/{project}"
_TABLES: Final = _QUERIES + "/datasets/{dataset}/tables/{table}"

#: Puts what surrounds every route around a handler: by its name, and whether it asks for a key.
MakeGuard = Callable[[str, Handler], Guard]


class CloudSide:
    """What the sandbox is of Google Cloud, over the same directory and the same jobs."""

    def __init__(self, state: State, config: SandboxConfig) -> None:
        self._state = state
        self._config = config
        self.objects = Objects(state, config)
        self.tables = Tables(state.directory, config)
        self.bigquery = BigQuery(self.tables, config)

    def close(self) -> None:
        """Let go of the tables."""
        self.bigquery.close()
        self.tables.close()

    def deliver(self, job: JobRecord, rows: Path, count: int) -> Delivered:
        """Write the answers of a job into its bucket, or its table."""
        return deliver(job, rows, count, self.objects, self.tables, self._config)

    def routes(self, jobs: Jobs, guard: MakeGuard) -> list[Route]:
        """Return the routes."""
        cloud = CloudJobs(self._state, jobs, self.objects, self.tables, self._config)
        storage, bigquery = Storage(self.objects), self.bigquery

        def route(method: str, path: str, name: str, handler: Handler) -> Route:
            return Route(path, guard(name, _with_token(handler)), methods=[method])

        return [
            route("POST", _JOBS, "jobs.create", cloud.create),
            route("GET", _JOBS, "jobs.list", cloud.list),
            route("POST", _JOBS + "/{id}:cancel", "jobs.cancel", cloud.cancel),
            route("GET", _JOBS + "/{id}", "jobs.get", cloud.get),
            route("DELETE", _JOBS + "/{id}", "jobs.delete", cloud.delete),
            route("GET", "/{version}/publishers/google/models", "publishers.list", cloud.models),
            route(
                "POST",
                "/{version}/projects/{project}/locations/{location}/publishers/google/models/{id}:countTokens",
                "publishers.countTokens",
                cloud.count_tokens,
            ),
            route("GET", "/storage/v1/b/{bucket}", "buckets.get", storage.bucket),
            route("GET", "/storage/v1/b/{bucket}/iam/testPermissions", "buckets.permissions", storage.permissions),
            route("POST", "/upload" + _OBJECTS, "objects.insert", storage.insert),
            route("PUT", "/upload" + _OBJECTS, "objects.chunk", storage.chunk),
            route("GET", _OBJECTS, "objects.list", storage.list),
            route("GET", "/download" + _OBJECTS + "/{object:path}", "objects.media", storage.get),
            route("GET", _OBJECTS + "/{object:path}", "objects.get", storage.get),
            route("DELETE", _OBJECTS + "/{object:path}", "objects.delete", storage.delete),
            route("POST", _QUERIES + "/jobs", "queries.insert", bigquery.insert),
            route("GET", _QUERIES + "/jobs/{id}", "queries.get", bigquery.get),
            route("GET", _QUERIES + "/queries/{id}", "queries.results", bigquery.results),
            route("GET", _QUERIES + "/datasets/{dataset}", "datasets.get", bigquery.describe_dataset),
            route("GET", _TABLES, "tables.get", bigquery.describe),
            route("PATCH", _TABLES, "tables.patch", bigquery.change),
            route("DELETE", _TABLES, "tables.delete", bigquery.delete),
        ]


def _with_token(handler: Handler) -> Handler:
    """Return the handler behind a look at the token, which Google Cloud takes instead of a key."""

    async def guarded(request: Request) -> Response:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not token.startswith(TOKEN_PREFIX):
            raise ApiError(401, "[sandbox] Request had invalid authentication credentials.")
        return await handler(request)

    return guarded
