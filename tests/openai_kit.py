"""Lines of OpenAI batches for the tests, and what comes of one."""

import json
from collections.abc import Mapping
from typing import Any

from gemini_batch_mcp.domain import Task
from gemini_batch_mcp.intake.openai import Conversion

HELLO = [{"role": "user", "content": "hi"}]


def line(body: Mapping[str, Any], custom_id: Any = "a", url: str = "/v1/chat/completions") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def embed(body: Mapping[str, Any]) -> dict[str, Any]:
    return line(body, url="/v1/embeddings")


def converted(value: Any, task: Task = "generate", model: str = "") -> Any:
    written, checked = Conversion(task, model).line(json.dumps(value).encode(), 3)
    assert checked.problems == ()
    sent = json.loads(written)
    assert sent["key"] == checked.key == "a"
    return sent["request"]


def chat(**members: Any) -> Any:
    return converted(line({"messages": HELLO, **members}))


def configured(**members: Any) -> Any:
    return chat(**members).get("generationConfig")


def messages(*given: Any) -> Any:
    return converted(line({"messages": given}))


def refused(value: Any, task: Task = "generate") -> tuple[str, str]:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    _, checked = Conversion(task).line(text, 3)
    (problem,) = checked.problems
    assert problem.line == 3
    return problem.message, problem.fix


def said(*values: Any, model: str = "") -> tuple[str, ...]:
    conversion = Conversion("generate", model)
    for number, value in enumerate(values, 1):
        assert not conversion.line(json.dumps(value).encode(), number)[1].problems
    return conversion.warnings(len(values))
