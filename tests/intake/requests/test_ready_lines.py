"""Ready lines as people have them: one meaning spelled otherwise, what does not go together, what is filled in."""

import json
from pathlib import Path
from typing import Any

import pytest

from gemini_batch_mcp.errors import RequestProblems
from gemini_batch_mcp.intake.request_files import RequestFile
from gemini_batch_mcp.intake.requests.filling import Filling
from gemini_batch_mcp.intake.requests.lines import LineChecker
from gemini_batch_mcp.intake.requests.reader import CopyNeeded, check_file, write_request_copy
from gemini_batch_mcp.intake.templates import TEMPLATES, read_template
from gemini_batch_mcp.intake.validator.json_text import JsonFault, parse
from gemini_batch_mcp.intake.validator.world import World

HI = [{"role": "user", "parts": [{"text": "Say hi"}]}]
TEXT = {"type": "STRING"}


def line(key: str = "k", contents: Any = HI, **members: Any) -> bytes:
    request = {"contents": contents, **members}
    return json.dumps({"key": key, "request": request}, separators=(",", ":")).encode()


def copied(lines: list[bytes], directory: Path, model: str = "", filling: Filling | None = None) -> RequestFile:
    source = directory / "lines.jsonl"
    source.write_bytes(b"".join(text + b"\n" for text in lines))
    return write_request_copy(
        source,
        directory / "sent.jsonl",
        task="generate",
        keys_path=directory / "keys.jsonl",
        max_file_bytes=1 << 30,
        world=World(model=model),
        filling=filling,
    )


def sent(file: RequestFile) -> list[Any]:
    return [json.loads(text)["request"] for text in file.path.read_bytes().splitlines()]


CASES = "Values had the wrong letter case"
LISTS = "A single value was given where a list is expected"

#: What is written, what is sent, and the warning's beginning.
SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "parts as one object": (
        {"system_instruction": {"parts": {"text": "Answer with one word"}}},
        {"system_instruction": {"parts": [{"text": "Answer with one word"}]}},
        LISTS,
    ),
    "tools as one object": ({"tools": {"google_search": {}}}, {"tools": [{"google_search": {}}]}, LISTS),
    "a level": (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}},
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}},
        CASES,
    ),
    "types": (
        {"generationConfig": {"responseSchema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        {"generationConfig": {"responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}}},
        CASES,
    ),
    "one turn": ({"contents": HI[0]}, {"contents": HI}, LISTS),
    "a role": (
        {"contents": [{"role": "User", "parts": [{"text": "x"}]}]},
        {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
        CASES,
    ),
    "one text": (
        {"generationConfig": {"stopSequences": "END", "responseModalities": "text"}},
        {"generationConfig": {"stopSequences": ["END"], "responseModalities": ["TEXT"]}},
        LISTS,
    ),
    "a part as text": ({"contents": [{"role": "user", "parts": "Say hi"}]}, {"contents": HI}, LISTS),
    "parts as texts": (
        {"contents": [{"role": "user", "parts": ["Say hi"]}]},
        {"contents": HI},
        "Parts were given as text",
    ),
    "true in quotes": (
        {"generationConfig": {"thinkingConfig": {"includeThoughts": "True"}}},
        {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
        "true or false stood in quotes",
    ),
    "a type and null": (
        {"generationConfig": {"responseSchema": {"type": ["string", "null"]}}},
        {"generationConfig": {"responseSchema": {"type": "STRING", "nullable": True}}},
        "A type was given together with null",
    ),
    "in a map of schemas": (
        {
            "generationConfig": {
                "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "array", "items": TEXT}}}
            }
        },
        {
            "generationConfig": {
                "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "ARRAY", "items": TEXT}}}
            }
        },
        CASES,
    ),
}


@pytest.mark.parametrize(("given", "right", "warning"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_spelling_with_one_meaning_is_mended_and_counted(
    given: dict[str, Any], right: dict[str, Any], warning: str, tmp_path: Path
) -> None:
    file = copied([line("a"), line("b", **given), line("c", **given)], tmp_path)

    assert sent(file)[1:] == [{"contents": HI, **right}] * 2 and file.mended
    assert any(text.startswith(f"{warning} in 2 lines (first: line 2)") for text in file.warnings)


@pytest.mark.parametrize(
    "members",
    [
        {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]},
        {"generationConfig": {"mediaResolution": "low"}},
        {"generationConfig": {"maxOutputTokens": [1]}},
        {"tools": "google_search"},
        {"contents": ["one", "two"]},
        {"generationConfig": {"responseSchema": {"type": ["string", "integer"]}}},
        {"generationConfig": {"thinkingConfig": {"includeThoughts": "yes"}}},
    ],
)
def test_what_could_mean_two_things_is_not_mended(members: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestProblems):
        copied([line(**members)], tmp_path)


CALL = {"functionCall": {"name": "f", "args": {"c": "ls"}}}
SIGNED = {**CALL, "thoughtSignature": "skip_thought_signature_validator"}
ANSWER = {"functionResponse": {"name": "f", "response": {"out": "a"}}}


def talk(calls: list[Any], answers: list[Any]) -> dict[str, Any]:
    return {"contents": [*HI, {"role": "model", "parts": calls}, {"role": "user", "parts": answers}]}


def configured(**config: Any) -> dict[str, Any]:
    return {"generationConfig": config}


def schema(**members: Any) -> dict[str, Any]:
    return configured(responseMimeType="application/json", responseSchema={"type": "OBJECT", "properties": members})


OLD, NEW, NEWEST = "gemini-2.5-flash", "gemini-3-flash-preview", "gemini-3.8-flash"
JSON_ANSWER = schema(a=TEXT)

#: A model, the members of a line, what a problem says, and what is said to do.
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "search and JSON on 2.5": (OLD, {"tools": [{"googleSearch": {}}], **JSON_ANSWER}, "googleSearch", "Gemini 3"),
    "an unpaired call": (NEW, talk([SIGNED, CALL], [ANSWER]), "2 functionCall parts", "Answer every call"),
    "a level on 2.5": (OLD, configured(thinkingConfig={"thinkingLevel": "LOW"}), "thinkingLevel", "thinkingBudget"),
    "a level and a budget on 2.5": (
        OLD,
        configured(thinkingConfig={"thinkingLevel": "LOW", "thinkingBudget": 100}),
        "thinkingLevel` is not taken",
        "thinkingBudget",
    ),
    "a budget from 3.6 on": (NEWEST, configured(thinking_config={"thinking_budget": 9}), "Budget", "thinkingLevel"),
    "a cache and tools": (
        NEW,
        {"cachedContent": "cachedContents/a", "tools": [{"codeExecution": {}}]},
        "beside tools",
        "into the cache",
    ),
    "a list without items": (NEW, schema(a={"type": "ARRAY"}), "properties.a` is an ARRAY without", '"items"'),
    "a format": (NEW, schema(c={"type": "STRING", "format": "email"}), '"email"', "date-time"),
    "numbers to choose from": (NEW, schema(d={"type": "INTEGER", "enum": ["1"]}), "STRING only", "STRING"),
    "an empty instruction": (NEW, {"systemInstruction": {"parts": [{"text": ""}]}}, "is empty", "leave"),
    "a list in a function": (
        NEW,
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "ARRAY"}}]}]},
        "tools[0].functionDeclarations[0].parameters` is an ARRAY",
        "items",
    ),
}


@pytest.mark.parametrize(("model", "members", "message", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_gemini_refuses_together_is_refused_with_line_and_fix(
    model: str, members: dict[str, Any], message: str, fix: str, tmp_path: Path
) -> None:
    contents = members.pop("contents", HI) if "contents" in members else HI
    # Far behind so many right lines that the fast decoders are at work.
    lines = [line(f"k{n}", **JSON_ANSWER) for n in range(200)] + [line("odd", contents, **members)]
    with pytest.raises(RequestProblems) as refusal:
        copied(lines, tmp_path, model)

    (problem,) = refusal.value.problems
    assert problem.line == 201 and message in problem.message and fix in problem.fix


#: A model, the members of a line, and what a warning says.
WARNED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a schema alone": (NEW, configured(responseSchema={"type": "OBJECT"}), "without `responseMimeType` in line 2"),
    "a level and a budget": (
        NEW,
        configured(thinkingConfig={"thinkingLevel": "LOW", "thinkingBudget": 100}),
        "has both thinkingLevel and thinkingBudget in line 2",
    ),
    "a call without its signature": (NEW, talk([CALL], [ANSWER]), "skip_thought_signature_validator"),
    "a required name that is not there": (
        NEW,
        configured(
            responseMimeType="application/json",
            responseSchema={"type": "OBJECT", "properties": {"a": TEXT}, "required": ["zz"]},
        ),
        'names "zz"',
    ),
    "a function's name": (NEW, {"tools": [{"functionDeclarations": [{"name": "1 f"}]}]}, '"1 f"'),
}


@pytest.mark.parametrize(("model", "members", "warning"), WARNED.values(), ids=WARNED)
def test_what_may_not_go_together_is_warned_of_and_sent(
    model: str, members: dict[str, Any], warning: str, tmp_path: Path
) -> None:
    members = dict(members)
    file = copied([line("a"), line("b", members.pop("contents", HI), **members)], tmp_path, model)

    assert file.count == 2
    assert [text for text in file.warnings if warning in text]


@pytest.mark.parametrize(
    ("model", "members"),
    [
        (NEW, {"tools": [{"googleSearch": {}}], **JSON_ANSWER}),
        (NEW, talk([SIGNED, CALL], [ANSWER, ANSWER])),
        (OLD, talk([CALL], [ANSWER])),
        (OLD, configured(thinkingConfig={"thinkingBudget": 100})),
        ("tunedModels/mine", configured(thinkingConfig={"thinkingLevel": "LOW"})),
        (NEW, schema(a={"type": "STRING", "format": "date-time"}, b={"type": "STRING", "enum": ["x"]})),
    ],
)
def test_what_goes_together_is_sent_without_a_word(model: str, members: dict[str, Any], tmp_path: Path) -> None:
    members = dict(members)
    contents = members.pop("contents", HI)
    file = copied([line(f"k{n}", contents, **members) for n in range(150)], tmp_path, model)

    assert file.count == 150 and file.warnings == ()


def test_our_own_templates_are_sent_without_a_word(tmp_path: Path) -> None:
    for template in TEMPLATES:
        if template.name in ("embeddings", "vertex"):
            continue
        file = copied(read_template(template.name).encode().splitlines(), tmp_path, NEW)
        assert file.warnings == (), template.name


def filled(lines: list[bytes], directory: Path, **config: Any) -> list[Any]:
    file = copied(lines, directory, filling=Filling("generate", {"generationConfig": config}))
    return [request.get("generationConfig", request.get("generation_config")) for request in sent(file)]


def test_settings_of_the_order_fill_in_what_lines_do_not_set(tmp_path: Path) -> None:
    lines = [
        line("none"),
        line("own", generationConfig={"temperature": 0}),
        line("snake", generation_config={"max_output_tokens": 5}),
        line("null", generationConfig=None),
        line("beside", thinkingConfig={"thinkingLevel": "LOW"}),
        line("in a text", [{"parts": [{"text": 'say "generationConfig"'}]}]),
        b'{"request": {"contents": [{"parts": [{"text": "x"}]}]}, "key": "turned"}',
    ]
    assert filled(lines, tmp_path, temperature=1, maxOutputTokens=9) == [
        {"temperature": 1, "maxOutputTokens": 9},
        {"temperature": 0, "maxOutputTokens": 9},
        {"max_output_tokens": 5, "temperature": 1},
        {"temperature": 1, "maxOutputTokens": 9},
        {"temperature": 1, "maxOutputTokens": 9, "thinkingConfig": {"thinkingLevel": "LOW"}},
        {"temperature": 1, "maxOutputTokens": 9},
        {"temperature": 1, "maxOutputTokens": 9},
    ]


def test_a_line_keeps_the_form_of_its_answer(tmp_path: Path) -> None:
    own = {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT", "properties": {"a": TEXT}}}
    assert filled([line(generationConfig=own)], tmp_path, responseSchema=TEXT, responseMimeType="text/x.enum") == [own]


@pytest.mark.parametrize("at", [0, 150, 999])
def test_a_large_file_is_filled_in_line_by_line(at: int, tmp_path: Path) -> None:
    lines = [line(f"k{n}", **(configured(temperature=0) if n == at else {})) for n in range(1000)]

    configs = filled(lines, tmp_path, temperature=1)

    assert configs == [{"temperature": 0 if n == at else 1} for n in range(1000)]


def test_lines_that_only_may_not_go_together_are_sent_from_the_users_own_file(tmp_path: Path) -> None:
    source = tmp_path / "lines.jsonl"
    source.write_bytes(line(**talk([CALL], [ANSWER])) + b"\n")

    file = check_file(
        source, task="generate", keys_path=tmp_path / "keys", sha256="", world=World(model="gemini-3.1-pro-preview")
    )

    assert file.path == source and len(file.warnings) == 1
    source.write_bytes(line(tools={"googleSearch": {}}) + b"\n")
    with pytest.raises(CopyNeeded):
        check_file(source, task="generate", keys_path=tmp_path / "keys", sha256="")


WHOLE = '{"key":"a","request":{"contents":[{"parts":[{"text":"hi {"}]}]}}'


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        (WHOLE[:-1], "has lost a }: the { at character 1 is never closed", 'hi {"}]}]}}` in place of `:"hi {"}]}]}`.'),
        (WHOLE[:-2], "the { at character 22 is never closed", "Add }} at the end"),
        (WHOLE[:-3], "the [ at character 34 is never closed", "Add ]}} at the end"),
        (
            WHOLE.replace('"hi {"}', '"hi {"'),
            "has lost a }: the { at character 45 is still open where a ] stands",
            "}]}]}}` in",
        ),
        (WHOLE.replace("}]}]}}", "}]}}}"), "has lost a ]: the [ at character 34", "Add the ]"),
        (WHOLE + "}", "has a } too many, at character 65", "Remove it"),
        (WHOLE[1:], "has lost its first {", "Add { at its beginning"),
        (WHOLE.replace('"a",', '"a"},'), "closes its object too early, before character 12", "Remove the }"),
        (WHOLE.replace("]}]", "],}]"), "has an extra comma", "Remove the comma"),
    ],
)
def test_a_lost_brace_is_called_that(text: str, message: str, fix: str) -> None:
    with pytest.raises(JsonFault) as fault:
        parse(text.encode())

    assert message in fault.value.message and fix in fault.value.fix


def test_a_checker_without_a_model_says_nothing_about_what_goes_together() -> None:
    examined = LineChecker("generate").examine(line(cachedContent="a", tools=[{"googleSearch": {}}]), 1)

    assert not examined.checked.problems and not examined.checked.notes
