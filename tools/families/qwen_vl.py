"""What the families of the Qwen VL line share: tokenizer, chat template, and what their packed patches mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLVideoProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from families.family import Inputs, Model, Pixels, Processor, Renames, channels_last
from families.tokenizers import QWEN2, byte_level

VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
TOKENIZER = byte_level(
    ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *VISION],
    QWEN2,
    nfc=True,
    tokenizer_class="Qwen2Tokenizer",
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
)
IMAGE_TOKEN = "<|image_pad|>"
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HUB_NAMES: Renames = (("model.language_model.", "model."), ("model.visual.", "visual."))
TEXT: dict[str, Any] = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "bos_token_id": TOKENIZER.id("<|endoftext|>"),
    "eos_token_id": TOKENIZER.id("<|im_end|>"),
}
TOKENS: dict[str, Any] = {
    "image_token_id": TOKENIZER.id("<|image_pad|>"),
    "video_token_id": TOKENIZER.id("<|video_pad|>"),
    "vision_start_token_id": TOKENIZER.id("<|vision_start|>"),
    "vision_end_token_id": TOKENIZER.id("<|vision_end|>"),
}


def image_processor(patch: int, **changes: Any) -> Qwen2VLImageProcessorPil:
    """Images of 4 to 64 tokens."""
    token = (2 * patch) ** 2
    size = {"shortest_edge": 4 * token, "longest_edge": 64 * token}
    return Qwen2VLImageProcessorPil(size=size, patch_size=patch, merge_size=2, temporal_patch_size=2, **changes)


def video_processor(patch: int) -> Qwen2VLVideoProcessor:
    """What the processor classes insist on having."""
    return Qwen2VLVideoProcessor(patch_size=patch)


def views(processor: Processor, image: Image.Image) -> list[Pixels]:
    """The resized image, from its patches: both frames hold the same."""
    settings = processor.image_processor
    done = settings([image], do_rescale=False, do_normalize=False)
    _, rows, columns = done["image_grid_thw"][0]
    merge, patch, frames = settings.merge_size, settings.patch_size, settings.temporal_patch_size
    blocks = (rows // merge, columns // merge, merge, merge, 3, frames, patch, patch)
    patches = np.asarray(done["pixel_values"]).reshape(blocks)
    assert (patches[:, :, :, :, :, :1] == patches).all()
    pixels = patches[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6)
    return list(channels_last(pixels.reshape(3, rows * patch, columns * patch)))


def positions(model: Model, inputs: Inputs) -> NDArray[np.int64] | None:
    """Time, row and column of each token; in texts they are the same and count from zero."""
    if "image_grid_thw" not in inputs:
        return None
    named = {name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
    found: NDArray[np.int64] = model.model.get_rope_index(**named)[0][:, 0].numpy()
    return found


def deep_embeddings(model: Model, inputs: Inputs, image: Image.Image) -> Tensor:
    """[tokens, width]: what takes a token's place, then what it adds to each of the first layers."""
    output = model.get_image_features(**inputs, return_dict=True)
    return torch.cat([torch.cat(list(parts)) for parts in (output.pooler_output, *output.deepstack_features)], 1)
