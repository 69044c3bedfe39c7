"""The part that is trained: projector and decoder, in plain torch, with the names that `transformers` gives tensors.

Heads that only help training along are in `Helpers` and are not exported.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedded_model.encoder import WIDTH
from embedded_model.supervision import CELLS, CLASSES, COLOUR_NAMES, GRID


@dataclass(frozen=True)
class Shape:
    """Sizes of the decoder."""

    vocabulary: int
    width: int = 256
    layers: int = 4
    heads: int = 8
    key_heads: int = 2
    inner: int = 640
    positions: int = 8192
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Projector(nn.Module):
    """What the encoder sees to what the decoder reads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(WIDTH, shape.width)
        self.linear_2 = nn.Linear(shape.width, shape.width)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.linear_2(F.gelu(self.linear_1(features)))
        return projected


class Attention(nn.Module):
    """Attention of Qwen 2: rotated queries and keys, shared key heads, biases on all but the output."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        keys = shape.key_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, keys)
        self.v_proj = nn.Linear(shape.width, keys)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        groups = self.shape.heads // self.shape.key_heads
        query = rotated(self._heads(self.q_proj(x)), rotation)
        key = rotated(self._heads(self.k_proj(x)), rotation).repeat_interleave(groups, 1)
        value = self._heads(self.v_proj(x)).repeat_interleave(groups, 1)
        out: Tensor = self.o_proj(attended(query, key, value, mask).transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (-1, self.shape.head_width))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)


class FeedForward(nn.Module):
    """Gated by SiLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each normed before and added after."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.width, shape.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, shape.norm_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class LanguageModel(nn.Module):
    """Qwen 2 without its output layer, which is the embedding again."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, shape.norm_eps)


class VisionLanguage(nn.Module):
    """Projector and decoder. `forward` gives the hidden state behind every layer, the last one normed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.multi_modal_projector = Projector(shape)
        self.language_model = LanguageModel(shape)
        self.apply(_initialise)

    def forward(self, embedded: Tensor, positions: Tensor, mask: Tensor) -> list[Tensor]:
        """`mask` [rows, 1, tokens, tokens] is true where a token sees another."""
        rotation = rotations(positions, self.shape)
        states = []
        x = embedded
        for layer in self.language_model.layers:
            x = layer(x, rotation, mask)
            states.append(x)
        states[-1] = self.language_model.norm(x)
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.language_model.embed_tokens.weight)


class Helpers(nn.Module):
    """Heads that say what cells and pictures show.

    Names are compared with their own token embeddings, so that the decoder only has to copy what the projector writes.
    """

    def __init__(self, shape: Shape, name_ids: list[int]) -> None:
        super().__init__()
        self.register_buffer("name_ids", torch.tensor(name_ids), persistent=False)
        self.others = nn.Parameter(torch.randn(len(CLASSES) - len(name_ids), shape.width) * 0.02)
        self.sharpness = nn.Parameter(torch.tensor(5.0))
        self.colour = nn.Linear(shape.width, len(COLOUR_NAMES))
        self.row = nn.Linear(shape.width, GRID)
        self.column = nn.Linear(shape.width, GRID)
        self.count = nn.Linear(shape.width, 7)
        self.background = nn.Linear(shape.width, len(COLOUR_NAMES))

    def classes(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Logits of `CLASSES` for tokens [..., width]."""
        assert isinstance(self.name_ids, Tensor)
        vectors = torch.cat([embedding[self.name_ids], self.others])
        return self.sharpness * F.linear(F.layer_norm(hidden, hidden.shape[-1:]), vectors)


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """What each query collects. On a CPU float32 is faster here: the backward pass of bfloat16 takes twice as long."""
    with torch.autocast(query.device.type, enabled=query.device.type != "cpu"):
        if query.device.type == "cpu":
            query, key, value = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def rotations(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine [rows, 1, tokens, head width] of every position."""
    exponents = torch.arange(0, shape.head_width, 2, device=positions.device).float() / shape.head_width
    angles = positions[..., None].float() * shape.rope_base**-exponents
    angles = torch.cat([angles, angles], -1)[:, None]
    return angles.cos(), angles.sin()


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


def visible(branches: Tensor) -> Tensor:
    """Mask [rows, 1, tokens, tokens]: what came before, in the same branch or in the part that all share."""
    length = branches.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    same = branches[:, :, None] == branches[:, None, :]
    shared = (branches == 0)[:, None, :]
    return (before & (same | shared))[:, None]


def cells_of(ids: Tensor, image_id: int) -> Tensor:
    """Where image tokens stand, [pictures, CELLS, 2]: row and place in it."""
    found: Tensor = (ids == image_id).nonzero().unflatten(0, (-1, CELLS))  # type: ignore[no-untyped-call]
    return found


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
