"""Uploads are put together or refused; pixels wait within a limit and leave once encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from driver import IMAGE_TOKENS, VIEW, Driver, image, key, picture, warm_up
from torch import Tensor

from text_generation_server.images import Image, ImageRejected, ImageStore, Normaliser, Upload, UploadFull
from text_generation_server.plan import EncodeImage, Failure, FailureKind, ImageHeader, ViewSize
from text_generation_server.shard import Shard
from text_generation_server.warmup import largest_images

LIMIT = 1000
SMALL = ImageHeader(key(1), ViewSize(4, 2), (ViewSize(4, 2), ViewSize(1, 3)), num_tokens=1)
SMALL_BYTES = bytes(range(4 * 2 * 3 + 3 * 3))


def upload(header: ImageHeader, pieces: list[tuple[int, bytes]]) -> Image:
    whole = Upload(header, LIMIT)
    for offset, data in pieces:
        whole.write(offset, data)
    return whole.finish()


@pytest.mark.parametrize("cut", [0, 1, 24, 32, 33])
def test_pieces_become_views(cut: int) -> None:
    wide, tall = upload(SMALL, [(0, SMALL_BYTES[:cut]), (cut, SMALL_BYTES[cut:])]).views
    assert wide.tolist() == torch.arange(24).view(2, 4, 3).tolist()
    assert tall.tolist() == torch.arange(24, 33).view(3, 1, 3).tolist()


@pytest.mark.parametrize(
    "header",
    [
        replace(SMALL, key=b"short"),
        replace(SMALL, key=bytes(33)),
        replace(SMALL, views=()),
        replace(SMALL, views=(ViewSize(1, 1),) * 257),
        replace(SMALL, views=(ViewSize(0, 4),)),
        replace(SMALL, views=(ViewSize(4, 0),)),
        replace(SMALL, views=(ViewSize(2**32 - 1, 1),)),
        replace(SMALL, views=(ViewSize(20, 20),)),
        replace(SMALL, views=(ViewSize(15, 15), ViewSize(15, 15))),
    ],
)
def test_impossible_headers(header: ImageHeader) -> None:
    with pytest.raises(ImageRejected):
        Upload(header, LIMIT)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, SMALL_BYTES[:-1])],
        [(0, SMALL_BYTES + b"x")],
        [(1, SMALL_BYTES[1:])],
        [(0, SMALL_BYTES), (0, SMALL_BYTES)],
        [(0, SMALL_BYTES[:9]), (10, SMALL_BYTES[10:])],
        [(2**63, b"x")],
    ],
)
def test_incomplete_or_misplaced_pieces(pieces: list[tuple[int, bytes]]) -> None:
    with pytest.raises(ImageRejected):
        upload(SMALL, pieces)


def test_waiting_pixels_are_bounded() -> None:
    store = ImageStore(max_upload_bytes=2 * VIEW.num_bytes)
    store.put(image(1))
    store.put(image(2))
    with pytest.raises(UploadFull):
        store.put(image(3))
    store.forget(key(1))
    store.put(image(3))


def test_the_same_image_twice_waits_once() -> None:
    store = ImageStore(max_upload_bytes=VIEW.num_bytes)
    store.put(image(1))
    store.put(image(1))


def test_pixels_leave_and_the_embedding_stays_until_forgotten(shard: Shard) -> None:
    driver = Driver(shard)
    shard.images.put(image(1))
    driver.step([], encode_images=[EncodeImage(key(1), 0)])
    assert shard.images.take(key(1)) is None
    embedding = shard.images.find(key(1))
    assert isinstance(embedding, torch.Tensor)
    assert embedding.shape == (IMAGE_TOKENS, shard.model.shape.embedding_width)
    driver.step([], forget_images=[key(1)])
    assert isinstance(shard.images.find(key(1)), Failure)


def test_no_memory_for_one_image_fails_that_image(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(shard.model, "encode_views", full)
    shard.images.put(image(1))
    assert Driver(shard).step([], encode_images=[EncodeImage(key(1), 0)]).failures == []
    failure = shard.images.find(key(1))
    assert isinstance(failure, Failure)
    assert failure.kind is FailureKind.OUT_OF_MEMORY


HALF = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}


@pytest.mark.parametrize(
    ("processor", "wanted"),
    [
        (HALF | {"rescale_factor": 1 / 255}, lambda x: (x / 255 - 0.5) / 0.25),
        ({"image_mean": [127] * 3, "image_std": [128] * 3, "do_rescale": False}, lambda x: (x - 127) / 128),
        (HALF | {"do_normalize": False}, lambda x: x / 255),
        ({}, lambda x: x / 255),
    ],
)
def test_pixel_values(processor: dict[str, Any], wanted: Callable[[Tensor], Tensor]) -> None:
    pixels = torch.from_numpy(np.stack([picture(1), picture(2)]))
    values = Normaliser(processor, torch.device("cpu"), torch.float32)(pixels)
    torch.testing.assert_close(values, wanted(pixels.permute(0, 3, 1, 2).double()).float(), atol=1e-6, rtol=1e-6)
    assert values.is_contiguous(memory_format=torch.channels_last)


def test_a_large_image_does_not_hold_up_a_start_on_the_cpu() -> None:
    side = ViewSize(2048, 2048)
    request = replace(warm_up(), largest_image=ImageHeader(b"", side, (side,), 1))
    assert largest_images(request, torch.device("cpu")) == 0
    assert largest_images(replace(request, largest_image=SMALL), torch.device("cpu")) == 1
