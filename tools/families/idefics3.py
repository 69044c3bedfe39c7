"""`idefics3`: SigLIP tiles with marks that say where they were, a shuffle of patches into tokens, Llama 3."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import Idefics3Config, Idefics3Processor, LlamaConfig
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import (
    Idefics3ImageProcessorPil,
    get_resize_output_image_size,
)

from families.family import Family, Processor, Renames
from families.tokenizers import LLAMA3, byte_level

FAKE, END = "<fake_token_around_image>", "<end_of_utterance>"
MARKS = [
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<global-img>",
    FAKE,
    "<image>",
    END,
]
TOKENIZER = byte_level(
    ["<|begin_of_text|>", "<|end_of_text|>", *MARKS],
    LLAMA3,
    bos="<|begin_of_text|>",
    tokenizer_class="PreTrainedTokenizerFast",
    eos_token=END,
    pad_token="<|end_of_text|>",
)
TILE, PATCH, SCALE = 56, 14, 2
TURNS = (
    "{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
NO_OLD_NAMES: dict[str, Renames] = {"hub": ()}
"""Names of tensors never changed; the files beside them did."""


def vision(kind: type[Any], **changes: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return kind(**sizes | {"image_size": TILE, "patch_size": PATCH} | changes)


def text(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        pad_token_id=None,
    )


def config() -> Idefics3Config:
    return Idefics3Config(
        vision_config=vision(Idefics3VisionConfig),
        text_config=text(len(TOKENIZER)),
        image_token_id=TOKENIZER.id("<image>"),
        scale_factor=SCALE,
    )


def processor(tokenizer: Any) -> Idefics3Processor:
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * TILE}, max_image_size={"longest_edge": TILE}, do_image_splitting=True
    )
    num_tokens = (TILE // PATCH // SCALE) ** 2
    return Idefics3Processor(image_processor=image_processor, tokenizer=tokenizer, image_seq_len=num_tokens)


def count(processor: Processor, width: int, height: int) -> int | None:
    """By what the processor does to a size: what it foretells is tokens of text, and wrong for some settings."""
    images = processor.image_processor
    side = images.max_image_size["longest_edge"]
    # Only the shape is looked at, so the pixels need no memory.
    size = get_resize_output_image_size(np.broadcast_to(np.uint8(0), (3, height, width)), images.size["longest_edge"])
    try:
        enlarged = images.resize_for_vision_encoder(np.zeros((3, *size), np.uint8), side)
    except ValueError:
        return None
    return len(images.split_images(enlarged, {"longest_edge": side})[0]) * int(processor.image_seq_len)


def family(**fields: Any) -> Family:
    """What the two families have in common."""
    return Family(old_names=NO_OLD_NAMES, count=count, **fields)


FAMILY = family(
    name="idefics3",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template="<|begin_of_text|>" + TURNS,
    seed=2,
)
