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

from gemini_batch_mcp.results.outcomes import (
    BLOCKED_REASONS,
    CODES,
    CONTENT_MEMBERS,
    KEPT_MEMBERS,
    MAX_TOKENS_PER_ROW,
    TRUNCATED_REASONS,
    WHOLE_REASONS,
)
from gemini_batch_mcp.results.table.lines import REPLY_LOST

# Only the members named here are copied out of a line; images and other bulk are skipped by the parser. Scalars are
# read as text, so that a number given as a string (and the reverse) never costs the row. `error` and `status` stay
# JSON because they may be an object or a string.
_PART: Final = ", ".join(
    [
        '"text" VARCHAR',
        "thought VARCHAR",
        *(f'"{name}" {"JSON" if name in KEPT_MEMBERS else "STRUCT(_ VARCHAR)"}' for name in CONTENT_MEMBERS),
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
_IS_TEXT: Final = f"""coalesce({_IS_PLAIN} AND parts[1]."text" IS NOT NULL AND len(response.candidates) = 1, false)"""
_SPOKEN: Final = "list_filter(parts, lambda p: p.thought IS DISTINCT FROM 'true')"

#: The numbers of an embedding as JSON. A request with one content has one; of several, the first is taken.
_VALUES: Final = """coalesce(response.embedding."values", json_extract(response.embeddings, '$[0].values'))"""
_VECTOR: Final = f"CASE WHEN is_embedding THEN try_cast({_VALUES} AS FLOAT[]) END"
_IS_VECTOR: Final = "len(vector) > 0 AND len(list_filter(vector, lambda n: coalesce(isfinite(n), false))) = len(vector)"


#: A failure that is text, as Vertex AI writes it: "Bad Request: {…}", where the JSON is Google's own error.
_WORDS: Final = "CASE WHEN json_type(failure) = 'VARCHAR' THEN failure ->> '$' END"
_TOLD: Final = f"TRY(CAST(nullif(regexp_extract({_WORDS}, '[{{].*[}}]', 0, 's'), '') AS JSON))"
_BY_NAME: Final = {name: code for code, names in CODES.items() for name in names}
# Two constant lists: planning a comparison with each name would take longer than reading a small batch.
_NAMED_CODE: Final = "string_split('{}', '|')[list_position(string_split('{}', '|'), {})]::INTEGER".format(
    "|".join(map(str, _BY_NAME.values())),
    "|".join(_BY_NAME),
    f"upper(coalesce({_TOLD} ->> '$.error.status', trim(split_part({_WORDS}, ':', 1))))",
)


def _names(names: tuple[str, ...]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in names) + ")"


def _tokens(value: str) -> str:
    return f"least(greatest(try_cast({value} AS BIGINT), 0), {MAX_TOKENS_PER_ROW})"


_HAS_CONTENT: Final = " OR ".join(f'p."{name}" IS NOT NULL' for name in CONTENT_MEMBERS)


_KEPT: Final = "CASE {} END".format(
    " ".join(f"""WHEN p."{name}" IS NOT NULL THEN json_object('{name}', p."{name}")""" for name in KEPT_MEMBERS)
)
#: Of each candidate its text, what it holds beside that, and why it was stopped where something stopped it.
_BY_CANDIDATE: Final = f"""list_transform(
    list_transform(response.candidates, lambda c: struct_pack(
        parts := list_filter(c.content.parts, lambda p: p.thought IS DISTINCT FROM 'true'),
        reason := c.finishReason)),
    lambda c: struct_pack(
        spoken := coalesce(array_to_string(list_transform(c.parts, lambda p: p."text"), ''), ''),
        kept := list_filter(list_transform(c.parts, lambda p: {_KEPT}), lambda k: k IS NOT NULL),
        stopped := CASE WHEN coalesce(c.reason, '') NOT IN {_names(WHOLE_REASONS)} THEN c.reason END))"""
#: What an answer holds beside its text and its files, as a JSON list; NULL for nothing. A further candidate has all
#: that there is to say of it.
_CALLS: Final = """nullif(CAST(to_json(list_concat(found[1].kept, list_transform(found[2:], lambda c:
    CASE WHEN coalesce(len(c.kept), 0) = 0 AND c.stopped IS NULL THEN json_object('candidate', c.spoken)
         WHEN c.stopped IS NULL THEN json_object('candidate', c.spoken, 'calls', c.kept)
         WHEN coalesce(len(c.kept), 0) = 0 THEN json_object('candidate', c.spoken, 'finishReason', c.stopped)
         ELSE json_object('candidate', c.spoken, 'calls', c.kept, 'finishReason', c.stopped) END))) AS VARCHAR),
    '[]')::JSON"""


def _members(value: str, path: str, words: str) -> str:
    """Return for each member `m` of a list in JSON what `words` makes of it; nothing where there is no such list."""
    return f"list_transform(coalesce(json_extract({value}, '{path}[*]'), []::JSON[]), lambda m: {words})"


def _first(*paths: str) -> str:
    """Return the first of the members of `m` that says something, as text; NULL where none does."""
    if len(paths) == 1:
        return f"nullif(m ->> '$.{paths[0]}', '')"
    listed = ", ".join(f"'$.{path}'" for path in paths)
    return f"list_filter(json_extract_string(m, [{listed}]), lambda said: said <> '')[1]"


def _named(value: str, path: str, title: str, address: str, behind: str = "NULL") -> str:
    """Return for each member of a list its title with its address behind it, or the one of them that is there.

    What is `behind` both comes last. Each stands once in the query: the engine plans what is written, not what is run.
    """
    found = f"{{'title': {title}, 'address': {address}, 'behind': {behind}}}"
    return f"""list_transform({_members(value, path, found)}, lambda f:
        CASE WHEN f.title <> f.address THEN f.title || ' (' || f.address || ')'
             ELSE coalesce(f.address, f.title) END || coalesce(f.behind, ''))"""


def _joined(*lists: str) -> str:
    """Return the texts of lists, one a line; NULL for none."""
    joined = lists[0]
    for more in lists[1:]:
        joined = f"list_concat({joined}, {more})"
    return f"nullif(array_to_string({joined}, chr(10)), '')"


_CHUNKS: Final = ("web", "retrievedContext", "maps", "image")
_QUERIES: Final = ("webSearchQueries", "imageSearchQueries", "retrievalQueries")
_SEARCHED: Final = ", ".join(f"json_extract_string(candidate.groundingMetadata, '$.{name}[*]')" for name in _QUERIES)
_SOURCES: Final = _joined(
    _named(
        "candidate.groundingMetadata",
        "$.groundingChunks",
        _first(*(f"{chunk}.title" for chunk in _CHUNKS)),
        _first(*(f"{chunk}.uri" for chunk in _CHUNKS), "image.sourceUri", "retrievedContext.documentName"),
    ),
    _named(
        "candidate.urlContextMetadata",
        "$.urlMetadata",
        "NULL",
        _first("retrievedUrl"),
        f"' (' || nullif({_first('urlRetrievalStatus')}, 'URL_RETRIEVAL_STATUS_SUCCESS') || ')'",
    ),
    f"list_transform(flatten([{_SEARCHED}]), lambda query: 'searched: ' || query)",
)
#: What an answer was found in: each source by title and address, each page that was read, what was searched for.
_GROUNDING: Final = f"""CASE WHEN candidate.groundingMetadata IS NOT NULL OR candidate.urlContextMetadata IS NOT NULL
    THEN {_SOURCES} END"""
#: The list has one name in Gemini's documentation, another in its libraries.
_QUOTED: Final = _joined(
    *(
        _named(
            "candidate.citationMetadata",
            f"$.{name}",
            _first("title"),
            _first("uri"),
            f"', license ' || {_first('license')}",
        )
        for name in ("citationSources", "citations")
    )
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
                   CASE WHEN NOT {_IS_TEXT} THEN {_BY_CANDIDATE} END AS found,
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
