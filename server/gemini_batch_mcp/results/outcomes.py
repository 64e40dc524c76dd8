"""What Gemini's words about an answer mean: reasons it was stopped for, members that are content, codes of failures.

Whoever gives answers a status, be it the engine of this machine or a warehouse that holds them, goes by these.
"""

from typing import Final

#: Finish reasons (google-genai 3.4.0 `FinishReason`) with which an answer was stopped for what it says.
BLOCKED_REASONS: Final = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
    "MODEL_ARMOR",
)
#: Finish reasons of an answer that goes on after what we have.
TRUNCATED_REASONS: Final = ("MAX_TOKENS", "CONTINUATION")
#: Finish reasons of a whole answer. Any other one, also one that this version does not know, makes the row failed:
#: a broken answer taken for a whole one costs more than a whole one looked at twice.
WHOLE_REASONS: Final = ("", "STOP", "FINISH_REASON_UNSPECIFIED")

#: Members of a part that are content in themselves; the other members describe text or media.
CONTENT_MEMBERS: Final = (
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
    "audioTranscription",
)

#: No row reports more tokens than this: the sum over a billion rows still fits 64 bits.
MAX_TOKENS_PER_ROW: Final = 10**9

#: Of these the table keeps what they hold: an answer may consist of nothing else. Files inside it are written as files.
KEPT_MEMBERS: Final = tuple(name for name in CONTENT_MEMBERS if name != "inlineData")

#: What a failure that is text begins with, or its JSON names, for each google.rpc code.
CODES: Final = {
    1: ("CANCELLED",),
    3: ("INVALID_ARGUMENT", "BAD REQUEST"),
    4: ("DEADLINE_EXCEEDED", "GATEWAY TIMEOUT"),
    5: ("NOT_FOUND", "NOT FOUND"),
    7: ("PERMISSION_DENIED", "FORBIDDEN"),
    8: ("RESOURCE_EXHAUSTED", "TOO MANY REQUESTS"),
    9: ("FAILED_PRECONDITION",),
    10: ("ABORTED",),
    11: ("OUT_OF_RANGE",),
    12: ("UNIMPLEMENTED", "NOT IMPLEMENTED"),
    13: ("INTERNAL", "INTERNAL SERVER ERROR"),
    14: ("UNAVAILABLE", "SERVICE UNAVAILABLE"),
    16: ("UNAUTHENTICATED", "UNAUTHORIZED"),
}

#: In front of why an answer does not fit the schema that it was ordered with.
MISFIT: Final = "does not fit the response schema: "
