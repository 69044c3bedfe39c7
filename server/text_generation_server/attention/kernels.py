"""The Triton kernels of paged attention. `triton.py` beside this file launches them.

A tile is `TOKENS` neighbouring tokens of one row with all query heads that share a key/value head: line m of it is
token m // GROUP and head m % GROUP. Softmax is computed online over the keys (Milakov and Gimelshein 2018,
https://arxiv.org/abs/1805.02867) in base 2.

A row that decodes is a tile of one token, whose keys are split among programs. How many of them find work is decided
here, from the row's own length, and not by the launch: a captured launch serves every length there is, and a short row
beside a long one is not cut into crumbs.

Suffixes: M lines of a tile, L keys of a turn of the loop, D head width, S splits of a row's keys.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_kernel(
    heads, table, slots, keys, values,
    heads_stride, slot_stride,
    NUM_HEADS: tl.constexpr, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    SIZE_H: tl.constexpr, SIZE_E: tl.constexpr, ROTATE: tl.constexpr,
):  # fmt: skip
    """Turns query heads of one token in place; stores its keys, turned, and its values. One program: `SIZE_H` heads.

    A negative slot is no place: a token that fills up a captured graph. E: half of a head.
    """
    token = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = HEAD_DIM // 2
    head_H, e_E = tl.program_id(1) * SIZE_H + tl.arange(0, SIZE_H), tl.arange(0, SIZE_E)
    is_query_H = head_H < NUM_HEADS
    is_key_H = (head_H >= NUM_HEADS) & (head_H < NUM_HEADS + NUM_KV_HEADS)
    is_value_H = (head_H >= NUM_HEADS + NUM_KV_HEADS) & (head_H < NUM_HEADS + 2 * NUM_KV_HEADS)
    inside_E = e_E < half
    inside_HE = (head_H < NUM_HEADS + 2 * NUM_KV_HEADS)[:, None] & inside_E[None, :]
    source_HE = heads + token * heads_stride + head_H[:, None] * HEAD_DIM + e_E[None, :]
    first_HE, second_HE = tl.load(source_HE, inside_HE, 0.0), tl.load(source_HE + half, inside_HE, 0.0)
    if ROTATE:
        # The sign of the first half's sine is in the table.
        angle_E = table + token * 2 * HEAD_DIM + e_E
        cosine_E, sine_E = tl.load(angle_E, inside_E, 0.0), tl.load(angle_E + HEAD_DIM, inside_E, 0.0)
        cosine_2_E, sine_2_E = tl.load(angle_E + half, inside_E, 0.0), tl.load(angle_E + HEAD_DIM + half, inside_E, 0.0)
        x_HE, y_HE = first_HE.to(tl.float32), second_HE.to(tl.float32)
        turned_HE = x_HE * cosine_E.to(tl.float32)[None, :] + y_HE * sine_E.to(tl.float32)[None, :]
        turned_2_HE = y_HE * cosine_2_E.to(tl.float32)[None, :] + x_HE * sine_2_E.to(tl.float32)[None, :]
        first_HE = tl.where(is_value_H[:, None], first_HE, turned_HE.to(first_HE.dtype))
        second_HE = tl.where(is_value_H[:, None], second_HE, turned_2_HE.to(second_HE.dtype))
        query_HE = is_query_H[:, None] & inside_E[None, :]
        tl.store(source_HE, first_HE, query_HE)
        tl.store(source_HE + half, second_HE, query_HE)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    to_slot = slot.to(tl.int64) * slot_stride + e_E[None, :]
    key_HE = keys + to_slot + (head_H - NUM_HEADS)[:, None] * HEAD_DIM
    value_HE = values + to_slot + (head_H - NUM_HEADS - NUM_KV_HEADS)[:, None] * HEAD_DIM
    store_key_HE = is_key_H[:, None] & inside_E[None, :]
    store_value_HE = is_value_H[:, None] & inside_E[None, :]
    tl.store(key_HE, first_HE, store_key_HE)
    tl.store(key_HE + half, second_HE, store_key_HE)
    tl.store(value_HE, first_HE, store_value_HE)
    tl.store(value_HE + half, second_HE, store_value_HE)


@triton.jit
def _collect(
    q_MD, keys, values, blocks,
    first, last, position_M, range_first_M, range_end_M, used_M, block_stride, slot_stride, scale, softcap, window,
    HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, SIZE_M: tl.constexpr, SIZE_L: tl.constexpr, SIZE_D: tl.constexpr,
    SOFTCAP: tl.constexpr, RANGES: tl.constexpr, RANGES_FIRST: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Runs over the keys from `first` to `last`: each line's largest score, sum of weights, weighted sum of values."""
    d_D = tl.arange(0, SIZE_D)
    max_M = tl.full([SIZE_M], float("-inf"), tl.float32)
    sum_M = tl.zeros([SIZE_M], tl.float32)
    sum_MD = tl.zeros([SIZE_M, SIZE_D], tl.float32)
    for position in range(first, last, SIZE_L):
        key_L = position + tl.arange(0, SIZE_L)
        inside_L = key_L < last
        block_L = tl.load(blocks + (key_L // BLOCK_SIZE) * block_stride, inside_L, 0)
        slot_L = (block_L.to(tl.int64) * BLOCK_SIZE + key_L % BLOCK_SIZE) * slot_stride
        inside_LD = inside_L[:, None] & (d_D < HEAD_DIM)[None, :]
        k_LD = tl.load(keys + slot_L[:, None] + d_D[None, :], inside_LD, 0.0)
        v_LD = tl.load(values + slot_L[:, None] + d_D[None, :], inside_LD, 0.0)
        score_ML = _product(q_MD, tl.trans(k_LD), WIDEN) * scale
        if SOFTCAP:
            # tanh(x) = 2 sigmoid(2 x) - 1
            score_ML = softcap * (2 * tl.sigmoid(2 * score_ML / softcap) - 1)
        seen_ML = _seen(
            key_L[None, :], position_M[:, None], range_first_M[:, None], range_end_M[:, None], window,
            RANGES, RANGES_FIRST,
        )  # fmt: skip
        seen_ML = seen_ML & inside_L[None, :] & used_M[:, None]
        score_ML = tl.where(seen_ML, score_ML * 1.4426950408889634, float("-inf"))
        before_M = max_M
        max_M = tl.maximum(max_M, tl.max(score_ML, 1))
        # A line that has seen nothing yet has no maximum to subtract.
        base_M = tl.where(max_M == float("-inf"), 0.0, max_M)
        weight_ML = tl.exp2(score_ML - base_M[:, None])
        kept_M = tl.exp2(before_M - base_M)
        sum_M = sum_M * kept_M + tl.sum(weight_ML, 1)
        sum_MD = sum_MD * kept_M[:, None] + _product(weight_ML.to(v_LD.dtype), v_LD, WIDEN)
    return max_M, sum_M, sum_MD


@triton.jit(do_not_specialize=["block_stride"])
def attend_kernel(
    q, keys, values, output, partial, partial_max, partial_sum,
    tile_rows, tile_offsets, first_tokens, counts, starts, blocks, range_firsts, range_ends,
    q_stride, output_stride, slot_stride, block_stride,
    scale, softcap, window,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    SIZE_M: tl.constexpr, SIZE_L: tl.constexpr, SIZE_D: tl.constexpr, SPLITS: tl.constexpr, MIN_TURNS: tl.constexpr,
    SOFTCAP: tl.constexpr, RANGES: tl.constexpr, RANGES_FIRST: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """What one tile collects for one key/value head from one split of its row's keys.

    Block b of row r is number `b * block_stride + r` of `blocks`. With more than one split a tile is one token, and
    what was collected goes to `partial`, by split, tile and head.
    """
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(tile_rows + tile)
    offset = tl.load(tile_offsets + tile)
    count, start = tl.load(counts + row), tl.load(starts + row)
    first_token = tl.load(first_tokens + row)
    line_M, d_D = tl.arange(0, SIZE_M), tl.arange(0, SIZE_D)
    token_M = offset + line_M // GROUP
    used_M = (line_M < TOKENS * GROUP) & (token_M < count)
    used_MD = used_M[:, None] & (d_D < HEAD_DIM)[None, :]
    flat_M = (first_token + token_M).to(tl.int64)
    head_M = kv_head * GROUP + line_M % GROUP
    q_MD = tl.load(q + flat_M[:, None] * q_stride + head_M[:, None] * HEAD_DIM + d_D[None, :], used_MD, 0.0)
    position_M = start + token_M

    end = start + tl.minimum(offset + TOKENS, count)
    first = tl.maximum(start + offset - window + 1, 0)
    range_first_M, range_end_M = tl.zeros([SIZE_M], tl.int32), tl.zeros([SIZE_M], tl.int32)
    if RANGES:
        range_first_M = tl.load(range_firsts + flat_M, used_M, 0)
        range_end_M = tl.load(range_ends + flat_M, used_M, 0)
        end = tl.maximum(end, tl.max(range_end_M, 0))
        if RANGES_FIRST:
            first = tl.minimum(first, tl.min(tl.where(range_end_M > 0, range_first_M, end), 0))
    turns = tl.cdiv(tl.cdiv(end - first, SIZE_L), SPLITS)
    if SPLITS > 1:
        turns = tl.maximum(turns, MIN_TURNS)
    first += split * turns * SIZE_L
    last = tl.minimum(first + turns * SIZE_L, end)

    max_M, sum_M, sum_MD = _collect(
        q_MD, keys + kv_head * HEAD_DIM, values + kv_head * HEAD_DIM, blocks + row,
        first, last, position_M, range_first_M, range_end_M, used_M, block_stride, slot_stride, scale, softcap, window,
        HEAD_DIM, BLOCK_SIZE, SIZE_M, SIZE_L, SIZE_D, SOFTCAP, RANGES, RANGES_FIRST, WIDEN,
    )  # fmt: skip
    if SPLITS == 1:
        found_MD = sum_MD / tl.where(sum_M > 0, sum_M, 1.0)[:, None]
        target = output + flat_M[:, None] * output_stride + head_M[:, None] * HEAD_DIM + d_D[None, :]
        tl.store(target, found_MD.to(output.dtype.element_ty), used_MD)
    else:
        line = (split * tl.num_programs(0) + tile) * tl.num_programs(1) * GROUP + head_M
        # Nobody reads the values of a split that saw nothing.
        tl.store(partial + line[:, None] * HEAD_DIM + d_D[None, :], sum_MD, used_MD & (sum_M > 0)[:, None])
        tl.store(partial_max + line, max_M, used_M)
        tl.store(partial_sum + line, sum_M, used_M)


@triton.jit
def join_kernel(
    partial, partial_max, partial_sum, output, tile_rows, first_tokens,
    output_stride,
    HEAD_DIM: tl.constexpr, SIZE_D: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Joins the splits of one decoding row and one head."""
    tile, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    token = tl.load(first_tokens + tl.load(tile_rows + tile)).to(tl.int64)
    split_S, d_D = tl.arange(0, SPLITS), tl.arange(0, SIZE_D)
    line_S = (split_S * tl.num_programs(0) + tile) * heads + head
    max_S = tl.load(partial_max + line_S)
    # A split that saw nothing has sum 0 and weight 0; the row's own token is always seen by one of them.
    weight_S = tl.exp2(max_S - tl.max(max_S, 0))
    total = tl.sum(tl.load(partial_sum + line_S) * weight_S, 0)
    there_SD = (max_S > float("-inf"))[:, None] & (d_D < HEAD_DIM)[None, :]
    sum_SD = tl.load(partial + line_S[:, None] * HEAD_DIM + d_D[None, :], there_SD, 0.0)
    found_D = tl.sum(sum_SD * weight_S[:, None], 0) / total
    target = output + token * output_stride + head * HEAD_DIM + d_D
    tl.store(target, found_D.to(output.dtype.element_ty), d_D < HEAD_DIM)


@triton.jit
def _seen(key, position, range_first, range_end, window, RANGES: tl.constexpr, RANGES_FIRST: tl.constexpr):
    """Which keys a query sees: those before it within the window, and its range, which may be cut by the window."""
    seen, near = key <= position, key > position - window
    if RANGES:
        together = (key >= range_first) & (key < range_end)
        if RANGES_FIRST:
            return (seen & near) | together
        return (seen | together) & near
    return seen & near


@triton.jit
def _product(a, b, WIDEN: tl.constexpr):
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")
