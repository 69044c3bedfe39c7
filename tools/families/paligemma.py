"""`paligemma`: SigLIP, one matrix, the text half of Gemma 1 or 2. No chat template; a prompt sees all of itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken
from transformers import Gemma2Config, GemmaConfig, PaliGemmaConfig, PaliGemmaProcessor, SiglipVisionConfig
from transformers.models.paligemma.processing_paligemma import EXTRA_TOKENS
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from families.family import Family, Inputs, Model
from families.oracle import runs_of
from families.tokenizers import gemma

PLACES = [AddedToken(token, normalized=False, special=False) for token in EXTRA_TOKENS]
TOKENIZER = gemma([*PLACES, "<image>"], tokenizer_class="GemmaTokenizer")
SIDE, PATCH = 56, 14
NUM_TOKENS = (SIDE // PATCH) ** 2
TEXT: dict[str, Any] = {
    "vocab_size": len(TOKENIZER) + 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 24,
    "max_position_embeddings": 4096,
}
# In a sliding layer too the prompt sees all of itself, though it is longer than this window.
SLIDING: dict[str, Any] = {"query_pre_attn_scalar": 24, "sliding_window": 11}


def config(text: GemmaConfig | Gemma2Config) -> PaliGemmaConfig:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    return PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        projection_dim=text.hidden_size,
        hidden_size=text.hidden_size,
        image_token_index=TOKENIZER.id("<image>"),
    )


def processor(tokenizer: Any) -> PaliGemmaProcessor:
    image_processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    image_processor.image_seq_length = NUM_TOKENS  # type: ignore[attr-defined]
    return PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)


def positions(model: Model, inputs: Inputs) -> NDArray[np.int64]:
    # The model itself adds the one.
    return np.arange(1, inputs["input_ids"].shape[1] + 1)[None]


def both_ways(inputs: Inputs) -> list[tuple[int, int]]:
    return runs_of(inputs["token_type_ids"][0].tolist(), 0)


def family(name: str, text: GemmaConfig | Gemma2Config, **differences: Any) -> Family:
    return Family(
        name=name,
        tokenizer=TOKENIZER,
        config=lambda: config(text),
        processor=processor,
        chat_template=None,
        positions=positions,
        both_ways=both_ways,
        generated_type=1,
        old_names={
            "hub": (
                ("model.vision_tower.", "vision_tower.vision_model."),
                ("model.multi_modal_projector.", "multi_modal_projector."),
                ("model.language_model.", "language_model.model."),
            ),
        },
        without={
            "second turn": "its prompts have no turns",
            "text in the second turn": "its prompts have no turns",
            "text only": "its processor refuses a prompt without an image",
        },
        **differences,
    )


# An embedding that is the head as well says itself again and again unless the layers outweigh it.
FAMILY = family("paligemma", GemmaConfig(**TEXT), scales={"embed_tokens": 0.1, "o_proj": 4.0, "down_proj": 4.0})
FAMILY_2 = family(
    "paligemma2", Gemma2Config(**TEXT, **SLIDING), attention="eager", seed=4, scales={"embed_tokens": 0.1}
)
