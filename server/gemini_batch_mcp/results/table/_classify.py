"""How one answer line becomes one row: the only place that decides what a line means.

The decision is SQL, because DuckDB's JSON reader passes a gigabyte through it in seconds and within a bounded memory.
Every reader of answer lines goes through `classified`. The variants are those of the Batch API's output lines:

    failed      `error` or `status` is given, or the model stopped for a reason that leaves no usable answer
    blocked     the answer was stopped for safety, recitation or policy, even when some text is there;
                or the prompt was blocked, so that there is no content at all
    truncated   the answer stopped at a token limit, with or without text
    ok          the model stopped by itself, and there is text or other content
    missing     nothing came back, and the line says why: written here for a call whose reply was lost
    empty       none of these: null response, no candidates, no parts, thoughts only
    NULL        the line is no JSON object, or holds neither key nor answer
"""

# ruff: noqa: S608 - queries consist of our own names, of numbers, and of literals made by `quoted`

from typing import Final

from gemini_batch_mcp.results.table.lines import REPLY_LOST

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
_KEPT_MEMBERS: Final = tuple(name for name in CONTENT_MEMBERS if name != "inlineData")

# Only the members named here are copied out of a line; images and other bulk are skipped by the parser. Scalars are
# read as text, so that a number given as a string (and the reverse) never costs the row. `error` and `status` stay
# JSON because they may be an object or a string.
_PART: Final = ", ".join(
    [
        '"text" VARCHAR',
        "thought VARCHAR",
        *(f'"{name}" {"JSON" if name in _KEPT_MEMBERS else "STRUCT(_ VARCHAR)"}' for name in CONTENT_MEMBERS),
    ]
)
_RESPONSE: Final = f"""STRUCT(
    candidates STRUCT(content STRUCT(parts STRUCT({_PART})[]), finishReason VARCHAR, finishMessage VARCHAR,
                      groundingMetadata JSON, urlContextMetadata JSON, citationMetadata JSON, safetyRatings JSON)[],
    promptFeedback STRUCT(blockReason VARCHAR, blockReasonMessage VARCHAR, safetyRatings JSON),
    usageMetadata STRUCT(promptTokenCount VARCHAR, candidatesTokenCount VARCHAR, thoughtsTokenCount VARCHAR),
    modelVersion VARCHAR,
    tokenCount VARCHAR,
    embedding STRUCT("values" JSON),
    embeddings JSON)"""
#: `answeredBy` is in lines of ours only, which were taken from an earlier batch.
ANSWERED_BY: Final = "answeredBy"
_COLUMNS: Final = (
    f"{{key: 'VARCHAR', error: 'JSON', status: 'JSON', response: '{_RESPONSE}', {ANSWERED_BY}: 'VARCHAR'}}"
)

#: JSON values of `error` and `status` that mean "no error" (an empty string is how the Agent Platform writes it).
_NO_FAILURE: Final = """('{}', '[]', '""', 'false', '0')"""


#: Nearly every answer is one part that is no thought. Lambdas over lists take half of the whole pass, so such an answer
#: is read without one.
_IS_PLAIN: Final = "len(parts) = 1 AND parts[1].thought IS NULL"
_SPOKEN: Final = "list_filter(parts, lambda p: p.thought IS DISTINCT FROM 'true')"

#: The numbers of an embedding as JSON. A request with one content has one; of several, the first is taken.
_VALUES: Final = """coalesce(response.embedding."values", json_extract(response.embeddings, '$[0].values'))"""
_VECTOR: Final = f"CASE WHEN is_embedding THEN try_cast({_VALUES} AS FLOAT[]) END"
_IS_VECTOR: Final = "len(vector) > 0 AND len(list_filter(vector, lambda n: coalesce(isfinite(n), false))) = len(vector)"


#: A failure that is text, as Vertex AI writes it: "Bad Request: {…}", where the JSON is Google's own error.
_WORDS: Final = "CASE WHEN json_type(failure) = 'VARCHAR' THEN failure ->> '$' END"
_TOLD: Final = f"TRY(CAST(nullif(regexp_extract({_WORDS}, '[{{].*[}}]', 0, 's'), '') AS JSON))"
#: What such a text begins with, or its JSON names, for each google.rpc code.
_CODES: Final = {
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
_NAMED_CODE: Final = "CASE upper(coalesce({}, trim(split_part({}, ':', 1)))) {} END".format(
    f"{_TOLD} ->> '$.error.status'",
    _WORDS,
    " ".join(f"WHEN '{name}' THEN {code}" for code, names in _CODES.items() for name in names),
)


def _names(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in names) + ")"


def _tokens(value: str) -> str:
    return f"least(greatest(try_cast({value} AS BIGINT), 0), {MAX_TOKENS_PER_ROW})"


_HAS_CONTENT: Final = " OR ".join(f'p."{name}" IS NOT NULL' for name in CONTENT_MEMBERS)


_IS_KEPT: Final = " OR ".join(f'p."{name}" IS NOT NULL' for name in _KEPT_MEMBERS)
_KEPT: Final = "CASE {} END".format(
    " ".join(f"""WHEN p."{name}" IS NOT NULL THEN json_object('{name}', p."{name}")""" for name in _KEPT_MEMBERS)
)
_SPOKEN_BY: Final = "list_filter(c.content.parts, lambda p: p.thought IS DISTINCT FROM 'true')"
_KEPT_OF: Final = f"list_transform(list_filter({_SPOKEN_BY}, lambda p: {_IS_KEPT}), lambda p: {_KEPT})"
#: A further candidate has its text, what it holds beside that, and why it was stopped where something stopped it.
_FURTHER: Final = f"""list_transform(list_transform(response.candidates[2:], lambda c: struct_pack(
        spoken := coalesce(array_to_string(list_transform({_SPOKEN_BY}, lambda p: p."text"), ''), ''),
        kept := CASE WHEN len({_KEPT_OF}) > 0 THEN to_json({_KEPT_OF}) END,
        stopped := CASE WHEN coalesce(c.finishReason, '') NOT IN {_names(WHOLE_REASONS)} THEN c.finishReason END)),
    lambda c: CASE WHEN c.kept IS NULL AND c.stopped IS NULL THEN json_object('candidate', c.spoken)
                   WHEN c.stopped IS NULL THEN json_object('candidate', c.spoken, 'calls', c.kept)
                   WHEN c.kept IS NULL THEN json_object('candidate', c.spoken, 'finishReason', c.stopped)
                   ELSE json_object('candidate', c.spoken, 'calls', c.kept, 'finishReason', c.stopped) END)"""
#: What an answer holds beside its text and its files, as a JSON list; NULL for nothing.
_CALLS: Final = f"""CASE WHEN {_IS_PLAIN} AND parts[1]."text" IS NOT NULL AND len(response.candidates) = 1 THEN NULL
    ELSE nullif(CAST(to_json(list_concat(
        list_transform(list_filter({_SPOKEN}, lambda p: {_IS_KEPT}), lambda p: {_KEPT}), {_FURTHER})) AS VARCHAR), '[]')
    END::JSON"""


def _members(value: str, path: str, words: str) -> str:
    """Return for each member `m` of a list in JSON what `words` makes of it; nothing where there is no such list."""
    return f"list_transform(coalesce(json_extract({value}, '{path}[*]'), []::JSON[]), lambda m: {words})"


def _first(*paths: str) -> str:
    """Return the first of the members of `m` that says something, as text; NULL where none does."""
    found = [f"nullif(m ->> '$.{path}', '')" for path in paths]
    return f"coalesce({', '.join(found)}, NULL)"


def _named(title: str, address: str) -> str:
    """Return a title with its address behind it, or the one of them that is there."""
    return f"""CASE WHEN {title} <> {address} THEN {title} || ' (' || {address} || ')'
                    ELSE coalesce({address}, {title}) END"""


def _joined(*lists: str) -> str:
    """Return the texts of lists, one a line; NULL for none."""
    joined = lists[0]
    for more in lists[1:]:
        joined = f"list_concat({joined}, {more})"
    return f"nullif(array_to_string({joined}, chr(10)), '')"


_CHUNKS: Final = ("web", "retrievedContext", "maps", "image")
_SOURCE: Final = _named(
    _first(*(f"{chunk}.title" for chunk in _CHUNKS)),
    _first(*(f"{chunk}.uri" for chunk in _CHUNKS), "image.sourceUri", "retrievedContext.documentName"),
)
_STATUS: Final = _first("urlRetrievalStatus")
_PAGE: Final = f"""{_first("retrievedUrl")} ||
    CASE WHEN {_STATUS} <> 'URL_RETRIEVAL_STATUS_SUCCESS' THEN ' (' || {_STATUS} || ')' ELSE '' END"""
_SOURCES: Final = _joined(
    _members("candidate.groundingMetadata", "$.groundingChunks", _SOURCE),
    _members("candidate.urlContextMetadata", "$.urlMetadata", _PAGE),
    *(
        _members("candidate.groundingMetadata", f"$.{queries}", "'searched: ' || (m ->> '$')")
        for queries in ("webSearchQueries", "imageSearchQueries", "retrievalQueries")
    ),
)
#: What an answer was found in: each source by title and address, each page that was read, what was searched for.
_GROUNDING: Final = f"""CASE WHEN candidate.groundingMetadata IS NOT NULL OR candidate.urlContextMetadata IS NOT NULL
    THEN {_SOURCES} END"""
_CITATION: Final = f"""{_named(_first("title"), _first("uri"))} ||
    CASE WHEN {_first("license")} IS NULL THEN '' ELSE ', license ' || {_first("license")} END"""
#: The list has one name in Gemini's documentation, another in its libraries.
_QUOTED: Final = _joined(
    *(_members("candidate.citationMetadata", f"$.{name}", _CITATION) for name in ("citationSources", "citations"))
)
_CITATIONS: Final = f"CASE WHEN candidate.citationMetadata IS NOT NULL THEN {_QUOTED} END"
_RATING: Final = f"""nullif(concat_ws(' ', replace({_first("category")}, 'HARM_CATEGORY_', ''),
    {_first("probability", "severity")}, CASE WHEN m ->> '$.blocked' = 'true' THEN 'blocked' END), '')"""
_RATED: Final = "coalesce(candidate.safetyRatings, response.promptFeedback.safetyRatings)"
#: How an answer was rated, or else its prompt: `HARASSMENT LOW, HATE_SPEECH HIGH blocked`.
_RATINGS: Final = f"""CASE WHEN {_RATED} IS NOT NULL
    THEN nullif(array_to_string({_members(_RATED, "$", _RATING)}, ', '), '') END"""


def answer_source(path: str, max_line_bytes: int) -> str:
    """Return the table function that reads answer lines; `path` is a SQL literal.

    It yields exactly one row for each line that is not blank, in order; one of NULLs for a line that is no JSON object.
    """
    return (
        f"read_json({path}, columns = {_COLUMNS}, format = 'newline_delimited', ignore_errors = true, "
        f"hive_partitioning = false, compression = 'none', maximum_object_size = {max_line_bytes})"
    )


def classified(source: str, *, with_embedding: bool = False) -> str:
    """Return the query that turns answer lines into rows.

    Columns: line (counts from 1, without blank lines), key, status, text, finish_reason, error_code, error_message,
    model_version, input_tokens, output_tokens, thoughts_tokens, files (a list of one empty name for an answer that
    carries files, else NULL), calls (a JSON list of function calls, code and its output, files by address, what else
    is no text, and further candidates, each under its name; else NULL), grounding, citations and safety_ratings (texts,
    NULL for none), answered_by (which batch a line of ours names), and embedding if asked for. The text of an embedding
    says how long the vector is.
    """
    vector = _VECTOR if with_embedding else "NULL"
    is_broken = f"is_embedding AND NOT coalesce({_IS_VECTOR}, false)" if with_embedding else "false"
    return f"""
        WITH members AS (
            SELECT row_number() OVER () AS line, nullif(key, '') AS key, response, {ANSWERED_BY} AS answered_by,
                   response.candidates[1] AS candidate,
                   response.candidates[1].content.parts AS parts,
                   coalesce(response.candidates[1].finishReason, '') AS finish_reason,
                   coalesce(response.promptFeedback.blockReason, '') AS block_reason,
                   key IS NULL AND error IS NULL AND status IS NULL AND response IS NULL AS is_unreadable,
                   CASE WHEN error NOT IN {_NO_FAILURE} THEN error
                        WHEN status NOT IN {_NO_FAILURE} THEN status
                        WHEN response IS NULL THEN error END AS stated,
                   coalesce(len(response.embedding."values") > 2 OR len(response.embeddings) > 2, false) AS is_embedding
            FROM {source}
        ), judged AS (
            SELECT *,
                   coalesce(CASE WHEN {_IS_PLAIN} THEN parts[1]."text"
                                 ELSE array_to_string(list_transform({_SPOKEN}, lambda p: p."text"), '') END,
                            '') AS answer_text,
                   {vector} AS vector,
                   -- A google.rpc.Status with code 0 and no message says that all went well.
                   CASE WHEN stated IS NULL THEN NULL
                        WHEN (candidate IS NULL AND NOT is_embedding) OR json_type(stated) <> 'OBJECT'
                             OR coalesce(try_cast(stated ->> '$.code' AS INTEGER), 0) <> 0
                             OR coalesce(stated ->> '$.message', '') <> '' THEN stated END AS failure
            FROM members
        ), rated AS (
            SELECT *,
                   CASE WHEN is_unreadable THEN NULL
                        WHEN failure ->> '$.status' = '{REPLY_LOST}' THEN 'missing'
                        WHEN failure IS NOT NULL OR {is_broken} THEN 'failed'
                        WHEN finish_reason IN {_names(BLOCKED_REASONS)} THEN 'blocked'
                        WHEN finish_reason IN {_names(TRUNCATED_REASONS)} THEN 'truncated'
                        WHEN finish_reason NOT IN {_names(WHOLE_REASONS)} THEN 'failed'
                        WHEN answer_text <> '' OR is_embedding THEN 'ok'
                        WHEN len(list_filter({_SPOKEN}, lambda p: {_HAS_CONTENT})) > 0 THEN 'ok'
                        WHEN block_reason <> '' THEN 'blocked'
                        ELSE 'empty' END AS status
            FROM judged
        )
        SELECT line, key, status,
               CASE WHEN is_embedding AND answer_text = ''
                    THEN format('embedding of {{:,}} numbers', coalesce(json_array_length({_VALUES}), 0))
                    ELSE answer_text END AS "text",
               finish_reason,
               CASE WHEN failure IS NOT NULL
                    THEN coalesce(try_cast(failure ->> '$.code' AS INTEGER), {_NAMED_CODE}) END AS error_code,
               CASE WHEN status = 'ok' THEN ''
                    WHEN failure IS NOT NULL THEN
                        coalesce(nullif(CASE WHEN json_type(failure) = 'OBJECT'
                             THEN coalesce(failure ->> '$.message', failure ->> '$.status', '')
                             ELSE coalesce({_TOLD} ->> '$.error.message', failure ->> '$') END, ''),
                             CASE WHEN try_cast(failure ->> '$.code' AS INTEGER) IS NULL
                                  THEN 'an error without a code and a message' ELSE '' END)
                    WHEN {is_broken} THEN 'the embedding is not a list of numbers'
                    WHEN status = 'blocked' AND block_reason <> '' AND finish_reason IN {_names(WHOLE_REASONS)} THEN
                        concat_ws(': ', 'prompt blocked', block_reason, response.promptFeedback.blockReasonMessage)
                    WHEN status IN ('blocked', 'failed') THEN
                        concat_ws(': ', 'stopped', finish_reason, candidate.finishMessage)
                    ELSE '' END AS error_message,
               coalesce(response.modelVersion, '') AS model_version,
               {_tokens("coalesce(response.usageMetadata.promptTokenCount, response.tokenCount)")} AS input_tokens,
               {_tokens("response.usageMetadata.candidatesTokenCount")} AS output_tokens,
               {_tokens("response.usageMetadata.thoughtsTokenCount")} AS thoughts_tokens,
               CASE WHEN {_IS_PLAIN} AND parts[1]."inlineData" IS NULL THEN NULL
                    WHEN len(list_filter({_SPOKEN}, lambda p: p."inlineData" IS NOT NULL)) > 0 THEN [''] END AS files,
               {_CALLS} AS calls, {_GROUNDING} AS grounding, {_CITATIONS} AS citations, {_RATINGS} AS safety_ratings,
               answered_by
               {f", CASE WHEN {_IS_VECTOR} THEN vector END AS embedding" if with_embedding else ""}
        FROM rated
    """
