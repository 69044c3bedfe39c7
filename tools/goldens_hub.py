"""Writes integration-tests/goldens/hub.json: what the router is told of repositories of the hub, and its image tokens.

    python tools/goldens_hub.py

The repositories are those of server/tests/hub_settings.json, by settings alone. For each: `config` and `processor` as
`text-generation-server prepare` writes them (of the text half the type alone), and `counts`, rows of width, height and
embeddings, null where the processor refuses. Its processor counts over the tokenizer of the family's tiny checkpoint.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "integration-tests")]

from families import of  # noqa: E402 - the paths come first
from families.oracle import load_processor  # noqa: E402

from text_generation_server.model_facts import filled_config, processor_settings  # noqa: E402

HUB = ROOT / "server" / "tests" / "hub_settings.json"
GOLDEN = ROOT / "integration-tests" / "goldens" / "hub.json"
SIZES = (
    *((1, 1), (28, 28), (64, 48), (224, 224), (336, 336), (448, 448), (640, 480), (480, 640), (800, 600)),
    *((896, 896), (1000, 667), (1024, 1024), (1280, 720), (720, 1280), (1920, 1080), (1080, 1920), (2048, 1536)),
    *((333, 500), (3000, 1001), (97, 3001), (4000, 3000), (4096, 4096), (1600, 9), (9, 1600)),
)
TODAY = {"Qwen2_5_VLImageProcessor": "Qwen2VLImageProcessor"}
"""Classes that no library knows any more, and what took their place."""

Json = dict[str, Any]


def golden(files: Json, folder: Path) -> Json:
    """What is known of one repository, whose files are written into `folder`."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    config: Any = filled_config(folder)
    found = {"config": brief(config), "processor": processor_settings(folder)}
    return {**found, "counts": counts(config, files["preprocessor_config.json"], folder)}


def brief(config: Json) -> Json:
    """A config with no more of its text half than the router reads."""
    return config | {"text_config": {"model_type": config["text_config"]["model_type"]}}


def counts(config: Json, images: Json, folder: Path) -> list[list[int | None]]:
    """Rows of width, height and embeddings as the processor counts them."""
    kind = images["image_processor_type"]
    named = images | {"image_processor_type": TODAY.get(kind, kind)}
    (folder / "preprocessor_config.json").write_text(json.dumps(named))
    family = of(config)
    family.tokenizer.save(folder)
    processor = load_processor(folder)
    return [[*size, family.count(processor, *size)] for size in SIZES]


def goldens() -> Json:
    """All repositories by name."""
    found: Json = {}
    for name, files in json.loads(HUB.read_text()).items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = golden(files, Path(folder))
    return found


def main() -> None:
    """Writes the file, a line for each repository."""
    lines = (f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in goldens().items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
