"""Spellings that have one meaning, written as Gemini has them: letter case of values, one thing where a list is wanted,
text where a part is, `true` in quotes, and a type that may be null.

Only what the wire schema says is looked at; what is right stays untouched, and what could mean two things as well.
"""

from typing import Any, Final

from gemini_batch_mcp.intake.validator.enums import ENUMS
from gemini_batch_mcp.intake.validator.wire_schema import Field, Message, message

#: As deep as a line may be nested (`walk.MAX_DEPTH`).
_MAX_DEPTH: Final = 100


class Respelling:
    """Writes a request in place; says afterwards what it has changed."""

    def __init__(self) -> None:
        self.has_cases = False
        self.has_lists = False
        self.has_texts = False
        self.has_quotes = False
        self.has_nulls = False

    def object(self, value: Any, wanted: Message, depth: int = 0) -> None:
        """Respell the members of an object that is described by `wanted`."""
        if not isinstance(value, dict) or depth > _MAX_DEPTH:
            return
        if wanted.name == "Schema":
            self._nullable(value)
        for name, member in value.items():
            field = wanted.spellings.get(name)
            if field is not None and member is not None:
                value[name] = self._member(member, field, depth + 1)

    def _nullable(self, schema: dict[str, Any]) -> None:
        """Write a type and null, which JSON Schema has in a list, as Gemini has them."""
        types = schema.get("type")
        if not isinstance(types, list) or len(types) != 2 or "nullable" in schema:
            return
        others = [kind for kind in types if not isinstance(kind, str) or kind.lower() != "null"]
        if len(others) == 1 and isinstance(others[0], str):
            schema["type"], schema["nullable"] = others[0], True
            self.has_nulls = True

    def _member(self, member: Any, field: Field, depth: int) -> Any:
        if field.shape == "list":
            if self._is_one(member, field):
                self.has_lists = True
                member = [member]
            if isinstance(member, list):
                for index, item in enumerate(member):
                    member[index] = self._item(item, field, depth)
        elif field.shape == "map" and isinstance(member, dict):
            for name, item in member.items():
                member[name] = self._item(item, field, depth)
        elif field.shape == "one":
            return self._item(member, field, depth)
        return member

    def _item(self, item: Any, field: Field, depth: int) -> Any:
        if field.type == "Part" and isinstance(item, str):
            self.has_texts = True
            return {"text": item}
        if field.type == "bool" and isinstance(item, str) and item.strip().lower() in ("true", "false"):
            self.has_quotes = True
            return item.strip().lower() == "true"
        if field.is_message:
            self.object(item, message(field.type), depth)
        elif field.is_enum and isinstance(item, str) and item not in ENUMS[field.type]:
            # Another word for a value, or its name without what all begin with, is refused with the right one.
            same = [known for known in ENUMS[field.type] if known.upper() == item.strip().upper()]
            if len(same) == 1:
                self.has_cases = True
                return same[0]
        return item

    def _is_one(self, member: Any, field: Field) -> bool:
        """True for what a list of one would hold: an object of a list of objects, a text of a list of texts."""
        if field.type == "Part" and isinstance(member, str):
            return True
        if field.is_message:
            return isinstance(member, dict) and bool(member)
        return (field.is_enum or field.type == "string") and isinstance(member, str)
