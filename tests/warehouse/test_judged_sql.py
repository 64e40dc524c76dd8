"""What of a user's SQL BigQuery is given: conditions and queries over the tables that are there, and nothing else."""

import pytest
import sqlglot
from hypothesis import example, given
from hypothesis import strategies as st
from sqlglot import exp

from gemini_batch_mcp.domain import Order
from gemini_batch_mcp.errors import UsageError
from gemini_batch_mcp.warehouse.statements import SourceColumn, judged_query, plan_rows, table_named

SOURCE = table_named("bq://my-project.sales.reviews")
TABLES = {"results": table_named("bq://my-project.sales.found")}
COLUMNS = (
    SourceColumn("a", "STRING"),
    SourceColumn("n", "INTEGER"),
    SourceColumn("ts", "TIMESTAMP"),
    SourceColumn("s", "RECORD", fields=(SourceColumn("f", "STRING"),)),
    SourceColumn("l", "STRING", is_repeated=True),
)


def condition(where: str) -> str:
    order = Order(source=SOURCE.uri, prompt="{{a}}", where=where)
    return plan_rows(order, SOURCE, COLUMNS).condition


@pytest.mark.parametrize(
    ("where", "written"),
    [
        ("n > 3 AND a LIKE '%it\\'s%' -- why", "(`n` > 3 AND `a` LIKE '%it\\'s%')"),
        ("ts >= TIMESTAMP '2024-01-01'", "(`ts` >= CAST('2024-01-01' AS TIMESTAMP))"),
        ("'x' IN UNNEST(l) OR s.f = \"y\"", "('x' IN UNNEST(`l`) OR `s`.`f` = 'y')"),
        ("REGEXP_CONTAINS(a, r'^\\d+$')", "(REGEXP_CONTAINS(`a`, '^\\\\d+$'))"),
        ("SAFE_CAST(a AS INT64) IS NOT NULL", "(NOT SAFE_CAST(`a` AS INT64) IS NULL)"),
        ("JSON_VALUE(a, '$.x') IN ('1', '2')", "(JSON_VALUE(`a`, '$.x') IN ('1', '2'))"),
        ("DATE_DIFF(DATE(ts), DATE '2024-01-01', DAY) < 7 /* a week */", None),
        ("SAFE.SUBSTR(a, 2) = NET.HOST(a)", None),
        ("l[SAFE_OFFSET(0)] = '''it's''' AND MOD(n, 10) = 0x1", None),
    ],
)
def test_a_condition_is_written_anew(where: str, written: str | None) -> None:
    found = condition(where)
    assert written is None or found == written
    # What it says is what it said: written once more, it stays.
    assert condition(found) == f"({found})"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("TRUE) OR (TRUE", "more than one condition"),
        ("TRUE) UNION ALL SELECT 1 FROM x WHERE (TRUE", "more than one condition"),
        ("TRUE; DROP TABLE x", "several statements"),
        ("TRUE) LIMIT 5 --", "cannot be read"),
        ("n > (SELECT 1)", "SUBQUERY"),
        ("EXISTS (SELECT 1 FROM t)", "SELECT"),
        ("a IN (SELECT b FROM `p.d.t`)", "SUBQUERY"),
        ("ARRAY(SELECT 1)[OFFSET(0)] = 1", "SELECT"),
        ("COUNT(n) > 1", "several rows"),
        ("ROW_NUMBER() OVER () = 1", "WINDOW"),
        ("zz = 1", "there is no column zz"),
        ("nn = 1", "Did you mean n"),
        ("CURRENT_DATE() > DATE(ts)", "CURRENT_DATE gives another answer"),
        ("ts < CURRENT_TIMESTAMP", "another answer at another time"),
        ("RAND() < 0.5", "RAND is not available"),
        ("SESSION_USER() = 'x'", "SESSION_USER is not available"),
        ("ML.PREDICT(a)", "ML.PREDICT is not available"),
        ("`d`.fn(a)", "is not available"),
        ("`lower`(a) = 'x'", "is not available"),
        ("SAFE.ML.PREDICT(a)", "is not available"),
        ("EXTERNAL_QUERY('c', 'SELECT 1') = 1", "is not available"),
        ("@x = 1", "parameter"),
        ("@@project_id = 'x'", "parameter"),
        ("a = 'x\\x41'", "Write the character itself"),
        ("a = 'x' /*", "cannot be read"),
        ("n > 1 QUALIFY TRUE", "cannot be read"),
        ("a = 'x\0'", "control character"),
        ("n = 1 AND " * 3000 + "TRUE", "characters"),
    ],
)
def test_what_is_more_than_a_condition_is_refused(where: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        condition(where)
    assert words in str(refused.value)


#: Pieces from which something may be made that leaves its place.
_PIECES = st.sampled_from(
    [
        *(
            "'",
            '"',
            "`",
            "\\",
            "'''",
            "--",
            "#",
            "/*",
            "*/",
            "\n",
            ";",
            ")",
            "(",
            "a",
            "n",
            " OR ",
            " = ",
            "1",
            "r'",
            "b'",
        ),
        *(
            "SELECT 1",
            " FROM t",
            "UNION ALL ",
            "@x",
            "$$",
            "é",
            "\u2028",
            "TRUE",
            "LOWER(",
            ",",
            ".",
            "[",
            "]",
            "{",
            "}",
        ),
    ]
)


@given(st.lists(_PIECES, max_size=12).map("".join))
@example("a = '\\\\' OR '1' = '1'")
@example("a = r'\\' OR TRUE --'")
@example("a = '''\n''' OR TRUE")
def test_a_condition_that_is_taken_is_one_expression_over_columns(where: str) -> None:
    try:
        found = condition(where)
    except UsageError:
        return
    if not found:
        return
    tree = sqlglot.parse_one(f"SELECT 1 FROM t WHERE {found}", read="bigquery")
    assert [type(part).__name__ for part in tree.find_all(exp.Select, exp.Table, exp.Subquery)] == ["Select", "Table"]
    assert {column.parts[0].name for column in tree.find_all(exp.Column)} <= {"a", "n"}


@pytest.mark.parametrize(
    ("sql", "written"),
    [
        ("SELECT * FROM results", "SELECT * FROM `my-project`.`sales`.`found` AS `results`"),
        (
            "WITH x AS (SELECT key FROM results) SELECT r.key FROM x JOIN results AS r USING (key)",
            "WITH `x` AS (SELECT `key` FROM `my-project`.`sales`.`found` AS `results`) SELECT `r`.`key` FROM `x` "
            "JOIN `my-project`.`sales`.`found` AS `r` USING (`key`)",
        ),
        ("SELECT results.key, h.status FROM results, UNNEST(history) AS h", None),
        ("SELECT status, COUNT(*) FROM results GROUP BY ROLLUP (status) ORDER BY 2 DESC LIMIT 5", None),
        ("SELECT key FROM results QUALIFY ROW_NUMBER() OVER (PARTITION BY status ORDER BY key) = 1", None),
        ("SELECT ARRAY_AGG(DISTINCT key IGNORE NULLS ORDER BY key LIMIT 3) FROM results", None),
        ("SELECT APPROX_QUANTILES(n, 4)[OFFSET(2)], CURRENT_DATE() FROM results", None),
        ("SELECT * EXCEPT (text) FROM RESULTS UNION ALL (SELECT 1)", None),
        ("SELECT TIMESTAMP_TRUNC(ts, WEEK(MONDAY)), JSON_VALUE(json, '$.\"a b\"[0]') FROM results", None),
    ],
)
def test_a_query_reads_the_real_tables(sql: str, written: str | None) -> None:
    found = judged_query(sql, TABLES)
    assert written is None or found == written
    tables = {table.sql("bigquery") for table in sqlglot.parse_one(found, read="bigquery").find_all(exp.Table)}
    assert all(name.startswith("`my-project`.`sales`.`found`") or name == "`x`" for name in tables), tables


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM results WHERE TRUE",
        "INSERT INTO results VALUES (1)",
        "MERGE results USING x ON TRUE WHEN MATCHED THEN DELETE",
        "DROP TABLE results",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP FUNCTION f() AS (1); SELECT f()",
        "EXPORT DATA OPTIONS (uri = 'gs://x/*') AS SELECT 1",
        "LOAD DATA INTO x FROM FILES (uris = ['gs://x'])",
        "GRANT `x` ON TABLE y TO 'z'",
        "CALL d.p()",
        "DECLARE x INT64",
        "BEGIN SELECT 1; END",
        "EXECUTE IMMEDIATE 'SELECT 1'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM other",
        "SELECT * FROM `p.d.t`",
        "SELECT * FROM d.results",
        "SELECT * FROM results.history",
        "SELECT * FROM `results*`",
        "SELECT * FROM INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM results, d.t",
        "SELECT * FROM UNNEST((SELECT ARRAY_AGG(x) FROM d.t))",
        "WITH results AS (SELECT 1) SELECT * FROM results",
        "WITH RECURSIVE x AS (SELECT 1) SELECT * FROM x, d.t",
        "SELECT * FROM EXTERNAL_QUERY('c', 'SELECT 1')",
        "SELECT * FROM ML.PREDICT(MODEL m, TABLE results)",
        "SELECT * FROM AI.FORECAST(TABLE results)",
        "SELECT * FROM VECTOR_SEARCH(TABLE results, 'x', TABLE results)",
        "SELECT * FROM APPENDS(TABLE results, NULL, NULL)",
        "SELECT * FROM results FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()",
        "SELECT * FROM results TABLESAMPLE SYSTEM (10 PERCENT)",
        "SELECT KEYS.NEW_KEYSET('x')",
        "SELECT d.fn(key) FROM results",
        "SELECT @x, ?",
        "SELECT 1 INTO x",
        "",
    ],
)
def test_what_is_no_query_over_the_tables_is_refused(sql: str) -> None:
    with pytest.raises(UsageError) as refused:
        judged_query(sql, TABLES)
    assert refused.value.next_step
