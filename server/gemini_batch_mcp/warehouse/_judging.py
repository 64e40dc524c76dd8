"""What of a user's SQL may run in BigQuery: judged by its tokens and by its tree, and written anew from the tree.

The text that BigQuery gets is never the user's: what our parser took for a text, a name or a comment is one there, too.
Whatever kind of part or function is not known here is refused, so that what BigQuery learns to do stays out until
somebody has looked at it. Left out is whatever writes, reads other tables or services, or runs SQL given as text.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from gemini_batch_mcp.errors import ConfigurationError, UsageError
from gemini_batch_mcp.intake.validator.corrections import shown
from gemini_batch_mcp.warehouse._functions import FUNCTIONS, NET_FUNCTIONS, WORDS

if TYPE_CHECKING:
    from sqlglot import Token, exp

#: Far above any query that somebody writes; it bounds what the parser is given to chew.
MAX_SQL_CHARS: Final = 20_000
DIALECT: Final = "bigquery"
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
#: Escapes of a literal that our parser reads as BigQuery does.
_ODD_ESCAPE: Final = re.compile(r"""(?:[^\\]|^)(?:\\\\)*\\(?![\\'"nrt])""", re.DOTALL)
_BEGINNINGS: Final = frozenset({"SELECT", "WITH", "FROM", "("})
_PREFIXES: Final = frozenset({"SAFE", "NET"})


def parsed(sql: str, advice: str) -> "exp.Expression":
    """Return the one query in `sql` as a tree; functions in it are known ones. `advice` says what may be given.

    Raises:
        UsageError: it is none, is more than one, or has something in it that may not run.
        ConfigurationError: the library that judges it is not installed.
    """
    if len(sql) > MAX_SQL_CHARS:
        raise UsageError(f"The SQL has {len(sql):,} characters.", f"Shorten it to at most {MAX_SQL_CHARS:,}.")
    if _NO_TEXT.search(sql):
        raise UsageError("The SQL contains a control character.", "Write it as plain text.")
    sqlglot = _library()
    try:
        tokens = sqlglot.tokenize(sql, read=DIALECT)
        if tokens and tokens[0].text.upper() not in _BEGINNINGS:
            raise UsageError("The SQL isn't a SELECT.", advice)
        _check_tokens(tokens, sql)
        statements = [statement for statement in sqlglot.parse(sql, read=DIALECT) if statement is not None]
    except sqlglot.errors.SqlglotError as error:
        raise UsageError(f"The SQL cannot be read: {_said(error)}.", advice) from None
    except RecursionError:
        raise UsageError("The SQL is nested too deep.", "Write it with fewer brackets.") from None
    if len(statements) != 1:
        what = "Several statements at once are" if statements else "Nothing is"
        raise UsageError(f"{what} given.", advice)
    tree: exp.Expression = statements[0]
    return tree


def written(tree: "exp.Expression", sql: str) -> str:
    """Return a tree that `sql` was parsed to as SQL again, every name between backticks.

    Raises:
        UsageError: it would be read as another one, or a text in it has become another one.
    """
    sqlglot = _library()
    given = _texts_in(sql)
    sql = str(tree.sql(dialect=DIALECT, identify=True, comments=False))
    try:
        again = sqlglot.parse_one(sql, read=DIALECT)
    except sqlglot.errors.SqlglotError:
        again = None
    is_same = again is not None and again.sql(dialect=DIALECT, identify=True, comments=False) == sql
    if not is_same or given - _texts_in(sql):
        raise UsageError("The SQL cannot be checked, so it is refused.", "Write it in a simpler way.")
    return sql


def _texts_in(sql: str) -> "Counter[str]":
    """Return the texts that stand in a statement, with how often each does."""
    from sqlglot import TokenType

    kinds = (TokenType.STRING, TokenType.RAW_STRING)
    return Counter(token.text for token in _library().tokenize(sql, read=DIALECT) if token.token_type in kinds)


def refuse_parts(tree: "exp.Expression", allowed: Sequence[type], advice: str) -> None:
    """Refuse a tree with parts that are neither conditions, functions, nor of these kinds.

    Raises:
        UsageError: it has some.
    """
    from sqlglot import exp

    for node in tree.walk():
        if isinstance(node, exp.Parameter | exp.Placeholder | exp.SessionParameter):
            raise UsageError("The SQL contains a parameter (@ or ?).", "Write the value in its place.")
        if isinstance(node, exp.Identifier) and re.search(r"[`\\\x00-\x1f]", node.name):
            raise UsageError(f"There is no column {shown(node.name)}.", advice)
        if not isinstance(node, (*_always(), *allowed)):
            raise UsageError(
                f"The SQL contains a {shown(type(node).__name__.upper())} part; such parts are refused.", advice
            )


def _always() -> tuple[type, ...]:
    from sqlglot import exp

    return (
        exp.Func,
        exp.Binary,
        exp.Unary,
        exp.Predicate,
        exp.Literal,
        exp.Column,
        exp.Identifier,
        exp.Boolean,
        exp.Null,
        exp.DataType,
        exp.Interval,
        exp.Var,
        exp.Tuple,
        exp.Bracket,
        exp.Between,
        exp.In,
        exp.RawString,
        exp.ByteString,
        exp.PropertyEQ,
        exp.Alias,
        exp.DataTypeParam,
        exp.IntervalSpan,
        exp.WeekStart,
        exp.HexString,
        exp.JSONPath,
        exp.JSONPathPart,
    )


def _check_tokens(tokens: "Sequence[Token]", sql: str) -> None:
    from sqlglot import TokenType

    strings = {TokenType.STRING, TokenType.RAW_STRING, TokenType.BYTE_STRING, TokenType.HEREDOC_STRING}
    for before, token, after in _neighbours(tokens):
        if token.token_type in strings:
            own = sql[token.start : token.end + 1]
            is_odd = token.token_type is not TokenType.RAW_STRING and _ODD_ESCAPE.search(own)
            if is_odd or token.token_type is TokenType.HEREDOC_STRING:
                raise UsageError(
                    f"The SQL has the text {shown(own)} with an escape that is not read here.",
                    "Write the character itself.",
                )
        elif token.text == ";" and after is not None:
            raise UsageError("Several statements at once are given.", "Give one.")
        elif after is not None and after.text == "(" and _is_name(token):
            prefix = before[-2].text.upper() if len(before) > 1 and before[-1].text == "." else ""
            _check_function(token, prefix, is_path=bool(before) and before[-1].text == ".")


def _neighbours(tokens: "Sequence[Token]") -> "Iterator[tuple[Sequence[Token], Token, Token | None]]":
    """Yield each token with up to two before it and the one behind it."""
    for place, token in enumerate(tokens):
        yield tokens[max(0, place - 2) : place], token, tokens[place + 1] if place + 1 < len(tokens) else None


def _is_name(token: "Token") -> bool:
    from sqlglot import TokenType

    return token.token_type is TokenType.IDENTIFIER or re.fullmatch(r"[A-Za-z_]\w*", token.text) is not None


def _check_function(token: "Token", prefix: str, *, is_path: bool) -> None:
    from sqlglot import TokenType

    called = token.text.upper()
    known = NET_FUNCTIONS if prefix == "NET" else FUNCTIONS if is_path else FUNCTIONS | WORDS
    if token.token_type is not TokenType.IDENTIFIER and called in known and (not is_path or prefix in _PREFIXES):
        return
    near = difflib.get_close_matches(called, sorted(FUNCTIONS), n=1, cutoff=0.8)
    path = f"{prefix}.{called}" if is_path else called
    raise UsageError(
        f"The function {shown(path)} is not available.",
        f"{f'Did you mean {near[0]}? ' if near and not is_path else ''}Functions that compute from their arguments are "
        "available; those of models, other services and of one's own are not.",
    )


def _library() -> Any:
    try:
        import sqlglot
        import sqlglot.errors
    except ImportError:
        raise ConfigurationError(
            "sqlglot is not installed; SQL that BigQuery is to run is judged with it.",
            "Install this server with its extra: pip install 'gemini-batch-mcp[vertex]'.",
        ) from None
    return sqlglot


def _said(error: Exception) -> str:
    """Return what the parser says, without its picture of the place."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return shown(re.sub(r"\x1b\[[0-9;]*m", "", first)).rstrip(".")
