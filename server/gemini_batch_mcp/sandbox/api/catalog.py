"""The routes of models: list, get, and an estimate for countTokens."""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gemini_batch_mcp.intake.prices.tokens import offline_counts
from gemini_batch_mcp.sandbox.api.requests import page_of, path_id, read_json
from gemini_batch_mcp.sandbox.config import SandboxConfig
from gemini_batch_mcp.sandbox.lifecycle.lines import RequestProblem, check_request
from gemini_batch_mcp.sandbox.lifecycle.references import References
from gemini_batch_mcp.sandbox.models import ModelInfo
from gemini_batch_mcp.sandbox.replies.tokens import text_tokens
from gemini_batch_mcp.sandbox.wire import (
    ApiError,
    bad_request,
    json_response,
    not_found,
    number_page_token,
    status_code_of,
)

_DEFAULT_PAGE_SIZE: Final = 50
_MAX_PAGE_SIZE: Final = 1000


class Catalog:
    """The handlers. They raise ApiError for every refusal."""

    def __init__(self, config: SandboxConfig, references: References) -> None:
        self._config = config
        self._references = references

    async def list(self, request: Request) -> Response:
        """Answer `models.list`, in the order of the configuration."""
        size, after = page_of(request, _DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE)
        start = after[0] if after else 0
        models = self._config.models
        reply: dict[str, Any] = {"models": [model.to_wire() for model in models[start : start + size]]}
        if start + size < len(models):
            reply["nextPageToken"] = number_page_token(start + size)
        return json_response(reply)

    async def get(self, request: Request) -> Response:
        """Answer `models.get`."""
        return json_response(self._find(request).to_wire())

    async def count_tokens(self, request: Request) -> Response:
        """Answer `models/…:countTokens` for `contents` (wire sample 70) or `generateContentRequest` (sample 71)."""
        self._find(request)
        body = await read_json(request, self._config.max_inline_bytes)
        whole = body.get("generateContentRequest", body.get("generate_content_request"))
        given = {name for name, value in body.items() if value}
        if given not in ({"contents"}, {"generateContentRequest"}, {"generate_content_request"}):
            raise bad_request("contents", "[sandbox] Give either contents or generateContentRequest.")
        counted = body if whole is None else whole
        try:
            check_request(counted, "generate")
        except RequestProblem as problem:
            raise bad_request("contents", f"Invalid JSON payload received. {problem.text}") from None
        if (refused := self._references.problem(counted)) is not None:
            code, message = refused
            raise ApiError(status_code_of(code), message)
        tokens = sum(text_tokens(text) for text in _texts(counted))
        if counted.get("tools"):
            tokens += text_tokens(msgspec.json.encode(counted["tools"]).decode())
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        counts = offline_counts(counted, model=path_id(request))
        for modality, count in (("IMAGE", counts.image), ("AUDIO", counts.audio), ("VIDEO", counts.video)):
            if count:
                details.append({"modality": modality, "tokenCount": count})
        return json_response({"totalTokens": tokens + counts.media, "promptTokensDetails": details})

    def _find(self, request: Request) -> ModelInfo:
        model = self._config.model(path_id(request))
        if model is None:
            raise not_found()
        return model


def _texts(value: object) -> "list[str]":
    """Return every text in the parts of a request, its system instruction included."""
    if isinstance(value, dict):
        here = [value["text"]] if isinstance(value.get("text"), str) else []
        return here + [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []
