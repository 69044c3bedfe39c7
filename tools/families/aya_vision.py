"""`aya_vision`, which has no file of ours: SigLIP tiles, pixel shuffle, Cohere 2 with windows in most layers."""

from __future__ import annotations

from typing import Any

from transformers import AyaVisionConfig, AyaVisionProcessor, Cohere2Config, SiglipVisionConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from families.family import Family, picture_itself
from families.tokenizers import GPT2, byte_level

SIDE, PATCH, SHUFFLE = 56, 14, 2
# The anchor `<image>` is no token of this model: the processor replaces plain text.
TOKENIZER = byte_level(
    ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>"],
    GPT2,
    leading=["<PAD>", "<BOS_TOKEN>"],
    bos="<BOS_TOKEN>",
    tokenizer_class="CohereTokenizer",
    pad_token="<PAD>",
    eos_token="<|END_OF_TURN_TOKEN|>",
)
TEMPLATE = (
    "{% for message in messages %}<|START_OF_TURN_TOKEN|>{{ message['role'] }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|>assistant: {% endif %}"
)


def config() -> AyaVisionConfig:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Cohere2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        sliding_window=24,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=TOKENIZER.id("<|END_OF_TURN_TOKEN|>"),
    )
    # The projector looks for a width that the class does not declare; checkpoints have it.
    undeclared: dict[str, Any] = {"alignment_intermediate_size": 64}
    return AyaVisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=TOKENIZER.id("<|IMG_PATCH|>"),
        downsample_factor=SHUFFLE,
        **undeclared,
    )


def processor(tokenizer: Any) -> AyaVisionProcessor:
    image_processor = GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=6, min_patches=1
    )
    return AyaVisionProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=PATCH, img_size=SIDE, downsample_factor=SHUFFLE
    )


FAMILY = Family(
    name="aya_vision",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    image_token="<|IMG_PATCH|>",
    seed=5,
    scales={"q_proj": 1.2, "k_proj": 1.2},
    views=picture_itself,
)
