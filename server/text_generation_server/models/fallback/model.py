"""An image-text model as transformers runs it, over our paged cache. Slower than a family of ours, and one for all.

The modules are transformers' own. Their decoder attends through `attention`, their body (encoder and decoder) and their
head are called apart, and their processor prepares pictures. Whether that is all the model does is not known but tried:
`check` compares it with transformers on a prompt with a picture, and a model that differs is refused.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from text_generation_server.attention.base import Attention
from text_generation_server.distributed import Ranks
from text_generation_server.layers.decoder import Added
from text_generation_server.models import ModelShape, Piece, UnsupportedModel
from text_generation_server.models.fallback import check
from text_generation_server.models.fallback.attention import (
    MEASURED,
    PAGED,
    Alone,
    attention_shape,
    measuring,
    register,
    using,
)
from text_generation_server.models.fallback.processor import Pictures
from text_generation_server.plan import ImageHeader
from text_generation_server.weights import WeightError, Weights

log = logging.getLogger(__name__)


class TransformersModel:
    """One rank, the only one. `pieces` makes it a `CountsImages`."""

    old_names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Mapping[str, Any], weights: Weights, ranks: Ranks) -> None:
        name = config["model_type"]
        log.warning("%s has no family here: transformers' own modules and processor serve it, which is slower", name)
        if ranks.world_size > 1:
            raise UnsupportedModel(f"{name} has no family of its own here and runs on one rank only")
        with refusals():
            self._pictures = Pictures(weights.model_dir, config)
            self._model = load(weights)
            example = check.example(self._pictures)
            self._like = torch.empty(0, dtype=weights.dtype, device=weights.device)
            expected_TV = check.native_logits(self._model, example, self._like)
            self._body: Any = self._model.base_model
            self.shape = self._measured(example["input_ids"][0])
            self._split()
            check.compare(self._logits_of(example), expected_TV, weights.dtype)

    def pieces(self, width: int, height: int) -> list[Piece]:
        """See `CountsImages`."""
        return self._pictures.pieces(width, height)

    def encode_views(self, pixels_NHW3: Tensor) -> Tensor:
        """See `Model`. Raw uint8 pixels."""
        return torch.stack([self._features(self._pictures.process([pixels.numpy()]).tensors) for pixels in pixels_NHW3])

    def join_views(self, views: Sequence[Tensor], header: ImageHeader) -> Tensor:
        """See `Model`. There is one, the whole image."""
        (view,) = views
        return view

    def embed(self, token_ids_T: Tensor) -> Tensor:
        """See `Model`."""
        embedded: Tensor = self._body.get_input_embeddings()(token_ids_T)
        return embedded

    def forward(
        self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention, added: Sequence[Added] = ()
    ) -> Tensor:
        """See `Model`. Its embeddings are no wider than its tokens, so nothing is ever added."""
        with using(attention):
            return self._body_output(hidden_TH, positions_AT)

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """See `Model`. The whole model, whose body gives back what it is given."""
        scores: Tensor = self._model(inputs_embeds=hidden_RH.unsqueeze(0), use_cache=False).logits[0]
        return scores.float()

    def _body_output(self, hidden_TH: Tensor, positions_AT: Tensor) -> Tensor:
        output = self._body(inputs_embeds=hidden_TH.unsqueeze(0), position_ids=positions_AT, use_cache=False)
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _features(self, tensors: Mapping[str, Tensor]) -> Tensor:
        encode = self._body.get_image_features
        taken = inspect.signature(encode).parameters
        output = encode(**check.moved({name: tensors[name] for name in tensors if name in taken}, self._like))
        features = getattr(output, "pooler_output", output)
        parts = [features] if isinstance(features, Tensor) else list(features)
        return torch.cat([part.flatten(0, -2) for part in parts]).to(self._like.dtype)

    def _measured(self, token_ids_T: Tensor) -> ModelShape:
        """Runs text through the decoder to see what its layers ask for."""
        text = self._model.config.get_text_config(decoder=True)
        check.positions(self._body, text)
        register()
        self._model.get_decoder().set_attn_implementation(MEASURED)
        hidden_TH = self.embed(token_ids_T.to(self._like.device))
        with measuring() as calls:
            self._body_output(hidden_TH, torch.arange(len(hidden_TH), device=self._like.device).unsqueeze(0))
        return ModelShape(
            vocab_size=len(self._model.get_output_embeddings().weight),
            max_positions=text.max_position_embeddings,
            embedding_width=hidden_TH.shape[1],
            attention=attention_shape(calls, text.num_hidden_layers, text.max_position_embeddings),
            raw_views=True,
            # Nobody knows what its modules ask the device for.
            can_be_captured=False,
        )

    def _split(self) -> None:
        """Body and head go apart, and the decoder attends through us from now on."""
        self._model.get_decoder().set_attn_implementation(PAGED)
        setattr(self._model, self._model.base_model_prefix, Passage())

    def _logits_of(self, example: Mapping[str, Tensor]) -> Tensor:
        """Our way through a whole prompt, as the shard goes it."""
        token_ids_T = example["input_ids"][0].to(self._like.device)
        hidden_TH = self.embed(token_ids_T).clone()
        hidden_TH[token_ids_T == self._pictures.image_token_id] = self._features(example)
        positions_AT = torch.arange(len(token_ids_T), device=self._like.device).unsqueeze(0)
        return self.logits(self.forward(hidden_TH, positions_AT, Alone(self.shape.attention)))


class Passage(nn.Module):
    """Takes the body's place, and gives back the embeddings it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Given:
        return Given(inputs_embeds)


class Given:
    """As much of a body's output as heads look at."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        """Caches, attentions and image features are passed on by the head; there are none."""


def load(weights: Weights) -> Any:
    """The whole model as transformers reads it, on the shard's device.

    Raises:
        WeightError: a tensor is missing or misshapen.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as its_logging

    its_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    read: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained
    model, report = read(weights.model_dir, dtype=weights.dtype, use_safetensors=True, output_loading_info=True)
    if report["missing_keys"]:
        raise WeightError(f"{min(report['missing_keys'])} is not in the checkpoint")
    return model.to(weights.device).eval()


@contextmanager
def refusals() -> Iterator[None]:
    """Inside, whatever transformers raises means that this server cannot run the model."""
    try:
        yield
    except (UnsupportedModel, WeightError):
        raise
    except Exception as error:
        raise UnsupportedModel(f"transformers does not run this model for us: {error}") from error
