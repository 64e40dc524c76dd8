"""Secrets are cut out by their values, in whatever form, and nothing else is."""

import base64
import html
import json
import random
from pathlib import Path
from urllib.parse import quote

import pytest

from gemini_batch_mcp.redaction import Secrets
from gemini_batch_mcp.settings import Settings, secrets_of
from support.keys import KEYS, complaint, traces

WORDS = "The batch reviews-abc123 has 3 rows; JOB_STATE_SUCCEEDED, gemini-3-flash-preview, $0.0042."


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_any_shape_is_cut_out_in_every_form(key: str) -> None:
    secrets = Secrets.of([key])
    said = complaint(key)
    assert len(traces(said, key)) >= 2
    for text in (said, json.dumps({"m": said}), html.escape(said), repr(said), quote(said), said * 3):
        assert traces(secrets.cut(text), key) == []
        assert len(secrets.cut_bytes(text.encode())) == len(text.encode())
    for text in (said, json.dumps({"m": said})):
        assert key not in secrets.cut_bytes(text.encode()).decode()
    for before in range(3):
        # Wherever it begins in what was put into base64.
        encoded = base64.b64encode(b"x" * before + key.encode() + b"yz").decode()
        assert "[secret]" in secrets.cut(encoded) or len(key) < 9
    assert secrets.cut(WORDS) == WORDS
    assert json.loads(secrets.cut(json.dumps({"a": said, "b": [1]})))["b"] == [1]
    assert repr(secrets) == "Secrets(1)"


def test_a_key_is_cut_out_of_a_stream_wherever_its_pieces_end() -> None:
    chance = random.Random(3)
    for key in KEYS:
        secrets = Secrets.of([key])
        raw = key.encode()
        for _ in range(40):
            text = b"".join(chance.choice([raw, b"abc", raw[: len(raw) // 2], b"\n", b"row"]) for _ in range(6))
            cut, held, place = b"", b"", 0
            while place < len(text):
                size = chance.randrange(1, 2 * len(raw))
                piece = bytearray(held + text[place : place + size])
                place += size
                filled_bytes = len(piece)
                sure = secrets.cut_piece(piece + b"left over", filled_bytes, is_last=False)
                assert secrets.cut_piece(piece, filled_bytes, is_last=place >= len(text)) >= sure
                sure = filled_bytes if place >= len(text) else sure
                cut, held = cut + piece[:sure], bytes(piece[sure:])
            assert len(cut) == len(text)
            assert raw not in cut
            if raw not in text and raw[: 2 * len(raw) // 3] not in text:
                assert cut == text or len(set(key)) < 3


def test_what_is_too_short_to_be_a_secret_is_left_alone() -> None:
    secrets = Secrets.of(["x", "test", "sandbox", ""])
    assert secrets.cut("test the sandbox") == "test the sandbox"
    assert secrets.cut_bytes(b"test") == b"test"
    piece = bytearray(b"test")
    assert secrets.cut_piece(piece, 4, is_last=False) == 4
    assert bytes(piece) == b"test"


def test_members_and_their_names_are_cut_at_any_depth() -> None:
    secrets = Secrets.of(["correct-horse"])
    value = {"a": ["x correct-horse"], "correct-horse": {"b": 1, "c": None}}
    assert secrets.cut_all(value) == {"a": ["x [secret]"], "[secret]": {"b": 1, "c": None}}


def test_all_that_is_secret_in_an_environment_is_known() -> None:
    env = {
        "GOOGLE_API_KEY": "first-key-of-two",
        "GEMINI_API_KEY": "second-key-of-two",
        "HTTPS_PROXY": "http://someone:pass%40word1@proxy.example:3128",
        "http_proxy": "http://other:plainword2@proxy.example",
        "GOOGLE_GEMINI_BASE_URL": "https://gateway.example/?token=abcdefgh12",
        "ALL_PROXY": "http://[broken",
        "AWS_SECRET_ACCESS_KEY": "key/of+aws/3",
        "AWS_SESSION_TOKEN": "token//of==aws4",
    }
    text = (
        "first-key-of-two second-key-of-two pass@word1 pass%40word1 plainword2 abcdefgh12 key/of+aws/3 token//of==aws4 "
        + base64.b64encode(b"someone:pass@word1").decode()
    )
    for secrets in (secrets_of(env), _settings(env).secrets):
        assert set(secrets.cut(text).split()) == {"[secret]"}


def _settings(env: dict[str, str]) -> Settings:
    return Settings.from_env(env, working_directory=Path.cwd(), user_home=Path.home())
