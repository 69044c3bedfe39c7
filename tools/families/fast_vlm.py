"""`fast_vlm`: the convolutional encoder of the embedded model at its real size, a Qwen 2 decoder of a tiny one."""

from __future__ import annotations

from typing import Any

from transformers import FastVlmConfig, LlavaProcessor, Qwen2Config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from families.family import Family
from families.tokenizers import QWEN2, byte_level

TOKENIZER = byte_level(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"],
    QWEN2,
    nfc=True,
    tokenizer_class="Qwen2Tokenizer",
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    image_token="<image>",
)
WIDTH, HEIGHT, CELL = 96, 64, 32
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def config() -> FastVlmConfig:
    text = Qwen2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=TOKENIZER.id("<|im_end|>"),
    )
    return FastVlmConfig(
        vision_config={"model_type": "timm_wrapper", "architecture": "tf_efficientnet_lite0", "hidden_size": 1280},
        text_config=text,
        image_token_index=TOKENIZER.id("<image>"),
        image_seq_length=WIDTH * HEIGHT // CELL**2,
    )


def processor(tokenizer: Any) -> LlavaProcessor:
    sides = {"height": HEIGHT, "width": WIDTH}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=sides, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="full",
    )


FAMILY = Family(
    name="fast_vlm",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    # With more, fifty convolutions make bfloat16 useless; with less, every picture looks alike.
    scales={"vision_tower": 1.05},
    old_names={
        "hub": (
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        )
    },
    count=lambda *_: WIDTH * HEIGHT // CELL**2,
)
