"""Requests, and samples of them, for the tests of an estimate."""

import json
from collections.abc import Iterable
from typing import Any

from gemini_batch_mcp.domain import JsonObject
from gemini_batch_mcp.intake.estimate import (
    Sample,
    Sampler,
)

FLASH = "gemini-3-flash-preview"


def ask(text: str = "Hello, how are you?", **config: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    return {**request, "generationConfig": config} if config else request


def with_part(part: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [part]}], **members}


def lines(requests: Iterable[JsonObject]) -> bytes:
    return b"".join(
        json.dumps({"key": f"row-{number}", "request": request}).encode() + b"\n"
        for number, request in enumerate(requests)
    )


def sample_of(*requests: JsonObject, model: str = "") -> Sample:
    sampler = Sampler(model=model)
    sampler.feed(lines(requests))
    return sampler.sample()
