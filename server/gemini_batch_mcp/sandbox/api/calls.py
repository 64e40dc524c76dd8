"""The calls that are answered at once: generateContent and batchEmbedContents, with the answers that a batch has."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.sandbox.api.requests import path_id, read_json
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.lines import RequestProblem, check_request
from gemini_batch_mcp.sandbox.lifecycle.references import References
from gemini_batch_mcp.sandbox.replies.rows import RowWriter
from gemini_batch_mcp.sandbox.wire import ApiError, bad_request, json_response, not_found, status_code_of

_METHODS: Final[dict[Task, str]] = {"generate": "generateContent", "embed": "embedContent"}
_TIERS: Final = ("unspecified", "standard", "flex", "priority")
_TRAFFIC: Final = {"flex": "ON_DEMAND_FLEX", "priority": "ON_DEMAND_PRIORITY"}
#: What stands for a row of which a batch would have no line: the reply is lost behind a gateway.
_LOST: Final = 504


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One request that was answered, and would be charged, whatever became of the reply."""

    model: str
    task: Task
    tier: str
    request: Mapping[str, Any]


class Calls:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, config: SandboxConfig, references: References) -> None:
        self._config = config
        self._references = references
        self._lock = threading.Lock()
        self._met: set[bytes] = set()
        #: Every request that was answered, in order.
        self.records: list[CallRecord] = []
        #: Calls under way, and the most that there were at a time.
        self.open_calls = self.most_open_calls = 0

    async def generate(self, request: Request) -> Response:
        """Answer `models/…:generateContent`."""
        body = await read_json(request, self._config.max_inline_bytes)
        tier = str(body.pop("serviceTier", body.pop("service_tier", "")) or "standard").lower()
        if tier not in _TIERS:
            raise bad_request("service_tier", f"Invalid value at 'service_tier': {tier[:40]!r}.")
        body.pop("model", None)
        answer = await self._answer(path_id(request), "generate", tier, body)
        if (usage := answer.get("usageMetadata")) is not None:
            answer["usageMetadata"] = {**usage, "trafficType": _TRAFFIC.get(tier, "ON_DEMAND")}
        return json_response(answer)

    async def embed(self, request: Request) -> Response:
        """Answer `models/…:batchEmbedContents`."""
        body = await read_json(request, self._config.max_inline_bytes)
        wanted = body.get("requests")
        if not isinstance(wanted, list) or not wanted or not all(isinstance(item, dict) for item in wanted):
            raise bad_request("requests", "[sandbox] There must be at least one request.")
        answers = []
        for item in wanted:
            item.pop("model", None)
            answers.append(await self._answer(path_id(request), "embed", "standard", item))
        tokens = sum(int(answer.get("tokenCount", 0)) for answer in answers)
        return json_response(
            {
                "embeddings": [answer["embedding"] for answer in answers],
                "usageMetadata": {"promptTokenCount": tokens},
            }
        )

    async def _answer(self, name: str, task: Task, tier: str, request: dict[str, Any]) -> dict[str, Any]:
        model = self._config.model(name)
        if model is None or _METHODS[task] not in model.methods:
            raise not_found()
        try:
            check_request(request, task)
        except RequestProblem as problem:
            raise bad_request("contents", f"Invalid JSON payload received. {problem.text}") from None
        if (refused := self._references.problem(request)) is not None:
            code, message = refused
            raise ApiError(status_code_of(code), message)
        with self._lock:
            self.open_calls += 1
            self.most_open_calls = max(self.most_open_calls, self.open_calls)
        try:
            await anyio.sleep(self._config.call_seconds)
        finally:
            with self._lock:
                self.open_calls -= 1
        writer = RowWriter(
            task, model.name, is_inline=False, faults=self._config.row_faults, echoes_keys=False, met=self._met
        )
        texts = writer.write(b'{"request":%b}' % msgspec.json.encode(request)).texts
        line: dict[str, Any] = msgspec.json.decode(texts[0]) if texts else {}
        if (error := line.get("error") or line.get("status")) is not None:
            raise ApiError(status_code_of(error["code"]), str(error["message"]))
        with self._lock:
            self.records.append(CallRecord(model.name, task, tier, request))
        if not texts:
            raise ApiError(_LOST, "[sandbox] The answer did not come back in time.")
        return dict(line.get("response") or {})
