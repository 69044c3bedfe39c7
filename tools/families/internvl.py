"""`internvl` (InternVL 3, the layout of transformers): tiles and a thumbnail, pixel shuffle, Qwen 2."""

from __future__ import annotations

from typing import Any

from transformers import InternVLConfig, InternVLProcessor, InternVLVisionConfig, Qwen2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

from families.family import Family, Processor, processor_count
from families.tokenizers import QWEN2, byte_level

NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TOKENIZER = byte_level(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()],
    QWEN2,
    nfc=True,
    tokenizer_class="Qwen2Tokenizer",
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    extra_special_tokens=NAMED,
)
SIDE, PATCH = 28, 7
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def config() -> InternVLConfig:
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        attention_bias=True,
        image_size=[SIDE, SIDE],
        patch_size=[PATCH, PATCH],
    )
    text = Qwen2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
        bos_token_id=TOKENIZER.id("<|endoftext|>"),
        eos_token_id=TOKENIZER.id("<|im_end|>"),
        tie_word_embeddings=False,
    )
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=TOKENIZER.id("<IMG_CONTEXT>"),
        image_seq_length=tokens_per_tile(),
        tie_word_embeddings=False,
    )


def tokens_per_tile() -> int:
    return (SIDE // PATCH // 2) ** 2


def processor(tokenizer: Any) -> InternVLProcessor:
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=tokens_per_tile(),
    )


def count(processor: Processor, width: int, height: int) -> int | None:
    """The processor's own number has the two markers in it."""
    foretold = processor_count(processor, width, height)
    return None if foretold is None else foretold - 2


FAMILY = Family(
    name="internvl",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    anchor="<IMG_CONTEXT>",
    image_token="<IMG_CONTEXT>",
    count=count,
    old_names={
        "hub": (
            ("model.vision_tower.", "vision_tower."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        ),
    },
)
