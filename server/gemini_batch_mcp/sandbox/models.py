"""The models the sandbox knows: names, limits and batch methods, as `models.list` of the Developer API gives them."""

from dataclasses import dataclass
from typing import Any, Final

GENERATE_METHODS: Final = ("generateContent", "countTokens", "createCachedContent", "batchGenerateContent")
EMBED_METHODS: Final = ("embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model. `name` has no `models/` prefix; limits are in tokens."""

    name: str
    display_name: str
    methods: tuple[str, ...] = GENERATE_METHODS
    input_token_limit: int = 1_048_576
    output_token_limit: int = 65_536

    def to_wire(self) -> dict[str, Any]:
        """Return the model as `models.get` shows it."""
        return {
            "name": f"models/{self.name}",
            "version": "sandbox",
            "displayName": self.display_name,
            "description": "A sandbox entry: answers under this name come from no model.",
            "inputTokenLimit": self.input_token_limit,
            "outputTokenLimit": self.output_token_limit,
            "supportedGenerationMethods": list(self.methods),
        }


def _embedding(name: str, display_name: str, input_token_limit: int) -> ModelInfo:
    return ModelInfo(name, display_name, EMBED_METHODS, input_token_limit, 1)


#: The batch-capable models of the price table of 2026-11-28, and one that has no batch method. That Gemini 4
#: models take batches is assumed: nothing documented says so.
DEFAULT_MODELS: Final = (
    ModelInfo("gemini-4-carbon", "Gemini 4 Carbon"),
    ModelInfo("gemini-4-hydrogen", "Gemini 4 Hydrogen"),
    ModelInfo("gemini-4-neon", "Gemini 4 Neon"),
    ModelInfo("gemini-4-argon", "Gemini 4 Argon"),
    ModelInfo("gemini-3.8-flash", "Gemini 3.8 Flash"),
    ModelInfo("gemini-3.7-flash", "Gemini 3.7 Flash"),
    ModelInfo("gemini-3.6-flash", "Gemini 3.6 Flash"),
    ModelInfo("gemini-3.5-flash", "Gemini 3.5 Flash"),
    ModelInfo("gemini-3.5-flash-lite", "Gemini 3.5 Flash-Lite"),
    ModelInfo("gemini-3.1-flash-lite", "Gemini 3.1 Flash-Lite"),
    ModelInfo("gemini-3.1-pro-preview", "Gemini 3.1 Pro Preview"),
    ModelInfo("gemini-3-flash-preview", "Gemini 3 Flash Preview"),
    ModelInfo("gemini-2.5-pro", "Gemini 2.5 Pro"),
    ModelInfo("gemini-2.5-flash", "Gemini 2.5 Flash"),
    ModelInfo("gemini-2.5-flash-lite", "Gemini 2.5 Flash-Lite"),
    ModelInfo("gemini-3-pro-image", "Gemini 3 Pro Image", input_token_limit=65_536, output_token_limit=32_768),
    ModelInfo("gemini-3.1-flash-image", "Gemini 3.1 Flash Image", input_token_limit=65_536, output_token_limit=32_768),
    ModelInfo(
        "gemini-3.1-flash-lite-image",
        "Gemini 3.1 Flash-Lite Image",
        input_token_limit=65_536,
        output_token_limit=32_768,
    ),
    ModelInfo("nano-banana-2.1", "Nano Banana 2.1", input_token_limit=65_536, output_token_limit=32_768),
    ModelInfo("gemini-2.5-flash-image", "Gemini 2.5 Flash Image", input_token_limit=32_768, output_token_limit=32_768),
    ModelInfo("gemini-3.8-flash-tts", "Gemini 3.8 Flash TTS", input_token_limit=8_192, output_token_limit=16_384),
    ModelInfo(
        "gemini-3.8-flash-lite-tts", "Gemini 3.8 Flash-Lite TTS", input_token_limit=8_192, output_token_limit=16_384
    ),
    ModelInfo("gemini-robotics-er-2-preview", "Gemini Robotics-ER 2 Preview"),
    _embedding("gemini-embedding-2", "Gemini Embedding 2", 8_192),
    _embedding("gemini-embedding-001", "Gemini Embedding 001", 2_048),
    ModelInfo("gemini-live-sandbox", "A model without batch methods", ("bidiGenerateContent", "countTokens")),
)
