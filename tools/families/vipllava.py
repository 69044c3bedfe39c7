"""`vipllava`, which has no file of ours: LLaVA 1.5 with the features of five CLIP layers side by side."""

from __future__ import annotations

from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaProcessor, VipLlavaConfig

from families import llava
from families.family import Family, picture_itself

LAYERS = [-1, -2, -3, -4, 2]


def config() -> VipLlavaConfig:
    like: Any = llava.config()
    text, vision = like.text_config.to_dict(), like.vision_config.to_dict()
    return VipLlavaConfig(
        vision_config=CLIPVisionConfig(**vision | {"num_hidden_layers": 4}),
        text_config=LlamaConfig(**text),
        image_token_index=like.image_token_id,
        vision_feature_layer=LAYERS,
        image_seq_length=like.image_seq_length,
    )


def processor(tokenizer: Any) -> LlavaProcessor:
    return llava.processor(tokenizer)


FAMILY = Family(
    name="vipllava",
    tokenizer=llava.TOKENIZER,
    config=config,
    processor=processor,
    chat_template=llava.TEMPLATE,
    old_names={"hub": llava.FAMILY.old_names["hub"]},
    seed=5,
    scales={"q_proj": 1.2, "k_proj": 1.2},
    views=picture_itself,
)
