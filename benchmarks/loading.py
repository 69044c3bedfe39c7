"""How long loading a checkpoint takes beside reading its file, and how much memory beside its weights."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import server

SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
"""About 500 MB in bfloat16."""


@dataclass(frozen=True)
class Loading:
    """What one rank took."""

    seconds: float
    peak_bytes: int


def checkpoint(folder: Path) -> Path:
    """Writes random weights of `SHAPE` into the folder; returns their file."""
    (folder / "config.json").write_text(json.dumps(SHAPE))
    path = folder / "model.safetensors"
    save_file({name: torch.randn(shape).to(torch.bfloat16) for name, shape in tensors().items()}, path)
    return path


def tensors() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama checkpoint."""
    width, inner, vocabulary = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["vocab_size"]
    kv = width * SHAPE["num_key_value_heads"] // SHAPE["num_attention_heads"]
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv, width),
        "self_attn.v_proj": (kv, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "lm_head.weight": (vocabulary, width),
    }
    found |= {"model.norm.weight": (width,)}
    for number in range(SHAPE["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return found


def read_seconds(path: Path) -> float:
    """Reading the file into memory, its pages in the cache."""
    start = time.perf_counter()
    path.read_bytes()
    return time.perf_counter() - start


def load(folder: Path, world_size: int) -> list[Loading]:
    """Loads on every rank at once, each a process of its own."""
    port = server.free_port()
    program = str(Path(__file__).with_name("load_model.py"))
    ranks = [
        subprocess.Popen(
            [sys.executable, program, str(folder), str(rank), str(world_size), str(port)], stdout=subprocess.PIPE
        )
        for rank in range(world_size)
    ]
    peaks = [0] * world_size
    while any(rank.poll() is None for rank in ranks):
        peaks = [max(peak, private_bytes(str(rank.pid))) for peak, rank in zip(peaks, ranks, strict=True)]
        time.sleep(0.002)
    answers = [rank.communicate()[0].split() for rank in ranks]
    return [Loading(float(seconds), peak - int(before)) for (before, seconds), peak in zip(answers, peaks, strict=True)]


def private_bytes(process: str) -> int:
    """Memory that is the process's own; pages of mapped files are the kernel's to take back. 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def measure(rounds: int = 5) -> tuple[float, float, int, int]:
    """Seconds of reading and of loading, then bytes of the weights of one of two ranks and the peak of the worse."""
    with tempfile.TemporaryDirectory() as name:
        path = checkpoint(Path(name))
        read_seconds(path)
        pairs = [(read_seconds(path), load(path.parent, 1)[0].seconds) for _ in range(rounds)]
        # Norms are whole on both ranks and too small to matter.
        halves = path.stat().st_size // 2
        peak = max(rank.peak_bytes for rank in load(path.parent, 2))
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs), halves, peak
