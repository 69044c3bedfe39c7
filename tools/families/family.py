"""What the harness asks of a family, with the answers that most families give.

The hooks say what our side must compute; they use the processor and the model of `transformers`, never our own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from families.tokenizers import TokenizerFiles

# Objects of transformers: its types do not reach this far.
Config = Any
Processor = Any
Model = Any
Inputs = Mapping[str, Any]
Pixels = NDArray[np.uint8]
Renames = Sequence[tuple[str, str]]

GEOMETRY = {"do_rescale": False, "do_normalize": False}
"""Options of an image processor that leave pixels as bytes."""


def whole_views(processor: Processor, image: Image.Image) -> list[Pixels]:
    """The processor's geometry alone, as one [height, width, 3] array for each view, in encoder order."""
    return views_of(process_image(processor, image, **GEOMETRY)[0])


def views_of(done: Inputs) -> list[Pixels]:
    """The views in what an image processor returns for `GEOMETRY`."""
    return [view for pixels in done["pixel_values"] for view in channels_last(np.asarray(pixels))]


def channels_last(pixels: NDArray[Any]) -> Iterator[Pixels]:
    """[…, 3, height, width] to the views in it; every value must be a byte."""
    for view in pixels.reshape(-1, *pixels.shape[-3:]):
        whole = np.moveaxis(view, 0, -1).astype(np.uint8)
        assert (whole == np.moveaxis(view, 0, -1)).all(), "the processor left more than its geometry in the pixels"
        yield np.ascontiguousarray(whole)


def picture_itself(processor: Processor, image: Image.Image) -> list[Pixels]:
    """One view, untouched: for models whose own processor prepares pictures in the shard."""
    return [np.array(image)]


def processor_count(processor: Processor, width: int, height: int) -> int | None:
    """Embeddings of an image of this size as the processor foretells them; None when it refuses the size."""
    try:
        foretold = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])
    except (ValueError, ZeroDivisionError):
        return None
    return int(foretold["num_image_tokens"][0])


def processor_replacement(processor: Processor, image: Image.Image) -> str:
    """The text the processor writes in place of an anchor."""
    _, (replacement,) = process_image(processor, image)
    return str(replacement)


def process_image(processor: Processor, image: Image.Image, **options: Any) -> tuple[Inputs, list[str]]:
    """The image processor's output and the text for one image, with the settings that the processor itself asks for.

    They differ from those of the image processor alone: InternVL's asks for tiles, Pixtral's for larger patches. There
    is no text from a processor that only replaces all anchors of a prompt at once, as that of Idefics 2.
    """
    asked = processor._merge_kwargs(**options)["images_kwargs"]
    if type(processor).replace_image_token is ProcessorMixin.replace_image_token:
        return processor.image_processor([image], **asked), []
    done: tuple[Inputs, list[str]] = processor._process_images([image], **asked)
    return done


def as_it_is(model: Model) -> None:
    """Nothing is wrong with the model."""


def no_positions(model: Model, inputs: Inputs) -> NDArray[np.int64] | None:
    """Positions count from zero."""
    return None


def no_ranges(inputs: Inputs) -> list[tuple[int, int]]:
    """Every token sees what is before it and nothing else."""
    return []


def pooled_embeddings(model: Model, inputs: Inputs, image: Image.Image) -> Tensor:
    """[tokens, width] of the one image that `inputs`, the image processor's tensors, hold."""
    output = model.get_image_features(**inputs, return_dict=True).pooler_output
    return torch.cat([part.flatten(0, -2) for part in output])


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tiny checkpoint of a family in the shape of the real ones. Fields from `views` on are hooks."""

    name: str
    """Its row, and the `model_type` of its configs unless another family has that already."""
    tokenizer: TokenizerFiles
    config: Callable[[], Config]
    """Small dimensions, real keys; the ids are those of `tokenizer`."""
    processor: Callable[[Any], Processor]
    """The family's own class over a tokenizer of transformers, with the Pillow image processor."""
    chat_template: str | None
    """Short, in the shape of the real one. None: prompts are plain texts, in which the anchor stands for an image."""
    anchor: str = "<image>"
    """What the chat template writes once an image."""
    image_token: str = "<image>"
    """What the processor writes once an embedding."""
    attention: str = "sdpa"
    """The implementation of attention in `transformers`; Gemma 2 has no other than "eager"."""
    generated_type: int = 0
    """The type of generated tokens in `token_type_ids`."""
    seed: int = 1
    """Changed when the random model answers every picture alike."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Factors for the weights whose name contains the key."""
    old_names: Mapping[str, Renames] = field(default_factory=dict)
    """Older layouts of the hub by name: which prefix of a tensor's name was which, the longest first."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Shapes of prompts (keys of `cases.SHAPES`) that the family does not take, each with the reason."""
    least_side: int = 1
    """The processor refuses images with a shorter side."""

    views: Callable[[Processor, Image.Image], list[Pixels]] = whole_views
    """What our router must send to the shard."""
    count: Callable[[Processor, int, int], int | None] = processor_count
    """Embeddings of an image of this width and height."""
    replacement: Callable[[Processor, Image.Image], str] = processor_replacement
    """What stands for an image in the text, image tokens written out."""
    embeddings: Callable[[Model, Inputs, Image.Image], Tensor] = pooled_embeddings
    """What the shard's encoder must compute."""
    mend: Callable[[Model], None] = as_it_is
    """Puts right what keeps the model of transformers from answering; each use says what that is."""
    among_several: Callable[..., Inputs] | None = None
    """What the image processor makes of one image of several, under the options given; None: what it makes of one."""
    positions: Callable[[Model, Inputs], NDArray[np.int64] | None] = no_positions
    """Position ids of a prompt, [axes, tokens], where they do not count from zero."""
    both_ways: Callable[[Inputs], list[tuple[int, int]]] = no_ranges
    """Offset and length of the ranges of a prompt whose tokens see each other both ways."""
