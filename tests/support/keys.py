"""Thirty keys of thirty shapes, and what a service may say of one."""

import base64
import json
import math
from typing import Final
from urllib.parse import quote, quote_plus

KEYS: Final = (
    "AIzaSyA1b2C3d4E5f6G7h8I9j0K-lmnopqrs_tu",
    "AQ.Ab8RN6Jq3vT9xYz-1234567890_abcdefghijklmnop",
    "0123456789abcdef0123456789abcdef",
    "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    "12345678",
    "98765432109876543210",
    "changeit",
    "correct-horse-battery-staple",
    "sk-proj-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA",
    "ya29.a0AfH6SMBx-abcdefghijklmnopqrstuvwxyz0123456789",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "Zm9vL2JhcitxdXV4PT0vKysvPQ==",
    "a+b/c=d&e=f?g#h;i",
    'quote"and\'apostrophe"key',
    "back\\slash\\key\\of\\length",
    "<script>alert(1)</script>key",
    "per%20cent%2Fkey%zz",
    "{curly}[square](round)key",
    "$HOME`whoami`$(id)key",
    "user:password@host:8080",
    "key=value&key=other&x=1",
    "https://key.example/path?token=abcdef",
    "UPPERCASEKEYOFLETTERS",
    "MiXeDcAsEkEyOfLeTtErS",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababab",
    "----BEGIN-KEY----x----END-KEY----",
    "*.*?+[a-z]{2,}(regex|key)$",
    "~tilde!bang^hat|pipe,comma;semi",
    "k" + "0f1e2d3c4b5a6978" * 12,
)


def complaint(key: str, *, with_header: bool = True) -> str:
    """What a careless service says of a key: in full, in an address, in a header, and its beginning."""
    header = base64.b64encode(f"user:{key}".encode()).decode() if with_header else ""
    begin = key[: math.ceil(len(key) * 0.8)]
    return (
        f"The key {key} was refused for https://service.example/v1?key={quote(key, safe='')}&x=1, "
        f"Basic {header}, in short {begin}... ({key!r})"
    )


def traces(text: str, key: str) -> list[str]:
    """Return the forms of a key that a text holds."""
    forms = {
        key,
        key[: math.ceil(len(key) * 0.8)],
        quote(key, safe=""),
        quote_plus(key),
        json.dumps(key)[1:-1],
        repr(key)[1:-1],
        # What is the same in every text that holds the whole of it in base64.
        base64.b64encode(f"user:{key}".encode()).decode()[8:-4],
    }
    return sorted(form for form in forms if len(form) >= 8 and form in text)
