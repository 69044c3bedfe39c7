"""The tiny checkpoints are what they say: real shapes, the same on every run, named and split as asked."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from families import cases, checkpoint, find
from families.oracle import runs_of
from families.tokenizers import GPT2, QWEN2, TokenizerFiles, byte_level, gemma, metaspace
from goldens_families import pieces, runs, slopes
from safetensors import safe_open
from transformers import AutoTokenizer

TOKENIZERS = {
    "Qwen2Tokenizer": (byte_level(["<|im_end|>", "<image>"], QWEN2, nfc=True), "qwen2"),
    "GPT2Tokenizer": (byte_level(["<image>"], GPT2, leading=["<|endoftext|>"]), "gpt2"),
    "LlamaTokenizer": (metaspace(["<image>"]), "llama"),
    "GemmaTokenizer": (gemma(["<image>"]), "gemma3"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.build("llava", tmp_path_factory.mktemp("llava"))


def names(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_loads_as_its_class(tmp_path: Path, name: str) -> None:
    files, model_type = TOKENIZERS[name]
    TokenizerFiles(files.pipeline, {**files.config, "tokenizer_class": name}).save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    assert type(loaded).__name__ == name
    assert 600 < len(files) < 1100
    text = "Look at the <image>\n\nWhat is this picture?\nIs it red?"
    assert loaded("<image>", add_special_tokens=False)["input_ids"] == [files.id("<image>")]
    assert str(loaded.decode(loaded.encode(text, add_special_tokens=False))).replace(" <", "<") == text.replace(
        " <", "<"
    )


@pytest.mark.parametrize(("first", "second"), [("<image>\n", "\nIs"), (">\n", "\nIs"), (":", "\n")])
def test_line_breaks_merge_with_what_follows(first: str, second: str) -> None:
    tokenizer = byte_level(["<image>"], QWEN2).pipeline
    apart = tokenizer.encode(first).ids + tokenizer.encode(second).ids
    assert tokenizer.encode(first + second).ids != apart


def test_a_checkpoint_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    again = checkpoint.build("llava", tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_old_layouts_have_old_names_and_files(folder: Path, tmp_path: Path) -> None:
    old = checkpoint.build("llava", tmp_path, layout="hub")
    found, new = names(old / "model.safetensors"), names(folder / "model.safetensors")
    assert "language_model.model.embed_tokens.weight" in found
    assert len(found) == len(new)
    assert not found & new
    assert "image_processor" not in json.loads((old / "processor_config.json").read_text())
    assert {"preprocessor_config.json", "chat_template.json"} <= {path.name for path in old.iterdir()}
    assert not (old / "chat_template.jinja").exists()


def test_weights_in_parts_have_an_index(folder: Path, tmp_path: Path) -> None:
    parts = checkpoint.build("llava", tmp_path, shards=3)
    weight_map = json.loads((parts / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(weight_map) == names(folder / "model.safetensors")
    assert all(name in names(parts / file) for name, file in weight_map.items())


def test_every_size_and_encoding_meets_every_shape() -> None:
    asked = [case for case in cases.cases(find("llava")) if case.shape != cases.TEXT_ONLY]
    firsts = {(case.files[0].encoding, case.shape) for case in asked}
    assert len(firsts) == len({encoding for encoding, _ in firsts}) * len(cases.SHAPES)
    assert len({(case.files[0].size, case.shape) for case in asked}) == len(cases.SIZES) * len(cases.SHAPES)
    assert len({case.name for case in asked}) == len(asked)


@pytest.mark.parametrize("numbers", [[], [5], [0, 1, 2, 3], [3, 3, 3, 7, 8, 9, 9], [1, 2, 2, 2, 3], [4, 2, 0]])
def test_positions_survive_their_short_form(numbers: Sequence[int]) -> None:
    short = slopes(np.array(numbers, dtype=np.int64))
    assert [first + step * index for first, step, count in short for index in range(count)] == list(numbers)


def test_short_forms() -> None:
    assert runs([4, 7, 7, 7, 5]) == [4, [7, 3], 5]
    assert runs_of([1, 7, 7, 2, 7], 7) == [(1, 2), (4, 1)]
    assert pieces("<a><i><i>\n<i>", "<i>") == ["<a>", 2, "\n", 1]
