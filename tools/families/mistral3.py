"""`mistral3` (Mistral Small 3.1): Pixtral's encoder, patches merged two by two; no biases, an untied head."""

from __future__ import annotations

from typing import Any

from transformers import Mistral3Config, PixtralProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from families.family import Family, Model
from families.pixtral import OLD_NAMES, TEMPLATE, TOKENIZER, count, text_config, vision_config

LONGEST, PATCH, MERGED = 112, 7, 2


def config() -> Mistral3Config:
    return Mistral3Config(
        vision_config=vision_config(PATCH),
        text_config=text_config(),
        image_token_index=TOKENIZER.id("[IMG]"),
        spatial_merge_size=MERGED,
        tie_word_embeddings=False,
    )


def processor(tokenizer: Any) -> PixtralProcessor:
    image_processor = PixtralImageProcessorPil(
        size={"longest_edge": LONGEST}, patch_size={"height": PATCH, "width": PATCH}
    )
    return PixtralProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=PATCH, spatial_merge_size=MERGED
    )


def mend(model: Model) -> None:
    """transformers squeezes the first axis of all embeddings of a prompt away, also when it is a single one."""
    model.model.multi_modal_projector.register_forward_hook(lambda _, __, embeddings: embeddings[None])


FAMILY = Family(
    name="mistral3",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TEMPLATE,
    anchor="[IMG]",
    image_token="[IMG]",
    count=count,
    mend=mend,
    old_names={"hub": OLD_NAMES},
)
