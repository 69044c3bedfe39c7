"""`llava_onevision`: SigLIP, two linear layers, Qwen 2; tiles with a limit, or a padded square for each of several."""

from __future__ import annotations

from typing import Any

from PIL import Image
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from families.family import Family, Inputs, Processor
from families.llava_next import HUB_NAMES
from families.tokenizers import QWEN2, byte_level

TOKENIZER = byte_level(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"],
    QWEN2,
    nfc=True,
    tokenizer_class="Qwen2Tokenizer",
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
)
SIDE, PATCH = 42, 14
CANVASES = [[rows * SIDE, columns * SIDE] for rows in range(1, 7) for columns in range(1, 7)]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def config() -> LlavaOnevisionConfig:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=True,
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=TOKENIZER.id("<image>"),
        video_token_index=TOKENIZER.id("<video>"),
        image_grid_pinpoints=CANVASES,
    )


def processor(tokenizer: Any) -> LlavaOnevisionProcessor:
    size = {"height": SIDE, "width": SIDE}
    half = [0.5, 0.5, 0.5]
    image_processor = LlavaOnevisionImageProcessorPil(
        size=size, image_grid_pinpoints=CANVASES, image_mean=half, image_std=half
    )
    return LlavaOnevisionProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
    )


def among_several(processor: Processor, image: Image.Image, **options: Any) -> Inputs:
    both = processor.image_processor([[image, image]], **options)
    return {name: values[:1] for name, values in both.items()}


FAMILY = Family(
    name="llava_onevision",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    seed=2,
    # Under a head that is the embedding, a token's successor is itself unless the layers shout.
    scales={"o_proj": 8.0, "down_proj": 8.0, "multi_modal_projector": 2.0},
    old_names={"hub": HUB_NAMES},
    among_several=among_several,
)
