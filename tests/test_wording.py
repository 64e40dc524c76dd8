"""Texts read as a native speaker would write them: phrases of translated English that no text of ours may hold."""

import ast
import re
from pathlib import Path
from typing import Final

import gemini_batch_mcp
from gemini_batch_mcp.cli.wording import _FLAGS, _OPTIONS, as_commands
from gemini_batch_mcp.text import share

#: A phrase as a pattern, and what to write in its place.
_INSTEAD: Final = {
    r"(?<!There )(?<!there )\bis no (?!longer)\w+\b": '"isn\'t a …", "is not valid …"',
    r"\bare no \w+(?= files?\b| texts?\b)": '"aren\'t …"',
    r"\banew\b": '"again"',
    r"\bgo(es)? on with\b": '"resumes"',
    r"\bpaid again\b": '"charged again"',
    r"\bno good answer\b": '"no usable answer"',
    r"\bsen[dt]s? again\b": '"resent", "resends"',
    r"\b[Gg]ive th(e|is) (same )?order again\b": '"Submit the order again"',
    r"\b[Mm]ake room\b": '"Free some space"',
    r"\bmay pass\b": '"retryable"',
    r"\bfor the end\b": '"for it to finish"',
    r"\bnot foreseen\b|\bunforeseen error\b": '"unexpected"',
    r"\bthat it names?\b.*\bcannot have\b|\bcannot have the file\b": '"names a file that can\'t be used"',
    r"\bnone in the low figure\b": '"the low figure counts no output"',
    r"\ba comma too many\b": '"an extra comma"',
    r"\bhas not the\b": '"does not have the"',
    r"\bnot known to (take|hold)\b|\btakes? batches\b": '"supports batches"',
    r"\bfor a moment\b": '"temporarily"',
    r"\(looked in\b": '"in …"',
    r"\bin any letter case\b": '"regardless of case"',
    r", which is refused\b": '"… are refused"',
    r"\b(goes|go) on where\b": '"resumes"',
    r"\bof it failed rows\b": '"for failed rows"',
}
_ROOT: Final = Path(gemini_batch_mcp.__file__).parent


def _texts(path: Path) -> list[tuple[int, str]]:
    """Return the string constants of a module that are no docstrings, each with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = [node.body for node in ast.walk(tree) if hasattr(node, "body") and isinstance(node.body, list)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [(node.lineno, node.value) for node in constants if isinstance(node.value, str)]


def test_no_text_of_ours_reads_as_translated() -> None:
    found = []
    for path in sorted(_ROOT.rglob("*.py")):
        for line, text in _texts(path):
            for pattern, better in _INSTEAD.items():
                if match := re.search(pattern, text):
                    found.append(f"{path.relative_to(_ROOT)}:{line}: {match[0]!r}: write {better}")
    assert not found, "\n".join(found)


def test_a_terminal_is_told_no_argument_by_its_name() -> None:
    """Of the rooms whose sentences both assistants and people at a terminal read; SQL's own words aside."""
    shared = [
        path for room in ("batches", "gemini", "intake", "results") for path in sorted((_ROOT / room).rglob("*.py"))
    ]
    names = "|".join(name for name in {**_FLAGS, **_OPTIONS} if "_" in name)
    found = [
        f"{path.relative_to(_ROOT)}:{line}: {match[0]} in {text!r}"
        for path in [*shared, _ROOT / "errors.py", _ROOT / "paths.py"]
        for line, text in _texts(path)
        if " " in text.strip() and not re.search(r"\b(CREATE|SELECT|UPDATE|FROM)\b", text)
        for match in re.finditer(rf"(?<![\w\"'{{.-])({names})(?![\w\"'}}=-])", as_commands(text))
    ]
    assert not found, "\n".join(found)


def test_the_phrases_are_found_where_they_stand() -> None:
    wrong = ("t.csv is no table.", "Order them anew.", "Give the order again.", "Make room, then ask again.")
    for text in wrong:
        assert any(re.search(pattern, text) for pattern in _INSTEAD), text


def test_counts_of_counts_have_their_noun_in_the_right_number() -> None:
    """`1 of 1 rows` comes of a noun that stands behind two numbers as it is; `text.share` has both."""
    plural = re.compile(r"\} of \{[^{}]*\} (?:rows|lines|requests|jobs|answers|batches)\b")
    found = [
        f"{path.relative_to(_ROOT)}: {match[0]}"
        for path in sorted(_ROOT.rglob("*.py"))
        for match in plural.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)
    assert plural.search('f"{done:,} of {total:,} rows"')
    assert share(1, 1, "row", "is", "are") == "1 of 1 row is"
    assert share(2, 3_000, "batch", "is", "are", plural="batches") == "2 of 3,000 batches are"
