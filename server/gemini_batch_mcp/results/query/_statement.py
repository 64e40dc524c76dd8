"""Which statements may run: one SELECT over given tables, judged by the tree that the engine's own parser makes.

Whatever kind of node, table or function is not known here is refused, so that what a later engine adds stays out until
somebody has looked at it; the engine has 1,100 functions, and every version adds some. Left out is whatever reads or
writes files, settings, variables, sequences, logs or the catalog, runs SQL given as text, or waits. The locked database
of `_database` is the second wall behind this one.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.results.query._database import engine_names
from gemini_batch_mcp.results.query._problems import shown_name, table_advice

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

#: Far above any query that somebody writes; it bounds what the parser and the planner are given to chew.
MAX_SQL_CHARS: Final = 20_000
#: The table that every query has.
RELATION: Final = "results"
ALLOWED: Final = (
    "Give one SELECT over the table results and those of also; WITH, FROM, VALUES, SUMMARIZE and DESCRIBE work, too. "
    "Files and settings cannot be read."
)

#: What the parser would stop at (it takes NUL for the end), and what cannot be handed to it.
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
_TABLES: Final = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_PARTS: Final = frozenset(
    {"ASCENDING", "DESCENDING", "ORDER_DEFAULT", "ORDER_MODIFIER", "DISTINCT_MODIFIER", "LIMIT_MODIFIER"}
)
_EXPRESSIONS: Final = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA"}
    | {"LAMBDA_REF", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)
_KIND_NAMES: Final = {"": "Statements of this kind are", "MULTI": "Several statements at once are"}
_DESCRIPTIONS: Final = frozenset({"DESCRIBE", "SUMMARY"})

_AGGREGATES: Final = """
    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_max_nulls_last
    arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr
    count count_if count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat
    histogram histogram_exact kahan_sum kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by
    mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum
    sum_no_overflow sumkahan var_pop var_samp variance wavg weighted_avg
"""
_WINDOWS: Final = """
    cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number
"""
_NUMBERS: Final = """
    abs acos acosh add asin asinh atan atan2 atanh bin binom bit_count bit_length bit_position bitstring cbrt ceil
    ceiling cos cosh cot degrees divide even exp factorial fdiv floor fmod gamma gcd get_bit greatest
    greatest_common_divisor hash isfinite isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod
    multiply nextafter pi pow power radians random round round_even roundbankers set_bit sign signbit sin sinh sqrt
    subtract tan tanh to_base to_binary to_hex trunc xor is_histogram_other_bin equi_width_bins
"""
_TEXTS: Final = """
    array_to_string array_to_string_comma_default ascii bar base64 char_length character_length chr concat concat_ws
    contains damerau_levenshtein decode editdist3 encode ends_with format format_bytes formatreadabledecimalsize
    formatreadablesize from_base64 from_binary from_hex hamming hex ilike_escape instr jaccard jaro_similarity
    jaro_winkler_similarity lcase left left_grapheme len length length_grapheme levenshtein like_escape lower lpad ltrim
    md5 md5_number md5_number_lower md5_number_upper mismatches nfc_normalize not_ilike_escape not_like_escape
    octet_length ord overlay parse_dirname parse_dirpath parse_filename parse_formatted_bytes parse_path position prefix
    printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table repeat replace reverse right right_grapheme rpad rtrim sha1 sha256 split
    split_part starts_with str_split str_split_regex string_split string_split_regex string_to_array strip_accents
    strlen strpos substr substring substring_grapheme suffix to_base64 translate trim ucase unbin unhex unicode upper
    url_decode url_encode
"""
_TIMES: Final = """
    age ago century current_date current_localtime current_localtimestamp date_add date_diff date_part date_sub
    date_trunc datediff datepart datesub datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch
    epoch_ms epoch_ns epoch_us era get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date
    make_time make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond
    minute month monthname nanosecond normalized_interval now quarter second strftime strptime time_bucket timezone
    timezone_hour timezone_minute to_centuries to_days to_decades to_hours to_microseconds to_millennia to_milliseconds
    to_minutes to_months to_quarters to_seconds to_timestamp to_weeks to_years today transaction_timestamp try_strptime
    week weekday weekofyear year yearweek
"""
_LISTS: Final = """
    aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat array_contains
    array_cosine_distance array_cosine_similarity array_cross_product array_distance array_distinct array_dot_product
    array_extract array_filter array_grade_up array_has array_has_all array_has_any array_indexof array_inner_product
    array_intersect array_length array_negative_dot_product array_negative_inner_product array_pop_back array_pop_front
    array_position array_prepend array_push_back array_push_front array_reduce array_resize array_reverse
    array_reverse_sort array_select array_slice array_sort array_transform array_unique array_value array_where
    array_zip cardinality element_at filter flatten generate_series generate_subscripts grade_up list_aggr
    list_aggregate list_any_value list_append list_apply list_approx_count_distinct list_avg list_bit_and list_bit_or
    list_bit_xor list_bool_and list_bool_or list_cat list_concat list_contains list_cosine_distance
    list_cosine_similarity list_count list_distance list_distinct list_dot_product list_element list_entropy
    list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof
    list_inner_product list_intersect list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median list_min
    list_mode list_negative_dot_product list_negative_inner_product list_pack list_position list_prepend list_product
    list_reduce list_resize list_reverse list_reverse_sort list_select list_sem list_skewness list_slice list_sort
    list_stddev_pop list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop
    list_var_samp list_where list_zip range reduce unnest unpivot_list
"""
_NESTED: Final = """
    array_to_json from_json from_json_strict json json_array json_array_length json_contains json_deep_merge json_each
    json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_group_array
    json_group_object json_group_structure json_insert json_keys json_merge_patch json_merge_patch_diff json_normalize
    json_object json_pretty json_quote json_remove json_replace json_set json_strip_nulls json_structure json_transform
    json_transform_strict json_type json_valid json_value map map_concat map_contains map_contains_entry
    map_contains_value map_entries map_extract map_extract_value map_from_entries map_keys map_values remap_struct row
    row_to_json struct_concat struct_contains struct_extract struct_extract_at struct_has struct_indexof struct_insert
    struct_keys struct_pack struct_position struct_update struct_values to_json union_extract union_tag union_value
"""
_REST: Final = """
    constant_or_null enum_code enum_first enum_last enum_range enum_range_boundary gen_random_uuid get_type if nullif
    switch typeof uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7
"""

#: Scalar, aggregate and window functions, in lower case; operators are not in it.
FUNCTIONS: Final = frozenset(
    " ".join((_AGGREGATES, _WINDOWS, _NUMBERS, _TEXTS, _TIMES, _LISTS, _NESTED, _REST)).split()
)

#: Functions that may stand where a table stands.
TABLE_FUNCTIONS: Final = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree"})

_Scope = frozenset[str]
_Place = tuple[Any, _Scope]


@dataclass(frozen=True, slots=True)
class CheckedStatement:
    """A statement that may run. `is_open_ended` says that it sorts all it finds and takes no LIMIT of its own."""

    parsed: "Statement"
    is_open_ended: bool


def checked_statement(
    connection: "DuckDBPyConnection", sql: str, relations: Iterable[str] = (RELATION,)
) -> CheckedStatement:
    """Return the one statement in `sql` if it may run; it may read `relations`, and nothing else.

    Raises:
        UsageError: it is no statement, more than one, or one that is not allowed.
        duckdb.Error: the parser's own words about a syntax error.
    """
    _refuse_text(sql)
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        found = f"The SQL contains {len(statements)} statements." if statements else "The SQL contains no statement."
        raise UsageError(found, ALLOWED)
    kind = _kind(statements[0])
    if kind != "SELECT":
        raise UsageError(f"{_KIND_NAMES.get(kind, f'{kind} statements are')} refused.", ALLOWED)
    try:
        tree = parsed_tree(connection, sql)
    except RecursionError:
        raise UsageError("The SQL is nested too deeply.", "Simplify it.") from None
    given_names = _check(tree, frozenset(name.lower() for name in relations))
    # A name that is a WITH to us can then never be one of the engine's own relations to the engine.
    if given_names and (taken := sorted(given_names & engine_names(connection))):
        raise UsageError(f"A table has the name {shown_name(taken[0])}, which the engine uses.", "Use another name.")
    modifiers = {modifier["type"] for modifier in tree["node"]["modifiers"]}
    return CheckedStatement(statements[0], "ORDER_MODIFIER" in modifiers and "LIMIT_MODIFIER" not in modifiers)


def _kind(statement: "Statement") -> str:
    try:
        return statement.type.name
    except ValueError:  # DuckDB 2.0 has kinds that its own list lacks, UPDATE EXTENSIONS among them
        return ""


def _refuse_text(sql: str) -> None:
    if len(sql) > MAX_SQL_CHARS:
        raise UsageError(f"The SQL has {len(sql):,} characters.", f"Shorten it to at most {MAX_SQL_CHARS:,}.")
    if _NO_TEXT.search(sql):
        raise UsageError("The SQL contains a control character.", "Write it as plain text.")


def parsed_tree(connection: "DuckDBPyConnection", sql: str) -> Any:
    """Return the one statement in `sql` as the engine's parser sees it.

    Raises:
        UsageError: it cannot be checked.
    """
    ((text,),) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()
    tree = json.loads(text)
    if tree["error"] or len(tree["statements"]) != 1:
        raise UsageError("The statement cannot be checked, so it is refused.", ALLOWED)
    return tree["statements"][0]


def _check(tree: Any, relations: _Scope) -> set[str]:
    """Visit every part of the tree, each with the tables that it may read where it stands; return all their names.

    Those are `relations`, and what WITH has given.
    """
    waiting: list[_Place] = [(tree, relations)]
    given: set[str] = set()
    while waiting:
        part, scope = waiting.pop()
        given |= scope
        if isinstance(part, list):
            waiting.extend((member, scope) for member in part)
        elif isinstance(part, dict):
            waiting.extend(_checked_part(part, scope))
    return given


def _checked_part(part: Mapping[str, Any], scope: _Scope) -> Iterator[_Place]:
    """Check one part by itself and return those inside it."""
    kind = part.get("type")
    expression = part.get("class")
    if expression is not None:
        _check_expression(part, expression)
    elif isinstance(kind, str):
        if kind in _NODES:
            return _inside_node(part, kind, scope)
        if kind in _TABLES:
            return _inside_table(part, kind, scope)
        if kind not in _PARTS:
            raise _refused(kind)
    return ((member, scope) for member in part.values())


def _check_expression(part: Mapping[str, Any], expression: str) -> None:
    if expression == "PARAMETER":
        raise UsageError("The SQL contains a parameter (? or $).", "Write the value in its place.")
    if expression not in _EXPRESSIONS:
        raise _refused(expression)
    if "function_name" in part:
        _check_function(part, FUNCTIONS)


def _check_function(part: Mapping[str, Any], allowed: frozenset[str]) -> None:
    # A name may stand behind a schema or, called as a method, behind a column; what counts is the last part.
    names = {part["function_name"].lower(), *(name.lower() for name in part["qualified_name"]["path"][-1:])}
    for name in names:
        if name not in allowed and not is_operator(name):
            near = difflib.get_close_matches(name, sorted(allowed), n=1, cutoff=0.8)
            advice = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"The function {shown_name(name)} is not available.",
                f"{advice}Functions that compute from their arguments are available; those for files, "
                "settings and the catalog are not.",
            )


def is_operator(name: str) -> bool:
    """True for names such as `||` or `~~*`, which the parser writes for operators."""
    return not any(character.isalnum() or character == "_" for character in name)


def _inside_node(node: Mapping[str, Any], kind: str, scope: _Scope) -> Iterator[_Place]:
    """Return what is inside a query; a name of its WITH counts from the next member on, in itself only if recursive."""
    for entry in (node.get("cte_map") or {}).get("map") or ():
        yield entry["value"], scope
        scope |= {entry["key"].lower()}
    for field, member in node.items():
        if field == "cte_map":
            continue
        # The engine looks a recursive name up in the second half only.
        is_recursion = kind == "RECURSIVE_CTE_NODE" and field == "right"
        yield member, scope | {node["cte_name"].lower()} if is_recursion else scope


def _inside_table(table: Mapping[str, Any], kind: str, scope: _Scope) -> Iterator[_Place]:
    """Return what is inside a table reference that may be read."""
    if kind == "BASE_TABLE":
        path = table["qualified_name"]["path"]
        name = table["table_name"]
        if path != [name] or name.lower() not in scope:
            raise UsageError(f"There is no table {shown_name('.'.join(path or [name]))}.", table_advice(scope))
    if kind == "SHOW_REF" and (table["show_type"] not in _DESCRIPTIONS or not table.get("query")):
        raise _refused("SHOW")
    function = table.get("function") if kind == "TABLE_FUNCTION" else None
    if function:
        _check_function(function, TABLE_FUNCTIONS)
        if function["class"] != "FUNCTION":
            raise _refused(function["class"])
        yield from ((member, scope) for member in function.values())
    yield from ((member, scope) for field, member in table.items() if function is None or field != "function")


def _refused(kind: str) -> UsageError:
    return UsageError(f"The statement contains a {shown_name(kind)} part; such parts are refused.", ALLOWED)
