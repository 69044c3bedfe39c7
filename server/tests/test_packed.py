"""Packed vision encoders against the plain way: one image, one window, one convolution at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchEmbed, VisionAttention

from text_generation_server.layers.packed import PatchEmbedding, SegmentAttention, bounds, patchify, segments

LENGTHS = [[6], [4, 4, 4], [4, 2, 4, 2, 1], [3, 5, 3]]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_segments_are_attended_apart(lengths: list[int]) -> None:
    config = Qwen2VLVisionConfig(embed_dim=32, num_heads=2)
    config._attn_implementation = "eager"
    plain = VisionAttention(config)
    hidden, angles = random(sum(lengths), 32), random(sum(lengths), 8)
    ends = bounds(torch.tensor(lengths))
    table = (angles.cos().repeat(1, 2), angles.sin().repeat(1, 2))
    with torch.inference_mode():
        ours = SegmentAttention(plain)(hidden, cu_seqlens=ends, position_embeddings=table)
        wanted = plain(hidden, cu_seqlens=ends, position_embeddings=table)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_segments_of_one_length_go_together(lengths: list[int]) -> None:
    found = segments(tuple(bounds(torch.tensor(lengths)).tolist()), torch.device("cpu"))
    assert sorted(rows_SL.shape[1] for rows_SL in found) == sorted(set(lengths))
    assert sorted(torch.cat([rows_SL.flatten() for rows_SL in found]).tolist()) == list(range(sum(lengths)))


def test_patches_are_those_of_the_processor() -> None:
    """One product with the frames' weights added up gives what the convolution over equal frames gives."""
    embed = PatchEmbed(patch_size=4, temporal_patch_size=2, embed_dim=24)
    assert isinstance(embed.proj, nn.Conv3d)
    pictures = [np.random.default_rng(seed).integers(0, 256, (3, 16, 24), dtype=np.uint8) for seed in range(2)]
    processor = Qwen2VLImageProcessorPil(patch_size=4, do_resize=False, do_normalize=False)
    done = processor(pictures, input_data_format="channels_first", return_tensors="pt")
    views_NCHW = torch.from_numpy(np.stack(pictures)) / 255
    with torch.inference_mode():
        ours = PatchEmbedding(embed.proj)(patchify(views_NCHW, 4, 2))
        wanted = embed(done["pixel_values"])
    assert done["image_grid_thw"].tolist() == [[1, 4, 6]] * 2
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
