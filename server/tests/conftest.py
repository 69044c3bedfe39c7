"""The embedded model, loaded once: ours, and the one of transformers that it is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from device import DEVICE

if DEVICE.type == "cpu":
    # Read by Triton when a kernel is defined: before anything of ours is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from driver import Driver, load  # noqa: E402
from reference import Reference  # noqa: E402

from text_generation_server.shard import Shard  # noqa: E402


def pytest_report_header() -> str:
    """Whoever checks a GPU wants to know that it was one."""
    return f"tests run on {DEVICE}"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loaded_shard() -> Shard:
    return load()


@pytest.fixture
def shard(loaded_shard: Shard) -> Iterator[Shard]:
    """The embedded model, without sequences or images."""
    yield loaded_shard
    loaded_shard.reset_sequences()
    loaded_shard.images.clear()


@pytest.fixture
def driver(shard: Shard) -> Driver:
    return Driver(shard)


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()
