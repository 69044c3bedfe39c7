"""Pixtral as the hub has it: `llava` around a Pixtral encoder; rows of patches, a Mistral decoder with wide heads."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import LlavaConfig, MistralConfig, PixtralProcessor, PixtralVisionConfig
from transformers.models.pixtral.image_processing_pil_pixtral import (
    PixtralImageProcessorPil,
    get_resize_output_image_size,
)

from families.family import Family, Processor
from families.tokenizers import TEKKEN, byte_level

SPECIAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END]"
)
TOKENIZER = byte_level(
    [],
    TEKKEN,
    leading=SPECIAL.split(),
    bos="<s>",
    tokenizer_class="PreTrainedTokenizerFast",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
)
LONGEST, PATCH = 100, 8
TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- for part in message['content'] %}{{- part['text'] }}{%- endfor %}{{- eos_token }}"
    "{%- else %}{{- '[INST]' }}{%- for part in message['content'] %}"
    "{%- if part['type'] == 'image' %}{{- '[IMG]' }}{%- else %}{{- part['text'] }}{%- endif %}"
    "{%- endfor %}{{- '[/INST]' }}{%- endif %}{%- endfor %}"
)


def vision_config(patch_size: int) -> PixtralVisionConfig:
    return PixtralVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=LONGEST,
        patch_size=patch_size,
        hidden_act="silu",
    )


def text_config() -> MistralConfig:
    return MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-5,
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,
    )


def config() -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision_config(PATCH),
        text_config=text_config(),
        image_token_index=TOKENIZER.id("[IMG]"),
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def processor(tokenizer: Any) -> PixtralProcessor:
    image_processor = PixtralImageProcessorPil(
        size={"longest_edge": LONGEST}, patch_size={"height": PATCH, "width": PATCH}
    )
    return PixtralProcessor(image_processor=image_processor, tokenizer=tokenizer, patch_size=PATCH)


def count(processor: Processor, width: int, height: int) -> int | None:
    """The processor's own number has the markers in it."""
    patch, longest = processor.patch_size * processor.spatial_merge_size, processor.image_processor.size["longest_edge"]
    shape = np.broadcast_to(np.uint8(0), (3, height, width))
    resized = get_resize_output_image_size(shape, (longest, longest), (patch, patch), "channels_first")
    return int(np.prod(resized)) // patch**2 or None


OLD_NAMES = (
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
FAMILY = Family(
    name="pixtral",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    anchor="[IMG]",
    image_token="[IMG]",
    count=count,
    old_names={"hub": OLD_NAMES},
)
