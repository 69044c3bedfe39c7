"""The embedded model as transformers runs it, in float32. What every number of ours is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from driver import PREPARED, Prompt, picture
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText


class Reference:
    """Loads the checkpoint through the stock classes."""

    model: Any
    processor: Any

    def __init__(self) -> None:
        folder = PREPARED.parent
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def embeddings(self, seeds: list[int]) -> Tensor:
        """[images, tokens, width]."""
        output = self.model.model.get_image_features(
            self._pixel_values([picture(seed) for seed in seeds]), return_dict=True
        )
        embeddings: Tensor = output.pooler_output
        return embeddings

    @torch.inference_mode()
    def logits(self, prompt: Prompt) -> Tensor:
        """[tokens, vocabulary]."""
        logits: Tensor = self.model(**self._inputs(prompt)).logits[0]
        return logits

    @torch.inference_mode()
    def generate(self, prompt: Prompt, num_tokens: int) -> list[int]:
        """The greedy continuation, end tokens ignored."""
        lengths = {"min_new_tokens": num_tokens, "max_new_tokens": num_tokens}
        output = self.model.generate(**self._inputs(prompt), do_sample=False, eos_token_id=None, **lengths)
        tokens: list[int] = output[0, len(prompt.token_ids) :].tolist()
        return tokens

    def _inputs(self, prompt: Prompt) -> dict[str, Tensor]:
        ids = torch.tensor([prompt.token_ids])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        pictures = [run.image.views[0].numpy() for run in prompt.runs]
        return inputs | ({"pixel_values": self._pixel_values(pictures)} if pictures else {})

    def _pixel_values(self, pictures: list[NDArray[np.uint8]]) -> Tensor:
        pixels: Tensor = self.processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels
