"""What `transformers` makes of conversations with pictures: the truth that a family of ours is measured against.

Float32, the processor with its Pillow backend, greedy. Nothing of ours is imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from families import of
from families.family import GEOMETRY, Inputs, Model, Pixels, Processor, process_image, views_of

NUM_TOKENS = 24

Part = str | Image.Image
Conversation = Sequence[tuple[str, Sequence[Part]]]


@dataclass(frozen=True)
class Greedy:
    """A greedy answer: its tokens, their log-probabilities, and how far the second best logit was behind."""

    tokens: list[int]
    logprobs: list[float]
    gaps: list[float]


@dataclass(frozen=True)
class Picture:
    """An image as the encoder gets it, and what the encoder makes of it."""

    size: tuple[int, int]
    views: list[Pixels]
    embedding: Tensor
    """[tokens, width]"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt as the decoder gets it, and the answer."""

    token_ids: list[int]
    runs: list[tuple[int, int]]
    """Offset and length of each unbroken run of image tokens."""
    positions: NDArray[np.int64] | None
    """[axes, tokens], None where they count from zero."""
    both_ways: list[tuple[int, int]]
    answer: Greedy


def opened(file: bytes) -> Image.Image:
    """The upright picture in a file."""
    return ImageOps.exif_transpose(Image.open(BytesIO(file))).convert("RGB")


def images_of(conversation: Conversation) -> list[Image.Image]:
    """The pictures of a conversation, in order."""
    return [part for _, parts in conversation for part in parts if not isinstance(part, str)]


def load_processor(folder: Path) -> Processor:
    """The processor with its Pillow image processor.

    Asked for Pillow as a whole, processors with a half for videos refuse: that half has no such class.
    """
    whole: Any = AutoProcessor
    images: Any = AutoImageProcessor
    processor: Processor = whole.from_pretrained(folder)
    processor.image_processor = images.from_pretrained(folder, backend="pil")
    return processor


class Oracle:
    """A checkpoint through the stock classes."""

    def __init__(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        logging.disable_progress_bar()
        auto_model: Any = AutoModelForImageTextToText
        self.config = json.loads((folder / "config.json").read_text())
        self.family = of(self.config)
        self.processor = load_processor(folder)
        attention = self.family.attention
        self.model: Model = auto_model.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
        self.family.mend(self.model)

    @cached_property
    def image_token(self) -> int:
        """The id that stands for one embedding."""
        return self.family.tokenizer.id(self.family.image_token)

    def inputs(self, conversation: Conversation) -> Inputs:
        """Tensors of a conversation whose last turn is the user's."""
        if self.family.chat_template is None:
            return self.plain_inputs(conversation)
        messages = [{"role": role, "content": [_part(part) for part in parts]} for role, parts in conversation]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        done: Inputs = self.processor.apply_chat_template(messages, **options)
        return done

    def plain_inputs(self, conversation: Conversation) -> Inputs:
        """Tensors of a single turn as the processor frames it."""
        [(_, parts)] = conversation
        text = "".join(part if isinstance(part, str) else self.family.anchor for part in parts)
        done: Inputs = self.processor(text=[text], images=[images_of(conversation)], return_tensors="pt")
        # Labels are for training.
        return {name: tensor for name, tensor in done.items() if name != "labels"}

    @torch.inference_mode()
    def ask(self, conversation: Conversation, num_tokens: int = NUM_TOKENS) -> Asked:
        """Everything about one conversation."""
        inputs = self.inputs(conversation)
        token_ids = inputs["input_ids"][0].tolist()
        return Asked(
            token_ids=token_ids,
            runs=runs_of(token_ids, self.image_token),
            positions=self.family.positions(self.model, inputs),
            both_ways=self.family.both_ways(inputs),
            answer=self.answer(inputs, num_tokens),
        )

    def answer(self, inputs: Inputs, num_tokens: int) -> Greedy:
        """The greedy continuation. Tokens that end an answer are never the best, so that nothing need stop them."""
        options = {"do_sample": False, "eos_token_id": None, "output_logits": True, "return_dict_in_generate": True}
        output = self.model.generate(**inputs, min_new_tokens=num_tokens, max_new_tokens=num_tokens, **options)
        logits_TV = torch.stack(output.logits)[:, 0].float()
        best_T2 = logits_TV.topk(2).values
        return Greedy(
            tokens=output.sequences[0, inputs["input_ids"].shape[1] :].tolist(),
            logprobs=logits_TV.log_softmax(-1).max(-1).values.tolist(),
            gaps=(best_T2[:, 0] - best_T2[:, 1]).tolist(),
        )

    @torch.inference_mode()
    def logits(self, conversation: Conversation, continued: Sequence[int] = ()) -> Tensor:
        """Logits after the prompt and after each token that continues it: [1 + tokens, vocabulary]."""
        inputs = dict(self.inputs(conversation))
        prompt = inputs["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                new = torch.tensor([list(continued)], dtype=inputs[name].dtype)
                filler = new if name == "input_ids" else torch.full_like(new, self.filler(name))
                inputs[name] = torch.cat([inputs[name], filler], 1)
        logits: Tensor = self.model(**inputs).logits[0, prompt - 1 :]
        return logits

    def filler(self, name: str) -> int:
        """What an input says of generated tokens."""
        return 1 if name == "attention_mask" else self.family.generated_type * (name == "token_type_ids")

    @torch.inference_mode()
    def picture(self, image: Image.Image, *, several: bool = False) -> Picture:
        """One image, perhaps one of several in its prompt: views and embedding."""
        among = self.family.among_several
        if several and among is not None:
            views = views_of(among(self.processor, image, **GEOMETRY))
            inputs = among(self.processor, image, return_tensors="pt")
            return Picture(image.size, views, self.family.embeddings(self.model, inputs, image))
        inputs, _ = process_image(self.processor, image, return_tensors="pt")
        embedding = self.family.embeddings(self.model, inputs, image)
        return Picture(image.size, self.family.views(self.processor, image), embedding)


def runs_of(token_ids: Sequence[int], token: int) -> list[tuple[int, int]]:
    """Offset and length of each unbroken run of a token."""
    is_token = np.array([0, *(number == token for number in token_ids), 0], dtype=np.int8)
    starts, ends = np.flatnonzero(np.diff(is_token) == 1), np.flatnonzero(np.diff(is_token) == -1)
    return [(int(start), int(end - start)) for start, end in zip(starts, ends, strict=True)]


def check_varied(oracle: Oracle, pictures: Sequence[Image.Image]) -> None:
    """A model that says one thing of every picture, or one token for ever, would prove nothing.

    Raises:
        AssertionError: the family's `seed` or `scales` must change.
    """
    answers = [oracle.ask([("user", [image, "What is this?"])]).answer.tokens for image in pictures]
    assert len({tuple(answer) for answer in answers}) == len(answers), f"pictures look alike: {answers}"
    for answer in answers:
        assert len(set(answer)) >= NUM_TOKENS // 3, f"always the same tokens: {answer}"


def _part(part: Part) -> dict[str, object]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
