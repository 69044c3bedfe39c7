"""Vision encoders as transformers has them, with weights of ours.

Every rank holds the whole encoder: images are encoded data-parallel. transformers is imported inside functions, so that
a model with an encoder of our own starts without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from text_generation_server.weights import Weights


def load_module(make: Callable[[], nn.Module], weights: Weights, name: str) -> nn.Module:
    """The module `make` builds, its parameters read from the checkpoint under `name`.

    Nothing is initialised and then overwritten: parameters have no memory until they are read.

    Raises:
        WeightError: a tensor is missing or misshapen.
    """
    with _parameters_without_memory():
        module = make()
    for key, parameter in list(module.named_parameters()):
        # Versions of transformers disagree about a level of this name, in modules and in checkpoints.
        tensor = weights.whole(f"{name}.{key.removeprefix('vision_model.')}", parameter.shape)
        owner, _, leaf = key.rpartition(".")
        module.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    return module.to(weights.device).eval()


def encoder(config: Mapping[str, Any], weights: Weights, name: str, **changes: Any) -> nn.Module:
    """The vision encoder of a `vision_config`; `changes` replace some of its settings."""
    from transformers import AutoConfig, AutoModel

    settings = {key: value for key, value in (dict(config) | changes).items() if key != "model_type"}

    def make() -> nn.Module:
        vision = AutoConfig.for_model(config["model_type"], **settings)
        build: Callable[..., nn.Module] = AutoModel.from_config
        return build(vision, attn_implementation="sdpa")

    return load_module(make, weights, name)


class FeatureEncoder:
    """A CLIP or SigLIP encoder, as far as the last layer a projector looks at.

    `layers` counts hidden states from the embeddings (0) or from the end (negative); several are put side by side.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights, name: str, layers: int | list[int]) -> None:
        count = int(config["num_hidden_layers"])
        wanted = [layers] if isinstance(layers, int) else layers
        # Hidden state n is what layer n made of n - 1; state 0 are the embeddings.
        self._states = [state if state >= 0 else count + 1 + state for state in wanted]
        # Checkpoints leave out SigLIP's pooling head, which no projector looks at, and not all of them say so.
        changes = {"num_hidden_layers": max(self._states), "vision_use_head": False}
        self.module = encoder(config, weights, name, **changes)

    def __call__(self, pixel_values_NCHW: Tensor) -> Tensor:
        """[N, patches, width x layers], class tokens included."""
        states = self.hidden_states(pixel_values_NCHW)
        return torch.cat([states[state] for state in self._states], dim=-1)

    def hidden_states(self, pixel_values_NCHW: Tensor) -> Sequence[Tensor]:
        """What goes into the first layer and what each one makes of it: [N, patches, width] each."""
        output = self.module(pixel_values_NCHW, output_hidden_states=True, return_dict=True)
        states: Sequence[Tensor] = output.hidden_states
        return states


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Inside, new parameters are on the meta device and buffers are real."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param)
        if param is not None:
            module._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=False)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
