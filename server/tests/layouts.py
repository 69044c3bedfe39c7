"""Layouts of steps, for tests of attention."""

from __future__ import annotations

import numpy as np
import torch

from text_generation_server.attention.base import StepLayout
from text_generation_server.plan import Ints


def lay_out(blocks_RB: Ints, starts_R: Ints, num_tokens_R: Ints, block_size: int) -> StepLayout:
    """Rows of tokens in these blocks, without ranges."""
    slots = [
        int(blocks[position // block_size]) * block_size + position % block_size
        for blocks, start, count in zip(blocks_RB, starts_R, num_tokens_R, strict=True)
        for position in range(start, start + count)
    ]
    return StepLayout(
        num_tokens_R=num_tokens_R,
        starts_R=starts_R,
        blocks_RB=blocks_RB.astype(np.int32),
        slots_T=torch.tensor(slots),
    )
