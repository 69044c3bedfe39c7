"""Greedy answers of the trained model itself, without a server and without `transformers`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from embedded_model import tokenizer
from embedded_model.encoder import Encoder
from embedded_model.model import VisionLanguage, cells_of, visible
from embedded_model.pictures import SIDE
from embedded_model.supervision import CELLS

TOWER = "model.vision_tower.timm_model."


class Answerer:
    """Answers one prompt after the other. Slow: everything is computed again for each token."""

    def __init__(self, model: VisionLanguage, encoder: Encoder, words: Tokenizer) -> None:
        self._model = model.eval()
        self._encoder = encoder
        self._words = words
        self._image_id = tokenizer.id_of(words, tokenizer.IMAGE)
        self._end_id = tokenizer.id_of(words, tokenizer.END)

    @classmethod
    def of_export(cls, model: VisionLanguage, target: Path, words: Tokenizer) -> "Answerer":
        """With the encoder as it was written to a checkpoint."""
        stored = load_file(target / "model.safetensors")
        tower = {name.removeprefix(TOWER): tensor for name, tensor in stored.items() if name.startswith(TOWER)}
        return cls(model, Encoder(tower, torch.device("cpu"), torch.float32), words)

    def answer(self, picture: Image.Image | None, question: str, longest: int = 64) -> str:
        image = tokenizer.IMAGE * CELLS if picture is not None else ""
        start, end = tokenizer.START, tokenizer.END
        prompt = f"{start}user\n{image}{question}{end}\n{start}assistant\n"
        ids = self.ids(self._words.encode(prompt, add_special_tokens=False).ids, picture, longest)
        return str(self._words.decode(ids))

    @torch.inference_mode()
    def ids(self, prompt: list[int], picture: Image.Image | None, longest: int) -> list[int]:
        """What follows a prompt, its end included."""
        ids = torch.tensor([prompt])
        embedded = self._model.language_model.embed_tokens(ids)
        if picture is not None:
            cells = cells_of(ids, self._image_id)
            projected = self._model.multi_modal_projector(self._seen(picture))
            embedded = embedded.index_put((cells[..., 0], cells[..., 1]), projected)
        made: list[int] = []
        while len(made) < longest and made[-1:] != [self._end_id]:
            positions = torch.arange(embedded.shape[1])[None]
            state = self._model(embedded, positions, visible(torch.zeros_like(positions)))[-1]
            made.append(int(self._model.logits(state[:, -1]).argmax()))
            latest = self._model.language_model.embed_tokens(torch.tensor([made[-1:]]))
            embedded = torch.cat([embedded, latest], 1)
        return made

    def _seen(self, picture: Image.Image) -> Tensor:
        resized = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return self._encoder.features(torch.from_numpy(np.array(resized))[None])
