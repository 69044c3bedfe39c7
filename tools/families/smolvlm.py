"""`smolvlm`: Idefics 3 over SmolLM, four times four patches a token, a tied head, and settings for videos."""

from __future__ import annotations

from typing import Any

from transformers import SmolVLMConfig, SmolVLMProcessor
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

from families import idefics3
from families.tokenizers import GPT2, byte_level

# The processor refuses to exist without the package `num2words`, which spells how many frames a video has.
processing_smolvlm.num2words = str  # type: ignore[attr-defined]

TOKENIZER = byte_level(
    idefics3.MARKS,
    GPT2,
    leading=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    tokenizer_class="GPT2Tokenizer",
    bos_token="<|im_start|>",
    eos_token=idefics3.END,
    pad_token="<|im_end|>",
    unk_token="<|endoftext|>",
)
PATCH, SCALE = 7, 4
LONGEST = 200
"""No multiple of a tile, unlike in the checkpoints there are: the ratio is then taken twice."""


def config() -> SmolVLMConfig:
    text = idefics3.text(len(TOKENIZER) + 5)
    text.tie_word_embeddings = True
    return SmolVLMConfig(
        vision_config=idefics3.vision(SmolVLMVisionConfig, patch_size=PATCH),
        text_config=text,
        image_token_id=TOKENIZER.id("<image>"),
        scale_factor=SCALE,
        tie_word_embeddings=True,
    )


def processor(tokenizer: Any) -> SmolVLMProcessor:
    tile = {"longest_edge": idefics3.TILE}
    images = SmolVLMImageProcessorPil(size={"longest_edge": LONGEST}, max_image_size=tile, do_image_splitting=True)
    videos = SmolVLMVideoProcessor(size=tile, max_image_size=tile, num_frames=4, fps=1)
    num_tokens = (idefics3.TILE // PATCH // SCALE) ** 2
    return SmolVLMProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=videos, image_seq_len=num_tokens
    )


FAMILY = idefics3.family(
    name="smolvlm",
    tokenizer=TOKENIZER,
    config=config,
    processor=processor,
    chat_template="<|im_start|>" + idefics3.TURNS,
    # Or else what a tied head sees is the last token, which it says again.
    scales={"o_proj": 12.0, "down_proj": 12.0},
)
