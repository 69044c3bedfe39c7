"""Images between the wire and the decoder: pixels that wait, embeddings that stay, and the encoding between them.

Pixels arrive as uint8 and are normalised on the device. Images are encoded data-parallel: the rank that holds the
pixels encodes them, then every rank gets the embedding. How many tokens an image has is the router's business; a
different count fails that image, not the step.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from text_generation_server.distributed import Ranks
from text_generation_server.layers.fused import normalised
from text_generation_server.models import CannotEncode, Model
from text_generation_server.plan import EncodeImage, Failure, FailureKind, ImageHeader
from text_generation_server.transfers import Transfers

KEY_BYTES = 32
MAX_VIEWS = 256
MAX_VIEW_SIDE = 1 << 15
MAX_BATCH_PIXELS = 1 << 22
"""Pixels given to the vision encoder at once; one view at least."""

MAX_IMAGES = 1 << 16
"""Uploads that may wait, and embeddings that may stay. The router's own limits come long before."""

NO_PIXELS, BAD_IMAGE, NOT_MINE = -1, -2, -3
"""What ranks tell each other in place of a token count. The owner's word is the largest."""

UNKNOWN = Failure(FailureKind.REJECTED, "the image is unknown")
MISSING = Failure(FailureKind.REJECTED, "the image has no pixels")
TEXT_ONLY = Failure(FailureKind.REJECTED, "this model takes no images")
NO_MEMORY = Failure(FailureKind.OUT_OF_MEMORY, "there is no memory to encode the image")
UNENCODABLE = Failure(FailureKind.IMAGE, "the image cannot be encoded")


class ImageRejected(Exception):
    """An upload that does not describe an image."""


class UploadFull(Exception):
    """More pixels are waiting than may wait."""


@dataclass(frozen=True)
class Image:
    """A complete upload: RGB8 views of [height, width, 3]."""

    header: ImageHeader
    views: list[Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of all views."""
        return sum(view.numel() for view in self.views)


class Upload:
    """Puts the pieces of one image together, in order, in a buffer allocated once."""

    def __init__(self, header: ImageHeader, max_bytes: int) -> None:
        self._header = header
        self._total = _checked_bytes(header, max_bytes)
        self._buffer = torch.empty(self._total, dtype=torch.uint8)
        self._bytes = self._buffer.numpy()
        self._received = 0

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next piece."""
        if offset != self._received:
            raise ImageRejected(f"a piece starts at byte {offset}, after {self._received} bytes")
        if len(data) > self._total - offset:
            raise ImageRejected(f"a piece ends at byte {offset + len(data)} of {self._total}")
        self._bytes[offset : offset + len(data)] = np.frombuffer(data, dtype=np.uint8)
        self._received += len(data)

    def finish(self) -> Image:
        """The image, if all of it came."""
        if self._received != self._total:
            raise ImageRejected(f"{self._received} bytes of {self._total} arrived")
        sizes = [view.num_bytes for view in self._header.views]
        parts = zip(torch.split(self._buffer, sizes), self._header.views, strict=True)
        return Image(self._header, [part.view(size.height, size.width, 3) for part, size in parts])


def _checked_bytes(header: ImageHeader, max_bytes: int) -> int:
    if len(header.key) != KEY_BYTES:
        raise ImageRejected(f"a key has {KEY_BYTES} bytes, not {len(header.key)}")
    if not 1 <= len(header.views) <= MAX_VIEWS:
        raise ImageRejected(f"an image has 1 to {MAX_VIEWS} views, not {len(header.views)}")
    for view in header.views:
        if not (0 < view.width <= MAX_VIEW_SIDE and 0 < view.height <= MAX_VIEW_SIDE):
            raise ImageRejected(f"a view of {view.width} x {view.height} pixels is out of range")
    total = sum(view.num_bytes for view in header.views)
    if total > max_bytes:
        raise ImageRejected(f"an image of {total} bytes is larger than {max_bytes}")
    return total


class Normaliser:
    """(pixel * rescale - mean) / std, as one multiply-add for each channel."""

    def __init__(self, processor: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        rescale = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
        normalise = processor.get("do_normalize", True) and "image_mean" in processor
        mean = torch.tensor(processor["image_mean"] if normalise else [0.0] * 3, dtype=torch.float64)
        std = torch.tensor(processor["image_std"] if normalise else [1.0] * 3, dtype=torch.float64)
        self._scale = (rescale / std).to(device, torch.float32)
        self._shift = (-mean / std).to(device, torch.float32)
        self._dtype = dtype

    def __call__(self, pixels_NHW3: Tensor) -> Tensor:
        """Pixel values of [N, 3, H, W], channels last in memory."""
        values = normalised(pixels_NHW3, self._scale, self._shift, self._dtype)
        return values.permute(0, 3, 1, 2)


@dataclass
class ImageStore:
    """Pixels that wait, embeddings and failures by key. Uploads come from other threads than the steps."""

    max_upload_bytes: int
    _pixels: dict[bytes, Image] = field(default_factory=dict)
    _encoded: dict[bytes, Tensor | Failure] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, image: Image) -> None:
        """Keeps pixels until they are encoded or forgotten."""
        with self._lock:
            key = image.header.key
            waiting = sum(other.num_bytes for name, other in self._pixels.items() if name != key)
            if waiting + image.num_bytes > self.max_upload_bytes or len(self._pixels) >= MAX_IMAGES:
                raise UploadFull(f"{waiting} bytes of pixels are waiting")
            self._pixels[key] = image

    def take(self, key: bytes) -> Image | None:
        """The pixels, which then belong to the caller."""
        with self._lock:
            return self._pixels.pop(key, None)

    def keep(self, key: bytes, encoded: Tensor | Failure) -> None:
        """Remembers an embedding, or why there is none."""
        if len(self._encoded) < MAX_IMAGES:
            self._encoded[key] = encoded

    def find(self, key: bytes) -> Tensor | Failure:
        """The embedding of [tokens, width], or why there is none."""
        return self._encoded.get(key, UNKNOWN)

    def forget(self, key: bytes) -> None:
        """Drops everything about an image."""
        self._encoded.pop(key, None)
        self.take(key)

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._pixels.clear()
        self._encoded.clear()


class ImageEncoder:
    """Runs the vision encoder over this rank's pixels and shares the embeddings."""

    def __init__(self, model: Model, processor: Mapping[str, Any], ranks: Ranks, like: Tensor) -> None:
        self._model = model
        self._prepared = _as_it_is if model.shape.raw_views else Normaliser(processor, like.device, like.dtype)
        # Raw views are prepared on the CPU.
        self._transfers = Transfers(torch.device("cpu") if model.shape.raw_views else like.device)
        self._ranks = ranks
        self._like = like
        self.takes_images = model.shape.embedding_width > 0

    def encode(self, store: ImageStore, wanted: Sequence[EncodeImage]) -> None:
        """Leaves an embedding or a failure in the store for every image wanted."""
        if not self.takes_images:
            for request in wanted:
                store.keep(request.key, TEXT_ONLY)
            return
        owned = [request.key for request in wanted if request.rank == self._ranks.rank]
        encoded = self._encode_owned({key: store.take(key) for key in owned})
        if self._ranks.world_size > 1:
            encoded = self._share(wanted, encoded)
        for request in wanted:
            store.keep(request.key, encoded.get(request.key, MISSING))

    def embed(self, images: Mapping[bytes, Image]) -> dict[bytes, Tensor | Failure]:
        """The embedding of each image, whatever its number of tokens."""
        views = self._encode_views([(key, view) for key, image in images.items() for view in image.views])
        return {key: self._joined(views[key], image.header) for key, image in images.items()}

    def _encode_owned(self, images: Mapping[bytes, Image | None]) -> dict[bytes, Tensor | Failure]:
        present = {key: image for key, image in images.items() if image is not None}
        embedded = self.embed(present)
        checked = {key: _checked_tokens(present[key].header, embedded[key]) for key in present}
        return dict.fromkeys(images, MISSING) | checked

    def _encode_views(self, views: Sequence[tuple[bytes, Tensor]]) -> dict[bytes, list[Tensor | Failure]]:
        """Encodes equally sized views together."""
        encoded: list[Tensor | Failure] = [UNENCODABLE] * len(views)
        for numbers in _batches([view.shape for _, view in views]):
            rows = self._encode_batch([views[number][1] for number in numbers])
            for number, row in zip(numbers, rows, strict=True):
                encoded[number] = row
        by_key: dict[bytes, list[Tensor | Failure]] = {}
        for (key, _), rows_of_view in zip(views, encoded, strict=True):
            by_key.setdefault(key, []).append(rows_of_view)
        return by_key

    def _encode_batch(self, views: Sequence[Tensor]) -> Sequence[Tensor | Failure]:
        try:
            return list(self._model.encode_views(self._prepared(self._transfers.stacked(views))).unbind())
        except torch.OutOfMemoryError:
            # Another size or a smaller batch may fit; these images fail alone.
            return [NO_MEMORY] * len(views)
        except CannotEncode as error:
            return [Failure(FailureKind.IMAGE, str(error))] * len(views)

    def _joined(self, views: Sequence[Tensor | Failure], header: ImageHeader) -> Tensor | Failure:
        failed = next((view for view in views if isinstance(view, Failure)), None)
        present = [view for view in views if isinstance(view, Tensor)]
        return failed or self._model.join_views(present, header)

    def _share(
        self, wanted: Sequence[EncodeImage], own: dict[bytes, Tensor | Failure]
    ) -> dict[bytes, Tensor | Failure]:
        # Every rank learns how many tokens each image has, or which failure it met, before the embeddings travel.
        counts = self._ranks.largest([_code(own.get(request.key)) for request in wanted], self._like.device)
        shared: dict[bytes, Tensor | Failure] = {}
        for request, count in zip(wanted, counts, strict=True):
            shared[request.key] = self._shared_one(request, own, count)
        return shared

    def _shared_one(self, request: EncodeImage, own: Mapping[bytes, Tensor | Failure], count: int) -> Tensor | Failure:
        mine = own.get(request.key)
        if count < 0:
            return mine if isinstance(mine, Failure) else (MISSING if count == NO_PIXELS else UNENCODABLE)
        if not isinstance(mine, Tensor):
            mine = self._like.new_empty(count, self._model.shape.embedding_width)
        return self._ranks.broadcast(mine.contiguous(), request.rank)


def _as_it_is(pixels_NHW3: Tensor) -> Tensor:
    return pixels_NHW3


def _checked_tokens(header: ImageHeader, embedding: Tensor | Failure) -> Tensor | Failure:
    if isinstance(embedding, Tensor) and len(embedding) != header.num_tokens:
        return Failure(FailureKind.IMAGE, f"the image was given {header.num_tokens} tokens and has {len(embedding)}")
    return embedding


def _code(encoded: Tensor | Failure | None) -> int:
    if isinstance(encoded, Tensor):
        return len(encoded)
    return NOT_MINE if encoded is None else (NO_PIXELS if encoded is MISSING else BAD_IMAGE)


def _batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Numbers of equally shaped views, in batches of at most `MAX_BATCH_PIXELS`."""
    batches: list[list[int]] = []
    open_batch: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        batch = open_batch.get(tuple(shape))
        if batch is None or (len(batch) + 1) * shape[0] * shape[1] > MAX_BATCH_PIXELS:
            batch = open_batch[tuple(shape)] = []
            batches.append(batch)
        batch.append(number)
    return batches


def blank_image(key: bytes, like: ImageHeader) -> Image:
    """A grey image, for the warm-up."""
    pixels = [torch.full((view.height, view.width, 3), 128, dtype=torch.uint8) for view in like.views]
    return Image(replace(like, key=key), pixels)
