"""Functions of GoogleSQL that compute from their arguments, and words of its syntax that brackets follow.

Left out are those of models (`ML.`, `AI.`), of other services (EXTERNAL_QUERY), of keys (`KEYS.`), of the session, what
ends a query (ERROR), and all that somebody has made; what is not here is refused.
"""

from typing import Final

_AGGREGATES: Final = """
    any_value approx_count_distinct approx_quantiles approx_top_count approx_top_sum array_agg array_concat_agg avg
    bit_and bit_or bit_xor corr count countif covar_pop covar_samp grouping logical_and logical_or max max_by min min_by
    stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance
"""
_WINDOWS: Final = """
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank percentile_cont percentile_disc
    rank row_number
"""
_NUMBERS: Final = """
    abs acos acosh asin asinh atan atan2 atanh bit_count cbrt ceil ceiling cos cosh cosine_distance cot coth csc csch
    div exp euclidean_distance floor greatest ieee_divide is_inf is_nan least ln log log10 mod pow power range_bucket
    round safe_add safe_divide safe_multiply safe_negate safe_subtract sec sech sign sin sinh sqrt tan tanh trunc
"""
_TEXTS: Final = """
    ascii byte_length char_length character_length chr code_points_to_bytes code_points_to_string concat contains_substr
    edit_distance ends_with farm_fingerprint format from_base32 from_base64 from_hex initcap instr left length lower
    lpad ltrim md5 normalize normalize_and_casefold octet_length regexp_contains regexp_extract regexp_extract_all
    regexp_instr regexp_replace regexp_substr repeat replace reverse right rpad rtrim safe_convert_bytes_to_string sha1
    sha256 sha512 soundex split starts_with strpos substr substring to_base32 to_base64 to_code_points to_hex translate
    trim unicode upper
"""
_TIMES: Final = """
    current_date current_datetime current_time current_timestamp date date_add date_bucket date_diff date_from_unix_date
    date_sub date_trunc datetime datetime_add datetime_bucket datetime_diff datetime_sub datetime_trunc extract
    format_date format_datetime format_time format_timestamp justify_days justify_hours justify_interval last_day
    make_interval parse_date parse_datetime parse_time parse_timestamp string time time_add time_diff time_sub
    time_trunc timestamp timestamp_add timestamp_bucket timestamp_diff timestamp_micros timestamp_millis
    timestamp_seconds timestamp_sub timestamp_trunc unix_date unix_micros unix_millis unix_seconds
"""
_LISTS: Final = """
    array array_avg array_concat array_filter array_first array_includes array_is_distinct array_last array_length
    array_max array_min array_reverse array_slice array_sum array_to_string array_transform generate_array
    generate_date_array generate_timestamp_array offset ordinal safe_offset safe_ordinal struct unnest
"""
_NESTED: Final = """
    bool float64 int64 json_array json_extract json_extract_array json_extract_scalar json_extract_string_array
    json_keys json_object json_query json_query_array json_type json_value json_value_array lax_bool lax_float64
    lax_int64 lax_string parse_json to_json to_json_string
"""
_REST: Final = """
    bit_cast_to_int64 cast coalesce if ifnull nullif nullifzero parse_bignumeric parse_numeric safe_cast zeroifnull
"""

#: In capitals.
FUNCTIONS: Final = frozenset(
    " ".join((_AGGREGATES, _WINDOWS, _NUMBERS, _TEXTS, _TIMES, _LISTS, _NESTED, _REST)).upper().split()
)
#: Those behind `NET.`, which look at a text and at nothing on the net.
NET_FUNCTIONS: Final = frozenset({"HOST", "PUBLIC_SUFFIX", "REG_DOMAIN"})
#: Words that are no functions, and types whose limits stand in brackets.
WORDS: Final = frozenset(
    """
    all and any as between by case cross cube distinct else end except exists filter from full having in inner interval
    intersect is join left like limit not numeric bignumeric on or over partition qualify recursive replace right rollup
    select sets some then union using values week when where with window rows grouping bytes
    """.upper().split()
)
#: Functions whose answer is another one at another time; the first may stand without brackets.
CLOCK: Final = frozenset({"CURRENT_DATE", "CURRENT_DATETIME", "CURRENT_TIME", "CURRENT_TIMESTAMP"})
