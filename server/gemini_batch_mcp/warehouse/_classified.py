"""How one row of Vertex AI's output becomes one answer: the rules of `results.table`, in GoogleSQL.

The rows come with `key`, `attempt`, `response` as JSON text, and `stated`, the failure as text, empty for none. The
words and numbers that the rules go by are those of `results.outcomes`; what differs stands in
`docs/google-cloud.md`.
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `_text`

from typing import Final

from gemini_batch_mcp.results.outcomes import (
    BLOCKED_REASONS,
    CODES,
    CONTENT_MEMBERS,
    KEPT_MEMBERS,
    MAX_TOKENS_PER_ROW,
    TRUNCATED_REASONS,
    WHOLE_REASONS,
)
from gemini_batch_mcp.warehouse._text import literal, readable_json, texts

_PARTS: Final = "JSON_QUERY_ARRAY(response, '$.candidates[0].content.parts')"
_NO_THOUGHT: Final = "COALESCE(JSON_VALUE(part, '$.thought'), '') <> 'true'"
_HAS_CONTENT: Final = " OR ".join(f"JSON_QUERY(part, '$.{member}') IS NOT NULL" for member in CONTENT_MEMBERS)
_HAS_KEPT: Final = " OR ".join(f"JSON_QUERY(part, '$.{member}') IS NOT NULL" for member in KEPT_MEMBERS)
_KEPT: Final = "CASE {} END".format(
    " ".join(
        f"""WHEN JSON_QUERY(part, '$.{member}') IS NOT NULL
            THEN CONCAT('{{"{member}":', JSON_QUERY(part, '$.{member}'), '}}')"""
        for member in KEPT_MEMBERS
    )
)
#: Google's own error in a failure that is text, as JSON; NULL where there is none.
_TOLD: Final = r"REGEXP_EXTRACT(stated, r'(?s)\{.*\}')"
_NAMED_CODE: Final = (
    "CASE UPPER(COALESCE(JSON_VALUE({}, '$.error.status'), TRIM(SPLIT(stated, ':')[SAFE_OFFSET(0)]))) {} END".format(
        "told", " ".join(f"WHEN {literal(name)} THEN {code:d}" for code, names in CODES.items() for name in names)
    )
)


def classified(lines: str) -> str:
    """Return the query that gives each line of an output its status; `lines` is a query or a table.

    Columns: those of the lines, status, text, finish_reason, error_code, error, model_version, input_tokens,
    output_tokens, thoughts_tokens and calls (a JSON list of function calls, code and what else is no text; else NULL).
    """
    spoken = f"FROM UNNEST({_PARTS}) AS part WITH OFFSET AS nth WHERE {_NO_THOUGHT}"
    kept = f"ARRAY(SELECT {_KEPT} {spoken} AND ({_HAS_KEPT}) ORDER BY nth)"
    members = f"""SELECT *, SAFE.PARSE_JSON({_TOLD}) IS NOT NULL AS is_told, {_TOLD} AS found,
    COALESCE(JSON_VALUE(response, '$.candidates[0].finishReason'), '') AS finish_reason,
    COALESCE(JSON_VALUE(response, '$.promptFeedback.blockReason'), '') AS block_reason,
    ARRAY_TO_STRING(ARRAY(SELECT COALESCE(JSON_VALUE(part, '$.text'), '') {spoken} ORDER BY nth), '') AS text,
    (SELECT COUNTIF({_HAS_CONTENT}) {spoken}) AS contents,
    NULLIF(CONCAT('[', ARRAY_TO_STRING({kept}, ','), ']'), '[]') AS calls
  FROM {lines}"""
    rated = f"""SELECT *, IF(is_told, {readable_json("found")}, NULL) AS told,
    CASE WHEN stated <> '' THEN 'failed'
         WHEN finish_reason IN {texts(BLOCKED_REASONS)} THEN 'blocked'
         WHEN finish_reason IN {texts(TRUNCATED_REASONS)} THEN 'truncated'
         WHEN finish_reason NOT IN {texts(WHOLE_REASONS)} THEN 'failed'
         WHEN text <> '' OR contents > 0 THEN 'ok'
         WHEN block_reason <> '' THEN 'blocked'
         ELSE 'empty' END AS status
  FROM ({members})"""
    return f"""SELECT * EXCEPT (is_told, found, told, block_reason, contents),
    IF(stated <> '', {_NAMED_CODE}, NULL) AS error_code,
    CASE WHEN status = 'ok' THEN ''
         WHEN stated <> '' THEN COALESCE(NULLIF(JSON_VALUE(told, '$.error.message'), ''), stated)
         WHEN status = 'blocked' AND block_reason <> '' AND finish_reason IN {texts(WHOLE_REASONS)}
         THEN {_words("'prompt blocked'", "block_reason", "$.promptFeedback.blockReasonMessage")}
         WHEN status IN ('blocked', 'failed')
         THEN {_words("'stopped'", "finish_reason", "$.candidates[0].finishMessage")}
         ELSE '' END AS error,
    COALESCE(JSON_VALUE(response, '$.modelVersion'), '') AS model_version,
    {_tokens("promptTokenCount")} AS input_tokens,
    {_tokens("candidatesTokenCount")} AS output_tokens,
    {_tokens("thoughtsTokenCount")} AS thoughts_tokens
  FROM ({rated})"""


def _words(first: str, second: str, path: str) -> str:
    """Return the expression of words with a colon between them; what is at that path of the answer may be missing."""
    return f"CONCAT({first}, ': ', {second}, COALESCE(CONCAT(': ', JSON_VALUE(response, '{path}')), ''))"


def _tokens(member: str) -> str:
    number = f"SAFE_CAST(JSON_VALUE(response, '$.usageMetadata.{member}') AS INT64)"
    return f"LEAST(GREATEST(COALESCE({number}, 0), 0), {MAX_TOKENS_PER_ROW})"
