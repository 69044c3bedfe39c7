"""A tiny checkpoint that takes no images: random weights, the tokenizer of a family. It says nonsense, quickly."""

from pathlib import Path

import torch
from families import find
from transformers import Qwen2Config, Qwen2ForCausalLM


def build(folder: Path) -> Path:
    """Writes it into `folder`, which is made, and returns it."""
    tokenizer = find("qwen2_vl").tokenizer
    config = Qwen2Config(
        vocab_size=tokenizer.pipeline.get_vocab_size(),
        max_position_embeddings=2048,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(1)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder
