"""The attention of transformers' own decoders, put through ours.

transformers calls a function by its registered name (`AttentionInterface`). Two are registered: `MEASURED` notes what
each layer asks for while a model is loaded, `PAGED` hands every step to the shard's backend. Batch is always 1; the
tokens of a step follow each other, whatever sequences they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from text_generation_server.attention.base import Attention, AttentionShape
from text_generation_server.models import UnsupportedModel

PAGED, MEASURED = "text_generation_paged", "text_generation_measured"
MAX_RULE_POSITIONS = 1 << 18
"""A window longer than this is taken for none."""

Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""What transformers makes masks of: whether (batch, head, query, key) may be seen, by index."""

_attention: ContextVar[Attention] = ContextVar("attention")
_calls: ContextVar[list[LayerCall]] = ContextVar("calls")


@dataclass(frozen=True)
class HeadShape:
    """What must be the same in every layer."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    scale: float
    softcap: float | None


@dataclass(frozen=True)
class LayerCall:
    """What one layer asked of attention. `rule` is None where it left everything to `is_causal`."""

    layer: int
    heads: HeadShape
    rule: Rule | None


@dataclass(frozen=True)
class MaskRule:
    """Takes a mask's place on its way through the decoder."""

    rule: Rule


def register() -> None:
    """Makes both names known to transformers. Done again, it changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PAGED, _attend)
    AttentionInterface.register(MEASURED, _measure)
    # A name without a mask function gets no masks at all, which is what PAGED wants.
    AttentionMaskInterface.register(MEASURED, _keep_rule)


@contextmanager
def using(attention: Attention) -> Iterator[None]:
    """Inside, modules whose implementation is `PAGED` attend through `attention`."""
    token = _attention.set(attention)
    try:
        yield
    finally:
        _attention.reset(token)


@contextmanager
def measuring() -> Iterator[list[LayerCall]]:
    """Inside, modules whose implementation is `MEASURED` add their calls to the list."""
    token = _calls.set([])
    try:
        yield _calls.get()
    finally:
        _calls.reset(token)


def attention_shape(calls: Sequence[LayerCall], num_layers: int, num_positions: int) -> AttentionShape:
    """The shape that serves what the layers asked for.

    Raises:
        UnsupportedModel: a layer keeps something other than keys and values, or looks elsewhere than back.
    """
    if [call.layer for call in calls] != list(range(num_layers)):
        layers = [call.layer for call in calls]
        raise UnsupportedModel(f"only layers {layers} of {num_layers} attend through transformers' interface, in order")
    shapes = {call.heads for call in calls}
    if len(shapes) > 1:
        raise UnsupportedModel(f"the layers differ in their heads or scales: {[astuple(shape) for shape in shapes]}")
    (heads,) = shapes
    if heads.head_dim != heads.value_dim:
        raise UnsupportedModel(f"keys are {heads.head_dim} wide and values {heads.value_dim}")
    return AttentionShape(
        num_heads=heads.num_heads,
        num_kv_heads=heads.num_kv_heads,
        head_dim=heads.head_dim,
        scale=heads.scale,
        windows=tuple(window_of(call, num_positions) for call in calls),
        softcap=heads.softcap,
    )


def window_of(call: LayerCall, num_positions: int) -> int | None:
    """How many tokens a token of this layer sees, itself included; None for all before it.

    Raises:
        UnsupportedModel: it sees others.
    """
    if call.rule is None:
        return None
    count = min(num_positions, MAX_RULE_POSITIONS)
    window = int(_seen(call.rule, count - 1, count).sum())
    keys = torch.arange(count)
    for query in sorted({0, 1, window - 1, window, window + 1, count // 2, count - 1} & set(range(count))):
        expected = (keys <= query) & (keys > query - window)
        if not torch.equal(_seen(call.rule, query, count), expected):
            raise UnsupportedModel(f"layer {call.layer} sees other tokens than the last {window}")
    return window if window < count else None


def _seen(rule: Rule, query: int, count: int) -> Tensor:
    zero = torch.zeros(count, dtype=torch.int64)
    return rule(zero, zero, torch.full((count,), query), torch.arange(count)).expand(count)


def _keep_rule(*_: Any, mask_function: Rule, **__: Any) -> MaskRule:
    return MaskRule(mask_function)


def _measure(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: MaskRule | Tensor | None, **asked: Any
) -> tuple[Tensor, None]:
    if isinstance(attention_mask, Tensor) or (attention_mask is None and not getattr(module, "is_causal", True)):
        raise UnsupportedModel(f"{type(module).__name__} attends by a mask of its own")
    heads = HeadShape(
        num_heads=query.shape[1],
        num_kv_heads=key.shape[1],
        head_dim=query.shape[3],
        value_dim=value.shape[3],
        scale=float(asked.get("scaling") or query.shape[3] ** -0.5),
        softcap=asked.get("softcap"),
    )
    rule = None if attention_mask is None else attention_mask.rule
    _calls.get().append(LayerCall(int(getattr(module, "layer_idx", -1)), heads, rule))
    return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **_: Any
) -> tuple[Tensor, None]:
    q_TND, k_TKD, v_TKD = (heads[0].transpose(0, 1) for heads in (query, key, value))
    output_TND = _attention.get().attend(q_TND, k_TKD, v_TKD, int(module.layer_idx))  # type: ignore[arg-type]
    return output_TND.unsqueeze(0), None


class Alone(Attention):
    """An `Attention` over one sequence that starts and ends with this step: nothing is cached."""

    def __init__(self, shape: AttentionShape) -> None:
        self.shape = shape

    def attend(self, q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        """See `Attention`."""
        groups = self.shape.num_heads // self.shape.num_kv_heads
        k_TND, v_TND = (heads.repeat_interleave(groups, 1) for heads in (k_TKD, v_TKD))
        scores_NTT = torch.einsum("qnd,knd->nqk", q_TND, k_TND).float() * self.shape.scale
        if self.shape.softcap is not None:
            scores_NTT = torch.tanh(scores_NTT / self.shape.softcap) * self.shape.softcap
        ages_TT = torch.arange(len(q_TND))[:, None] - torch.arange(len(q_TND))
        hidden_TT = (ages_TT < 0) | (ages_TT >= (self.shape.windows[layer] or len(q_TND)))
        scores_NTT = scores_NTT.masked_fill(hidden_TT.to(scores_NTT.device), float("-inf"))
        return torch.einsum("nqk,knd->qnd", scores_NTT.softmax(-1).to(v_TND.dtype), v_TND)
