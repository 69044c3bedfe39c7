"""`llava_next` (1.6): CLIP, two linear layers, Mistral; the squeezed image and the tiles of a canvas."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaNextProcessor, MistralConfig
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from families.family import Family
from families.tokenizers import metaspace

TOKENIZER = metaspace(["<image>", "<pad>"], tokenizer_class="LlamaTokenizer", pad_token="<pad>", image_token="<image>")
SIDE, PATCH = 42, 14
CANVASES = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE], [SIDE, 3 * SIDE]]
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% else %}"
    "{% for part in message['content'] %}{{ ' ' + part['text'] + '</s> ' }}{% endfor %}{% endif %}{% endfor %}"
)
HUB_NAMES = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def config() -> LlavaNextConfig:
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=24,
    )
    text = MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        sliding_window=None,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=TOKENIZER.id("<image>"),
        image_grid_pinpoints=CANVASES,
    )


def processor(tokenizer: Any) -> LlavaNextProcessor:
    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=CANVASES
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


FAMILY = Family(
    name="llava_next",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    old_names={"hub": HUB_NAMES},
)
