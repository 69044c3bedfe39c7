"""Writes a family's tiny checkpoint as a folder of the hub: weights, configs, tokenizer, chat template.

Weights depend on the family's seed and each tensor's name alone, so that a family can grow a layer without changing the
others. They are scaled so that greedy output varies; `check_varied` in `oracle` makes sure of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer

from families import find
from families.family import Family, Model, Processor, Renames

GAIN = 1.2
"""Standard deviation of a matrix times the root of its inputs. With 1.5 bfloat16 changes the logits of `transformers`
itself by more than a thousandth; with 1 attention has few preferences."""

HEAD_GAIN = 3.0
SPREAD = 0.1
"""Of vectors (norms, biases) around what they are initialised with."""

QUIET = 0.02
"""Factor for the rows of special tokens in the head: they are never the best choice, and an answer never ends."""


def build(family: str, folder: Path, *, layout: str = "new", shards: int = 1) -> Path:
    """Writes the checkpoint into `folder`, which is made, and returns it.

    `layout` is "new" or a key of the family's `old_names`, whose configs are those of its time as well.
    """
    chosen = find(family)
    folder.mkdir(parents=True, exist_ok=True)
    chosen.config().save_pretrained(folder)
    chosen.tokenizer.save(folder)
    auto: Any = AutoModelForImageTextToText
    model = auto.from_config(chosen.config(), dtype=torch.float32).eval()
    fill(model, chosen)
    write_config(folder, model, old=layout != "new")
    renames = () if layout == "new" else chosen.old_names[layout]
    save_weights(folder, renamed(unique_tensors(model), renames), shards)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    write_processor(folder, chosen, chosen.processor(tokenizer), old=layout != "new")
    # The processor saves the tokenizer as transformers runs it, which is not what repositories hold.
    chosen.tokenizer.save(folder)
    write_json(folder / "generation_config.json", generation(tokenizer))
    return folder


def write_config(folder: Path, model: Model, *, old: bool) -> None:
    """`config.json`; in older ones the configs inside leave out what is the default of their class."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if old:
        config = json.loads((folder / "config.json").read_text())
        inside = {name: getattr(model.config, name) for name, value in config.items() if isinstance(value, dict)}
        sparse = {name: value.to_diff_dict() for name, value in inside.items() if hasattr(value, "to_diff_dict")}
        write_json(folder / "config.json", config | sparse)


@torch.no_grad()
def fill(model: Model, family: Family) -> None:
    """Random weights in place of those the model was made with."""
    # An embedding that is the head as well is scaled as the head.
    head = model.get_output_embeddings().weight
    for name, weight in sorted(unique_parameters(model).items()):
        scale = next((factor for part, factor in family.scales.items() if part in name), 1.0)
        weight.copy_(random_tensor(name, weight, family.seed, is_head=weight is head) * scale)
    head[quiet_rows(family, len(head))] *= QUIET


def random_tensor(name: str, like: Tensor, seed: int, *, is_head: bool) -> Tensor:
    """A tensor of this name, in the shape of the one the model was made with."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    # numpy's normal numbers are the same on every machine; those of torch depend on the width of its vectors.
    drawn = np.random.default_rng(int.from_bytes(digest[:8], "little")).standard_normal(tuple(like.shape))
    noise: Tensor = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    if like.dim() <= 1:
        first = float(like.flatten()[0])
        return noise * SPREAD + first if bool((like == first).all()) else noise * GAIN / math.sqrt(like.numel())
    if "embed" in name and not is_head and like.dim() == 2:
        return noise / 2
    return noise * (HEAD_GAIN if is_head else GAIN) / math.sqrt(like[0].numel())


def quiet_rows(family: Family, num_rows: int) -> list[int]:
    """Ids of added tokens, and those that no token has."""
    added = family.tokenizer.pipeline.get_added_tokens_decoder()
    return sorted({*added, *range(len(family.tokenizer), num_rows)})


def unique_parameters(model: Model) -> dict[str, Tensor]:
    """Parameters by the name of the checkpoint; tied ones once."""
    return dict(model.named_parameters())


def unique_tensors(model: Model) -> dict[str, Tensor]:
    """What the checkpoint holds: parameters, and buffers that are state."""
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(unique_parameters(model))
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def renamed(tensors: Mapping[str, Tensor], renames: Renames) -> dict[str, Tensor]:
    """Tensors under the names of an older layout."""
    return {_old_name(name, renames): tensor for name, tensor in tensors.items()}


def _old_name(name: str, renames: Renames) -> str:
    for new, old in renames:
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def save_weights(folder: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    """One file, or several with an index."""
    names = sorted(tensors)
    if shards == 1:
        return save_part(folder / "model.safetensors", tensors, names)
    files = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    for number, file in enumerate(files):
        save_part(folder / file, tensors, names[number::shards])
    total = sum(tensor.nbytes for tensor in tensors.values())
    weight_map = {name: files[number % shards] for number, name in enumerate(names)}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def save_part(path: Path, tensors: Mapping[str, Tensor], names: list[str]) -> None:
    """Some of the tensors in one file."""
    save_file({name: tensors[name].contiguous() for name in names}, path, metadata={"format": "pt"})


def write_processor(folder: Path, family: Family, processor: Processor, *, old: bool) -> None:
    """One file with the image processor inside and a template beside it; before that, it was a file each."""
    processor.chat_template = family.chat_template
    processor.save_pretrained(folder)
    if not old:
        return
    settings = json.loads((folder / "processor_config.json").read_text())
    write_json(folder / "preprocessor_config.json", settings.pop("image_processor"))
    write_json(folder / "processor_config.json", settings)
    if family.chat_template is not None:
        (folder / "chat_template.jinja").unlink()
        write_json(folder / "chat_template.json", {"chat_template": family.chat_template})


def generation(tokenizer: Any) -> dict[str, Any]:
    """`generation_config.json` with the ids that begin and end."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name, None) for name in names}
    return {"_from_model_config": True} | {name: value for name, value in ids.items() if value is not None}


def write_json(path: Path, content: object) -> None:
    """Readable, with a line break at the end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
