"""One decoder for the Llama / Mistral / Qwen / Gemma line, described by a `DecoderSpec`.

Tensor-parallel: attention heads and feed-forward columns are cut among ranks, key and value heads are copied when
there are more ranks than heads. Attention itself belongs to a backend.

Suffixes: T tokens of the step, N query heads and K key/value heads of this rank, D head width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from text_generation_server.attention.base import Attention, AttentionShape
from text_generation_server.distributed import Ranks
from text_generation_server.layers.embedding import OutputHead, TokenEmbedding, vocabulary_rows
from text_generation_server.layers.fused import Gate
from text_generation_server.layers.linear import RowPart, ShapeError, SummedLinear, fused_rows
from text_generation_server.layers.norm import RmsNorm
from text_generation_server.layers.rotary import RopeSpec, Rotary
from text_generation_server.weights import Weights


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """Everything that tells one decoder of the line from another."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_positions: int
    norm_eps: float
    ropes: tuple[RopeSpec, ...]
    """The kinds of rotary embedding there are; most models have one."""
    layer_ropes: tuple[int, ...] = ()
    """Which kind each layer has; empty: the first."""
    activation: str = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    unit_offset_norms: bool = False
    """Norms multiply by 1 + weight, in float32 (Gemma)."""
    output_norms: bool = False
    """Attention and feed-forward have a norm behind them too (Gemma 2 and 3)."""
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    """What attention and feed-forward are multiplied with before they are added (Granite)."""
    logit_scale: float = 1.0
    attention_scale: float | None = None
    """What scores are multiplied with; None: 1 / sqrt(head_dim)."""
    tied_head: bool = False
    windows: tuple[int | None, ...] = ()
    has_ranges: bool = False
    ranges_ignore_windows: bool = False
    """See `AttentionShape`, for both."""
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    @staticmethod
    def from_config(config: Mapping[str, Any], **differences: Any) -> DecoderSpec:  # noqa: ANN401 (any field)
        """Reads the field names the line shares; `differences` are what a family adds or overrides."""
        heads = int(config["num_attention_heads"])
        head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
        max_positions = int(config["max_position_embeddings"])
        fields: dict[str, Any] = {
            "vocab_size": int(config["vocab_size"]),
            "hidden_size": int(config["hidden_size"]),
            "intermediate_size": int(config["intermediate_size"]),
            "num_layers": int(config["num_hidden_layers"]),
            "num_heads": heads,
            "num_kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": head_dim,
            "max_positions": max_positions,
            "norm_eps": float(config["rms_norm_eps"]),
            "ropes": (RopeSpec(head_dim=head_dim, max_positions=max_positions, parameters=rope_parameters(config)),),
            "activation": config.get("hidden_activation") or config.get("hidden_act", "silu"),
            "tied_head": bool(config.get("tie_word_embeddings", False)),
        }
        return DecoderSpec(**(fields | differences))


def rope_parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary settings of a config, old or new."""
    # Checkpoints written before transformers 5 say rope_theta and rope_scaling (with "type" for "rope_type").
    old = config.get("rope_scaling") or {}
    parameters = {"rope_type": old.get("type", "default"), "rope_theta": config.get("rope_theta", 10000.0)}
    return parameters | old | (config.get("rope_parameters") or {})


@dataclass(frozen=True, slots=True)
class Added:
    """What tokens from `start` on add to the outputs of the first layers: rows of [tokens, layers, hidden].

    The features of several depths of a vision encoder (DeepStack, https://arxiv.org/abs/2406.04334).
    """

    start: int
    rows_NLH: Tensor

    def add(self, hidden_TH: Tensor, layer: int) -> None:
        """Adds what is meant for this layer, in place."""
        tokens, layers, _ = self.rows_NLH.shape
        if layer < layers:
            hidden_TH[self.start : self.start + tokens] += self.rows_NLH[:, layer]


class Decoder:
    """Token embedding, layers, final norm and output head of one rank."""

    def __init__(self, spec: DecoderSpec, weights: Weights, ranks: Ranks, body: str, head: str) -> None:
        self.spec = spec
        shape = (spec.vocab_size, spec.hidden_size)
        self.shape = _attention_shape(spec, ranks)
        rows_VH = vocabulary_rows(weights, ranks, f"{body}.embed_tokens.weight", shape)
        self.embed = TokenEmbedding(rows_VH, ranks, spec.embedding_scale)
        self._rotaries = [Rotary(rope, weights.device, weights.dtype) for rope in spec.ropes]
        self._layer_ropes = spec.layer_ropes or (0,) * spec.num_layers
        self._layers = [
            DecoderLayer(spec, weights, ranks, f"{body}.layers.{layer}", layer) for layer in range(spec.num_layers)
        ]
        self._norm = _norm(spec, weights, f"{body}.norm.weight")
        rows_VH = self.embed.weight_VH if spec.tied_head else vocabulary_rows(weights, ranks, f"{head}.weight", shape)
        self._head = OutputHead(rows_VH, ranks, spec.vocab_size, spec.logit_softcap)

    def forward(
        self, hidden_TH: Tensor, positions_AT: Tensor, attention: Attention, added: Sequence[Added] = ()
    ) -> Tensor:
        """Runs every layer; the result goes to `logits` for the tokens that sample."""
        tables = [rotary.at(positions_AT) for rotary in self._rotaries]
        for index, layer in enumerate(self._layers):
            hidden_TH = layer(hidden_TH, tables[self._layer_ropes[index]], attention)
            for part in added:
                part.add(hidden_TH, index)
        return hidden_TH

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """Float32 scores over the whole vocabulary for each given token."""
        scores_RV: Tensor = self._head(self._norm(hidden_RH))
        return scores_RV if self.spec.logit_scale == 1.0 else scores_RV.mul_(self.spec.logit_scale)


class DecoderLayer:
    """Attention and feed-forward, each behind a norm and a residual connection."""

    def __init__(self, spec: DecoderSpec, weights: Weights, ranks: Ranks, name: str, layer: int) -> None:
        # The same name is the norm before the feed-forward in one half of the line and behind attention in the other.
        before, behind = "post_attention_layernorm", None
        if spec.output_norms:
            before, behind = "pre_feedforward_layernorm", "post_attention_layernorm"
        self._attention_norm = _norm(spec, weights, f"{name}.input_layernorm.weight")
        self._attention = SelfAttention(spec, weights, ranks, f"{name}.self_attn", layer)
        self._feed_forward_norm = _norm(spec, weights, f"{name}.{before}.weight")
        self._feed_forward = FeedForward(spec, weights, ranks, f"{name}.mlp")
        self._residual_scale = spec.residual_scale
        self._output_norms: tuple[RmsNorm, RmsNorm] | None = None
        if behind is not None:
            last = _norm(spec, weights, f"{name}.post_feedforward_layernorm.weight")
            self._output_norms = (_norm(spec, weights, f"{name}.{behind}.weight"), last)

    def __call__(self, hidden_TH: Tensor, table: Tensor, attention: Attention) -> Tensor:
        attended_TH = self._attention(self._attention_norm(hidden_TH), table, attention)
        if self._output_norms is None:
            scale = self._residual_scale
            hidden_TH, normed_TH = self._feed_forward_norm.after_adding(hidden_TH, attended_TH, scale)
            return torch.add(hidden_TH, self._feed_forward(normed_TH), alpha=scale)
        hidden_TH = hidden_TH + self._output_norms[0](attended_TH)
        return hidden_TH + self._output_norms[1](self._feed_forward(self._feed_forward_norm(hidden_TH)))


class SelfAttention:
    """Fused query/key/value product, the backend's rotation and attention, output product."""

    def __init__(self, spec: DecoderSpec, weights: Weights, ranks: Ranks, name: str, layer: int) -> None:
        self._layer = layer
        shape = _attention_shape(spec, ranks)
        self._num_heads = shape.num_heads
        self._rotated = shape.num_heads + shape.num_kv_heads
        self._head_dim = spec.head_dim
        self._qkv = fused_rows(weights, _qkv_parts(spec, ranks, name), spec.hidden_size, spec.qkv_bias)
        output_shape = (spec.hidden_size, spec.num_heads * spec.head_dim)
        self._output = SummedLinear(weights, ranks, f"{name}.o_proj", output_shape, spec.output_bias)
        self._norms: tuple[RmsNorm, RmsNorm] | None = None
        if spec.qk_norm:
            names = (f"{name}.q_norm.weight", f"{name}.k_norm.weight")
            self._norms = (_norm(spec, weights, names[0], spec.head_dim), _norm(spec, weights, names[1], spec.head_dim))

    def __call__(self, x_TH: Tensor, table: Tensor, attention: Attention) -> Tensor:
        heads_TND = self._qkv(x_TH).view(len(x_TH), -1, self._head_dim)
        if self._norms is not None:
            heads_TND = self._normalised(heads_TND, *self._norms)
        return self._output(attention.rotate_and_attend(heads_TND, table, self._layer).flatten(1))

    def _normalised(self, heads_TND: Tensor, q_norm: RmsNorm, k_norm: RmsNorm) -> Tensor:
        num_heads = self._num_heads
        heads_TND[:, :num_heads] = q_norm(heads_TND[:, :num_heads])
        heads_TND[:, num_heads : self._rotated] = k_norm(heads_TND[:, num_heads : self._rotated])
        return heads_TND


class FeedForward:
    """down(act(gate(x)) * up(x)) with gate and up in one product."""

    def __init__(self, spec: DecoderSpec, weights: Weights, ranks: Ranks, name: str) -> None:
        gate_up = [RowPart.even(f"{name}.{part}", spec.intermediate_size, ranks) for part in ("gate_proj", "up_proj")]
        self._gate_up = fused_rows(weights, gate_up, spec.hidden_size, bias=False)
        self._down = SummedLinear(weights, ranks, f"{name}.down_proj", (spec.hidden_size, spec.intermediate_size))
        self._gate = Gate(spec.activation)

    def __call__(self, x_TH: Tensor) -> Tensor:
        return self._down(self._gate(self._gate_up(x_TH)))


def _norm(spec: DecoderSpec, weights: Weights, name: str, width: int | None = None) -> RmsNorm:
    shape = (width or spec.hidden_size,)
    if spec.unit_offset_norms:
        return RmsNorm(1.0 + weights.exact(name, shape), spec.norm_eps)
    return RmsNorm(weights.whole(name, shape), spec.norm_eps)


def _divides(spec: DecoderSpec, num_ranks: int) -> bool:
    """Whether every rank gets as much as the others. Key/value heads are copied where there are too few."""
    copied = num_ranks % spec.num_kv_heads == 0
    shared = spec.num_kv_heads % num_ranks == 0
    return spec.num_heads % num_ranks == 0 and spec.intermediate_size % num_ranks == 0 and (copied or shared)


def _attention_shape(spec: DecoderSpec, ranks: Ranks) -> AttentionShape:
    if not _divides(spec, ranks.world_size):
        sizes = {
            "attention heads": spec.num_heads,
            "key/value heads": spec.num_kv_heads,
            "feed-forward columns": spec.intermediate_size,
        }
        would = ", ".join(str(count) for count in range(1, spec.num_heads + 1) if _divides(spec, count))
        what = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise ShapeError(f"{what} cannot be divided among {ranks.world_size} ranks; this model takes {would}")
    num_heads = spec.num_heads // ranks.world_size
    num_kv_heads = max(1, spec.num_kv_heads // ranks.world_size)
    return AttentionShape(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=spec.head_dim,
        scale=spec.head_dim**-0.5 if spec.attention_scale is None else spec.attention_scale,
        windows=spec.windows or (None,) * spec.num_layers,
        softcap=spec.attention_softcap,
        has_ranges=spec.has_ranges,
        ranges_ignore_windows=spec.ranges_ignore_windows,
    )


def _qkv_parts(spec: DecoderSpec, ranks: Ranks, name: str) -> list[RowPart]:
    shape = _attention_shape(spec, ranks)
    first = ranks.rank * spec.num_kv_heads // ranks.world_size * spec.head_dim
    last = first + shape.num_kv_heads * spec.head_dim
    kv_rows = spec.num_kv_heads * spec.head_dim
    return [
        RowPart.even(f"{name}.q_proj", spec.num_heads * spec.head_dim, ranks),
        RowPart(f"{name}.k_proj", kv_rows, first, last),
        RowPart(f"{name}.v_proj", kv_rows, first, last),
    ]
