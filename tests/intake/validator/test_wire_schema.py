"""The wire schema as data: consistent with itself, with proto-JSON's names, and with base64."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemini_batch_mcp.intake.validator._messages import MESSAGES, ONE_OF, VERTEX_ONLY
from gemini_batch_mcp.intake.validator.enums import ENUMS, STRING_ENUMS
from gemini_batch_mcp.intake.validator.wire_schema import (
    SCALARS,
    enum_accepts_numbers,
    is_base64,
    message,
    parse_field,
    request_message,
)
from gemini_batch_mcp.json_members import snake_case


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_of_the_table_can_be_read(name: str) -> None:
    known = message(name)

    assert set(known.fields) == set(MESSAGES[name])
    assert set(known.one_of) <= set(known.fields)
    assert not known.vertex_only & set(known.fields)
    for field in known.fields.values():
        assert known.spellings[field.name] is known.spellings[field.snake_name] is field
        assert (field.type in SCALARS) + field.is_message + field.is_enum == 1


def test_every_message_and_enum_is_used() -> None:
    used = {field.type for name in MESSAGES for field in message(name).fields.values()}

    assert set(MESSAGES) - used == {"GenerateContentRequest", "EmbedContentRequest"}
    assert set(ENUMS) == used & set(ENUMS)
    assert set(ONE_OF) <= set(MESSAGES) and set(VERTEX_ONLY) <= set(MESSAGES) and set(ENUMS) >= STRING_ENUMS


def test_a_request_is_described_for_each_task() -> None:
    assert [field.name for field in request_message("generate").required] == ["contents"]
    assert [field.name for field in request_message("embed").required] == ["content"]


@pytest.mark.parametrize(
    ("camel", "snake"),
    [("topP", "top_p"), ("mimeType", "mime_type"), ("text", "text"), ("sseReadTimeout", "sse_read_timeout")],
)
def test_names_have_the_spelling_of_their_proto(camel: str, snake: str) -> None:
    assert snake_case(camel) == snake


def test_the_notation_says_type_shape_range_and_need() -> None:
    field = parse_field("stopSequences", "string[] ..5 !")

    assert (field.type, field.shape, field.low, field.high, field.required) == ("string", "list", None, 5, True)
    assert (parse_field("x", "int32 -1..").low, parse_field("x", "Schema{}").shape) == (-1, "map")


@pytest.mark.parametrize("notation", ["", "string?", "Unknown", "string[]{}", "int32 1", "string required"])
def test_an_unknown_notation_is_an_error(notation: str) -> None:
    with pytest.raises(ValueError, match="is not a known type"):
        parse_field("member", notation)


def test_roles_have_no_numbers() -> None:
    assert not enum_accepts_numbers("Role") and enum_accepts_numbers("HarmCategory")


@given(st.binary(max_size=40))
def test_whatever_base64_writes_is_base64(data: bytes) -> None:
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        assert is_base64(encoded.decode()) and is_base64(encoded.decode().rstrip("="))


@pytest.mark.parametrize(
    "text", ["A", "QUJDR", "====", "Q===", "QQ=", "Q=Q=", "QQ==QQ==", "QUJD=", "a b=", "é", "QQ\n=", "QQ=="[:1]]
)
def test_other_text_is_no_base64(text: str) -> None:
    assert not is_base64(text)
