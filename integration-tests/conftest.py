"""Fixtures: one server for all tests that leave it as they found it, and a host for its pictures."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import javascript, launched, pictures
from harness.goldens import Goldens
from harness.launched import Server
from harness.picture_host import ALLOWED_ADDRESS, FETCH_TIMEOUT_S, REFUSED_ADDRESS, PictureHost, picture_host


@pytest.fixture(scope="session", autouse=True)
def _local_only() -> None:
    """Clients in this process talk to the loopback directly and to nobody else."""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.0/8,127.0.0.1,localhost"
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for what servers log."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def server(logs: Path) -> Iterator[Server]:
    """The shared server. A test that harms it starts its own instead."""
    flags = ("--image-allow-address", ALLOWED_ADDRESS, "--image-fetch-timeout-s", str(FETCH_TIMEOUT_S))
    with launched.running(logs / "shared.log", *flags) as server:
        yield server


@pytest.fixture(scope="session")
def host() -> Iterator[PictureHost]:
    """A picture host that the shared server may fetch from."""
    with picture_host(ALLOWED_ADDRESS) as host:
        yield host


@pytest.fixture(scope="session")
def private_host() -> Iterator[PictureHost]:
    """A picture host that the shared server may not fetch from."""
    with picture_host(REFUSED_ADDRESS) as host:
        yield host


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """What transformers answers."""
    return Goldens.read()


@pytest.fixture(scope="session")
def red_square() -> bytes:
    """A picture that the embedded model names."""
    return pictures.png(pictures.drawing("square", "red", "white"))


@pytest.fixture(scope="session")
def red_square_uri(red_square: bytes) -> str:
    """The same, inline."""
    return pictures.data_uri(red_square)


@pytest.fixture(scope="session")
def node() -> javascript.Node:
    """Node with the pinned JavaScript clients installed."""
    return javascript.installed()
