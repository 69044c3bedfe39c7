"""`gemma3`: SigLIP, averaged and projected, Gemma's text half; one square an image, whose tokens see each other."""

from __future__ import annotations

from typing import Any

from transformers import Gemma3Config, Gemma3Processor, Gemma3TextConfig, SiglipVisionConfig
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from families.family import Family, Inputs
from families.oracle import runs_of
from families.tokenizers import gemma

START, END, TOKEN = "<start_of_image>", "<end_of_image>", "<image_soft_token>"
TOKENIZER = gemma(
    ["<start_of_turn>", "<end_of_turn>", START, END, TOKEN],
    tokenizer_class="GemmaTokenizer",
    boi_token=START,
    eoi_token=END,
    image_token=TOKEN,
    add_eos_token=False,
)
SIDE, PATCH, NUM_TOKENS = 56, 7, 16
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ system if loop.first else '' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def config() -> Gemma3Config:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    # A window shorter than an image, so that it matters inside one too.
    text = Gemma3TextConfig(
        vocab_size=len(TOKENIZER) + 3,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=24,
        query_pre_attn_scalar=4,
        sliding_window=11,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        max_position_embeddings=4096,
    )
    return Gemma3Config(
        vision_config=vision,
        text_config=text,
        mm_tokens_per_image=NUM_TOKENS,
        boi_token_index=TOKENIZER.id(START),
        eoi_token_index=TOKENIZER.id(END),
        image_token_index=TOKENIZER.id(TOKEN),
    )


def processor(tokenizer: Any) -> Gemma3Processor:
    image_processor = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return Gemma3Processor(image_processor=image_processor, tokenizer=tokenizer, image_seq_length=NUM_TOKENS)


def replacement(processor: Any, image: Any) -> str:
    # Its image processor cuts an image into crops only when a caller asks for it.
    return str(processor.full_image_sequence)


def both_ways(inputs: Inputs) -> list[tuple[int, int]]:
    return runs_of(inputs["token_type_ids"][0].tolist(), 1)


FAMILY = Family(
    name="gemma3",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    anchor=START,
    image_token=TOKEN,
    replacement=replacement,
    both_ways=both_ways,
    # An embedding that is the head as well says itself again and again unless the layers outweigh it.
    scales={"embed_tokens": 0.1},
    seed=4,
    old_names={
        "hub": (
            ("model.vision_tower.", "vision_tower.vision_model."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "language_model.model."),
        ),
        "transformers 4.52": (("model.vision_tower.", "model.vision_tower.vision_model."),),
    },
)
