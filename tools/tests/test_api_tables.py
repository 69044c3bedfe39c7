"""The tables of docs/api.md, from a document small enough to read. An integration test compares the page itself."""

from typing import Any

import api_tables

SCHEMAS: dict[str, Any] = {
    "Count": {"type": "integer"},
    "Words": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "Part": {"type": "object", "properties": {"kind": {"enum": ["a", "b"], "description": "Which | of them."}}},
    "Whole": {
        "required": ["part"],
        "properties": {
            "part": {"$ref": "#/components/schemas/Part", "description": "What it has."},
            "stop": {
                "oneOf": [{"$ref": "#/components/schemas/Words", "description": "Where it ends."}, {"type": "null"}]
            },
            "many": {"type": ["array", "null"], "items": {"$ref": "#/components/schemas/Count"}, "minItems": 1},
            "share": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1, "default": 0.5},
        },
    },
}
DOCUMENT = {"components": {"schemas": SCHEMAS}}
WHOLE = """#### Whole

| field | type | default | bounds | meaning |
|---|---|---|---|---|
| `part` | [Part](#part) | required |  | What it has. |
| `stop` | string or list of string |  |  | Where it ends. |
| `many` | list of integer |  | items ≥ 1 |  |
| `share` | number | `0.5` | > 0, ≤ 1 |  |
"""
PART = """#### Part

| field | type | default | bounds | meaning |
|---|---|---|---|---|
| `kind` | `a` or `b` |  |  | Which \\| of them. |
"""


def test_a_table_is_written_where_its_heading_stands() -> None:
    page = "# Page\n\n#### Part\n\n#### Whole\n\n| old |\n\n## End\n"
    assert api_tables.rewritten(page, DOCUMENT) == f"# Page\n\n{PART}\n{WHOLE}\n## End\n"


def test_new_objects_come_to_the_end_and_others_go() -> None:
    assert api_tables.rewritten("#### Gone\n\n| x |\n\n#### Whole\n", DOCUMENT) == f"{WHOLE}\n{PART}"


def test_writing_twice_changes_nothing() -> None:
    once = api_tables.rewritten("# Page\n", DOCUMENT)
    assert api_tables.rewritten(once, DOCUMENT) == once
