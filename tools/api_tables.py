"""Writes the tables of `docs/api.md`: the fields of every object, from the OpenAPI document of a running server.

    python tools/api_tables.py http://127.0.0.1:3000

A heading `#### Name` says where the table of an object stands. Objects without one are put at the end, to be moved to
where they belong. A test compares the page with what this would write.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
HEADING = re.compile(r"^#### (\w+)\n+(?:\|.*\n)*\n?", re.MULTILINE)
COLUMNS = "| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n"
SIMPLE = {"integer", "number", "string", "boolean", "object", "null"}
Json = dict[str, Any]


def rewritten(page: str, document: Json) -> str:
    """The page with every table as the document has it, headings for new objects and none for those that are gone."""
    schemas = document["components"]["schemas"]
    known = objects(document)

    def section(found: re.Match[str]) -> str:
        return f"#### {found[1]}\n\n{_table(schemas, schemas[found[1]])}\n" if found[1] in known else ""

    added = "".join(f"\n#### {name}\n\n" for name in sorted(known - named(page)))
    return HEADING.sub(section, page + added).rstrip("\n") + "\n"


def named(page: str) -> set[str]:
    """The objects that have a table."""
    return {found[1] for found in HEADING.finditer(page)}


def objects(document: Json) -> set[str]:
    """Every object of the document that has fields, but those that are written out inside others."""
    schemas = document["components"]["schemas"]
    return {name for name, schema in schemas.items() if fields(schemas, schema)}


def fields(schemas: Json, schema: Json) -> dict[str, Json]:
    """Fields of an object by name, those it shares with others first."""
    if "$ref" in schema:
        return fields(schemas, schemas[_name(schema)])
    parts = [fields(schemas, part) for part in schema.get("allOf", [])]
    return {name: field for part in [*parts, schema.get("properties", {})] for name, field in part.items()}


def _required(schemas: Json, schema: Json) -> set[str]:
    if "$ref" in schema:
        return _required(schemas, schemas[_name(schema)])
    return set(schema.get("required", [])).union(*(_required(schemas, part) for part in schema.get("allOf", [])))


def _table(schemas: Json, schema: Json) -> str:
    required = _required(schemas, schema)
    rows = (_row(schemas, name, field, name in required) for name, field in fields(schemas, schema).items())
    return COLUMNS + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(schemas: Json, name: str, field: Json, required: bool) -> tuple[str, ...]:
    field = _without_null(field)
    default = "required" if required else _literal(field["default"]) if "default" in field else ""
    cells = (f"`{name}`", _type(schemas, field), default, _bounds(field), field.get("description", ""))
    return tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)


def _without_null(field: Json) -> Json:
    """What a field is when it is there; its description may be beside or inside."""
    choices = [choice for choice in field.get("oneOf", []) if choice.get("type") != "null"]
    return {**field, **choices[0]} if len(choices) == 1 else field


def _type(schemas: Json, field: Json) -> str:
    if "$ref" in field:
        name = _name(field)
        return f"[{name}](#{name.lower()})" if fields(schemas, schemas[name]) else _type(schemas, schemas[name])
    if "enum" in field:
        return " or ".join(_literal(value) for value in field["enum"])
    choices = field.get("oneOf") or field.get("anyOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(schemas, choice) for choice in choices))
    kinds = field.get("type", "object")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_kind(schemas, field, kind) for kind in kinds if kind != "null")


def _kind(schemas: Json, field: Json, kind: str) -> str:
    return f"list of {_type(schemas, field['items'])}" if kind == "array" and field.get("items") else kind


def _bounds(field: Json) -> str:
    return ", ".join(_limits(field))


def _limits(field: Json) -> Iterator[str]:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    yield from (f"{word} {field[name]:g}" for name, word in words.items() if name in field)
    sizes = {"minItems": "items ≥", "minLength": "length ≥", "maxLength": "length ≤"}
    yield from (f"{word} {field[name]}" for name, word in sizes.items() if name in field)


def _literal(value: object) -> str:
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _name(schema: Json) -> str:
    return str(schema["$ref"].rsplit("/", 1)[1])


def main() -> None:
    """Asks the server, and writes the page."""
    with urllib.request.urlopen(f"{sys.argv[1]}/api-doc/openapi.json") as reply:
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), json.load(reply)), encoding="utf-8")


if __name__ == "__main__":
    main()
