"""The catalogue of ready JSONL files; each is package data in `gemini_batch_mcp/templates` and passes our validator."""

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from gemini_batch_mcp.errors import UsageError

if TYPE_CHECKING:
    from gemini_batch_mcp.domain import Task


@dataclass(frozen=True, slots=True)
class Template:
    """One ready file: its name, what it shows in one sentence, and the task its lines are for."""

    name: str
    description: str
    task: "Task" = "generate"


TEMPLATES: Final = (
    Template("text", "One prompt per line, the smallest possible request."),
    Template("chat", "A conversation of several turns, to be continued by the model."),
    Template("system-instruction", "One standing instruction for every row, with sampling settings."),
    Template("json-schema", "Answers as JSON of a fixed shape, with responseSchema."),
    Template("image-input", "Questions about images, uploaded earlier or inline as base64."),
    Template("pdf-input", "Questions about PDF files uploaded earlier."),
    Template("image-generation", "Images from descriptions, for an image-generation model."),
    Template("embeddings", "Embedding vectors, one text per line.", task="embed"),
    Template("thinking", "How much the model thinks before it answers, inside generationConfig."),
    Template("google-search", "Answers grounded in Google Search."),
    Template("function-calling", "Functions that the model may call, with their parameters."),
    Template("cached-content", "Questions about one long, cached text."),
    Template("vertex", "Lines for Vertex AI: a request, and a key that is returned with the answer."),
)


def read_template(name: str) -> str:
    """Return a template's JSONL text.

    Raises:
        UsageError: there is no template of that name; the next step lists them.
    """
    if name not in {template.name for template in TEMPLATES}:
        known = ", ".join(template.name for template in TEMPLATES)
        raise UsageError(f"There is no template {name[:60]!r}.", f"Choose one of: {known}.")
    return files("gemini_batch_mcp").joinpath("templates", f"{name}.jsonl").read_text(encoding="utf-8")
