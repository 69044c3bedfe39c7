"""The table of models says what the registries and goldens say."""

import ast

import models_table


def test_the_table_is_current() -> None:
    assert models_table.DOCUMENT.read_text(encoding="utf-8") == models_table.document(), "run tools/models_table.py"


def test_router_and_shards_know_the_same_models() -> None:
    registry = models_table.FAMILIES.read_text(encoding="utf-8")
    tree = ast.parse(models_table.MODELS.read_text(encoding="utf-8"))
    tables = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODELS"
    ]
    (table,) = map(ast.literal_eval, tables)
    assert set(models_table.with_images(registry)) | set(models_table.text_only(registry)) == set(table)
