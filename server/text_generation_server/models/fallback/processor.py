"""A model's own processor, asked about one picture at a time: what it writes for it, and what the encoder gets."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from text_generation_server.model_facts import image_marks, load_processor
from text_generation_server.models import CannotEncode, Piece, UnsupportedModel

BEFORE, AFTER = "a", "b"
"""Text around an anchor, to see that the processor leaves it alone."""

Pixels = NDArray[np.uint8]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processed:
    """A prompt of nothing but pictures: its text with image tokens written out, and its tensors."""

    text: str
    tensors: Mapping[str, Tensor]


class Recorder:
    """A tokenizer that remembers the text it was given last."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text = ""

    def __call__(self, text: str | Sequence[str], *args: Any, **options: Any) -> Any:
        self.text = text if isinstance(text, str) else text[0]
        return self._tokenizer(text, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class Pictures:
    """The processor of a model. Handlers and the compute thread take turns with it: tokenizers are not thread-safe."""

    def __init__(self, model_dir: Path, config: Mapping[str, Any]) -> None:
        processor = load_processor(model_dir)
        marks = None if processor is None else image_marks(processor, config)
        if processor is None or marks is None:
            raise UnsupportedModel("the model's processor cannot be built, or names no image token")
        self._anchor = marks.anchor
        self.image_token_id = marks.token_id
        self._image_token: str = processor.tokenizer.convert_ids_to_tokens(marks.token_id)
        processor.tokenizer = self._recorder = Recorder(processor.tokenizer)
        self._processor = processor
        self._lock = threading.Lock()
        self._check_two_pictures()

    def process(self, pictures: Sequence[Pixels], between: str = "") -> Processed:
        """What the processor makes of a prompt with pictures of [height, width, 3], given as chats give them.

        Raises:
            CannotEncode: it refuses them.
        """
        text = BEFORE + between.join([self._anchor] * len(pictures)) + AFTER
        images = [Image.fromarray(pixels) for pixels in pictures]
        with self._lock:
            try:
                tensors = self._processor(text=[text], images=[images], return_tensors="pt")
            except Exception as error:
                # Somebody else's code: whatever it raises, it is about these pictures.
                log.warning("the processor refuses %s: %s", [image.size for image in images], error)
                raise CannotEncode("the model's own processor refuses the image") from error
            return Processed(self._recorder.text, dict(tensors))

    def pieces(self, width: int, height: int) -> list[Piece]:
        """What stands for an image of this size: numbers of image tokens, and text.

        Raises:
            CannotEncode: the processor refuses this size.
        """
        return cut(self._replacement(np.zeros((height, width, 3), dtype=np.uint8)), self._image_token)

    def _replacement(self, picture: Pixels) -> str:
        text = self.process([picture]).text
        if not text.startswith(BEFORE) or not text.endswith(AFTER):
            raise CannotEncode("the model's own processor changes text beside the image")
        return text[len(BEFORE) : -len(AFTER)]

    def _check_two_pictures(self) -> None:
        """Pictures are laid out one by one here; a processor that lays them out together is none for this."""
        wide, tall = (np.zeros(shape, dtype=np.uint8) for shape in ((224, 448, 3), (448, 224, 3)))
        try:
            alone = [self._replacement(picture) for picture in (wide, tall)]
            for between in ("", AFTER):
                if self.process([wide, tall], between).text != BEFORE + between.join(alone) + AFTER:
                    raise UnsupportedModel("the model's processor writes several images otherwise than each alone")
        except CannotEncode as error:
            raise UnsupportedModel(f"{error} ({error.__cause__ or 'a blank one'})") from error


def cut(text: str, image_token: str) -> list[Piece]:
    """Runs of the image token as their length, what is between them as it is."""
    parts = re.split(f"((?:{re.escape(image_token)})+)", text)
    pieces = [part if at % 2 == 0 else len(part) // len(image_token) for at, part in enumerate(parts)]
    return [piece for piece in pieces if piece]
