"""`idefics2`: SigLIP of any resolution, a resampler, Mistral; an image's quarters come before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from transformers import Idefics2Config, Idefics2Processor, MistralConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from families.family import Family, Pixels, Processor, channels_last
from families.idefics3 import END, FAKE, NO_OLD_NAMES, TURNS, vision
from families.tokenizers import metaspace

TOKENIZER = metaspace(
    [FAKE, "<image>", END], tokenizer_class="LlamaTokenizer", pad_token="<unk>", add_prefix_space=True, legacy=False
)
NUM_TOKENS = 4
SIZE = {"shortest_edge": 40, "longest_edge": 98}


def config() -> Idefics2Config:
    text = MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        sliding_window=4096,
        pad_token_id=0,
    )
    perceiver = Idefics2PerceiverConfig(
        hidden_size=64,
        rms_norm_eps=1e-5,
        resampler_n_latents=NUM_TOKENS,
        resampler_depth=2,
        resampler_n_heads=4,
        resampler_head_dim=8,
        num_key_value_heads=2,
    )
    return Idefics2Config(
        vision_config=vision(Idefics2VisionConfig, image_size=SIZE["longest_edge"]),
        perceiver_config=perceiver,
        text_config=text,
        image_token_id=TOKENIZER.id("<image>"),
    )


def processor(tokenizer: Any) -> Idefics2Processor:
    image_processor = Idefics2ImageProcessorPil(size=SIZE, do_image_splitting=True)
    return Idefics2Processor(image_processor=image_processor, tokenizer=tokenizer, image_seq_len=NUM_TOKENS)


def views(processor: Processor, image: Image.Image) -> list[Pixels]:
    """Without the padding to the largest of them, which the encoder masks."""
    done = processor.image_processor([image], do_rescale=False, do_normalize=False, do_pad=False)
    return [view for pixels in done["pixel_values"][0] for view in channels_last(np.asarray(pixels))]


def count(processor: Processor, width: int, height: int) -> int | None:
    """Of five views. Of a single row there are no halves; of a single column there are, by an accident of Pillow."""
    return None if height < 2 else 5 * int(processor.image_seq_len)


def replacement(processor: Processor, image: Image.Image) -> str:
    """What the processor makes of an anchor alone."""
    done = processor(images=[image], text="<image>", add_special_tokens=False)
    return str(processor.tokenizer.decode(done["input_ids"][0]))


FAMILY = Family(
    name="idefics2",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template=TURNS,
    old_names=NO_OLD_NAMES,
    least_side=2,
    # Or else its depth magnifies the rounding of bfloat16.
    scales={"perceiver_resampler": 0.7},
    views=views,
    count=count,
    replacement=replacement,
)
