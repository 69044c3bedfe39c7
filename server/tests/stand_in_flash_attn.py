"""What the flash-attn package promises, in plain PyTorch: its signatures, what it refuses, what it computes.

Signatures, checks and masks are those documented and made by 2.8 (`flash_attn`) and by 3.0.0 beta
(`flash_attn_interface`). Arguments that a server has no use for are refused unless they have their default.
"""

from __future__ import annotations

import importlib.machinery
from types import ModuleType

import torch
from torch import Tensor

Window = tuple[int, int]


def flash_attn_varlen_func(  # noqa: PLR0913 (the package's own)
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """Version 2: rows of q one behind the other. [T, N, D], [blocks, block size, K, D] twice."""
    assert not (dropout_p or deterministic or return_attn_probs) and alibi_slopes is None
    assert block_table is not None and softmax_scale is not None
    _check(q, k, v, block_table)
    assert k.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256"
    rows = len(block_table)
    for bounds in (cu_seqlens_q, cu_seqlens_k):
        _check_integers(bounds, (rows + 1,))
    queries, lengths = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    assert int(cu_seqlens_q[-1]) == len(q)
    assert (max_seqlen_q, max_seqlen_k) == (max(queries), max(lengths))
    # With one token a row it splits keys, and gets blocks wrong: issue 1217.
    assert max_seqlen_q > 1
    parts = zip(q.split(queries), lengths, block_table, strict=True)
    return torch.cat([_row(part, k, v, (length, table), (softmax_scale, causal, window_size, softcap))
                      for part, length, table in parts])  # fmt: skip


def flash_attn_with_kvcache(  # noqa: PLR0913 (the package's own)
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    block_table: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None,
    num_splits: int = 0,
    return_softmax_lse: bool = False,
) -> Tensor:
    """Version 2: as many queries for each row. [R, queries, N, D], [blocks, block size, K, D] twice."""
    unused = (k, v, rotary_cos, rotary_sin, cache_batch_idx, cache_leftpad, alibi_slopes)
    assert all(one is None for one in unused) and rotary_interleaved and not (num_splits or return_softmax_lse)
    assert block_table is not None and isinstance(cache_seqlens, Tensor) and softmax_scale is not None
    assert q.dim() == 4
    _check(q, k_cache, v_cache, block_table)
    assert k_cache.shape[1] % 256 == 0, "Paged KV cache block size must be divisible by 256"
    _check_integers(cache_seqlens, (len(q),))
    parts = zip(q, cache_seqlens.tolist(), block_table, strict=True)
    return torch.stack([_row(part, k_cache, v_cache, (length, table), (softmax_scale, causal, window_size, softcap))
                        for part, length, table in parts])  # fmt: skip


def flash_attn_3_with_kvcache(  # noqa: PLR0913 (the package's own)
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    qv: Tensor | None = None,
    rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None,
    cache_seqlens: int | Tensor | None = None,
    cache_batch_idx: Tensor | None = None,
    cache_leftpad: Tensor | None = None,
    page_table: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k_new: Tensor | None = None,
    max_seqlen_q: int | None = None,
    rotary_seqlens: Tensor | None = None,
    q_descale: Tensor | None = None,
    k_descale: Tensor | None = None,
    v_descale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    rotary_interleaved: bool = True,
    scheduler_metadata: Tensor | None = None,
    num_splits: int = 0,
    pack_gqa: bool | None = None,
    sm_margin: int = 0,
    return_softmax_lse: bool = False,
) -> Tensor:
    """Version 3: rows of any length. [T, N, D], [blocks, block size, K, D] twice."""
    unused = (k, v, qv, rotary_cos, rotary_sin, cache_batch_idx, cache_leftpad, cu_seqlens_k_new, rotary_seqlens)
    assert all(one is None for one in (*unused, q_descale, k_descale, v_descale, scheduler_metadata, pack_gqa))
    assert rotary_interleaved and not (attention_chunk or num_splits or sm_margin or return_softmax_lse)
    assert page_table is not None and isinstance(cache_seqlens, Tensor) and softmax_scale is not None
    assert cu_seqlens_q is not None and max_seqlen_q is not None
    assert q.dim() == 3
    _check(q, k_cache, v_cache, page_table)
    _check_integers(cache_seqlens, (len(page_table),))
    _check_integers(cu_seqlens_q, (len(page_table) + 1,))
    queries = cu_seqlens_q.diff().tolist()
    assert (int(cu_seqlens_q[-1]), max_seqlen_q) == (len(q), max(queries))
    parts = zip(q.split(queries), cache_seqlens.tolist(), page_table, strict=True)
    return torch.cat([_row(part, k_cache, v_cache, (length, table), (softmax_scale, causal, window_size, softcap))
                      for part, length, table in parts])  # fmt: skip


def as_module(version: int) -> ModuleType:
    """A module to be put where the package's would be."""
    module = ModuleType({2: "flash_attn", 3: "flash_attn_interface"}[version])
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    if version == 2:
        vars(module).update(
            __version__="2.8.3",
            flash_attn_varlen_func=flash_attn_varlen_func,
            flash_attn_with_kvcache=flash_attn_with_kvcache,
        )
    else:
        vars(module).update(flash_attn_with_kvcache=flash_attn_3_with_kvcache)
    return module


def _check(q: Tensor, k: Tensor, v: Tensor, table_RB: Tensor) -> None:
    assert q.dtype in (torch.float16, torch.bfloat16), "FlashAttention only support fp16 and bf16 data type"
    assert q.dtype == k.dtype == v.dtype
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1, "Input tensor must have contiguous last dimension"
    assert k.dim() == 4 and k.shape == v.shape and q.shape[-1] == k.shape[-1]
    assert q.shape[-1] <= 256 and q.shape[-1] % 8 == 0
    assert q.shape[-2] % k.shape[-2] == 0
    assert table_RB.dtype == torch.int32 and table_RB.dim() == 2 and table_RB.stride(-1) == 1 and len(table_RB)
    # It may look at entries behind the last token, and at nothing outside of the cache.
    assert ((table_RB >= 0) & (table_RB < len(k))).all()


def _check_integers(numbers: Tensor, shape: tuple[int, ...]) -> None:
    assert numbers.dtype == torch.int32 and numbers.is_contiguous() and numbers.shape == shape


def _row(
    q_QND: Tensor,
    k: Tensor,
    v: Tensor,
    place: tuple[int, Tensor],
    options: tuple[float, bool, Window, float],
) -> Tensor:
    """One row. Query i sees keys from i + L - Q - left to i + L - Q + right of L; a causal one none behind itself."""
    (length, table_B), (scale, causal, (left, right), softcap) = place, options
    blocks = table_B[: -(-length // k.shape[1])].long()
    repeats = q_QND.shape[1] // k.shape[2]
    k_LND, v_LND = (x[blocks].flatten(0, 1)[:length].float().repeat_interleave(repeats, 1) for x in (k, v))
    scores_NQL = torch.einsum("qnd,lnd->nql", q_QND.float(), k_LND) * scale
    if softcap > 0:
        scores_NQL = torch.tanh(scores_NQL / softcap) * softcap
    own_Q1 = torch.arange(len(q_QND))[:, None] + length - len(q_QND)
    key_L = torch.arange(length)
    right = 0 if causal else right
    hidden_QL = torch.zeros(len(q_QND), length, dtype=torch.bool)
    if left >= 0:
        hidden_QL |= key_L < own_Q1 - left
    if right >= 0:
        hidden_QL |= key_L > own_Q1 + right
    weights_NQL = torch.softmax(scores_NQL.masked_fill(hidden_QL, float("-inf")), -1)
    return torch.einsum("nql,lnd->qnd", weights_NQL, v_LND).to(q_QND.dtype)
