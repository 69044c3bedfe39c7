"""The flash-attn backends against the `torch` backend, and what keeps a model from them.

The package itself is used where there is a GPU and it is installed, and a stand-in for it everywhere else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import stand_in_flash_attn
import torch
from driver import Driver, Prompt, load
from test_parity import PROMPTS, text
from test_triton import CASES, DEVICE, Case, compare

from text_generation_server import attention
from text_generation_server.attention import Row, UnsuitableBackend, choose, flash_attn
from text_generation_server.attention.base import AttentionShape
from text_generation_server.attention.flash_attn import FlashAttention, FlashAttention2, FlashAttention3, NoRanges

GPU = torch.device("cuda")
SHAPE = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=64, scale=0.125, windows=(None,))
BACKENDS: dict[int, type[FlashAttention]] = {2: FlashAttention2, 3: FlashAttention3}
BLOCK_SIZES = {2: 256, 3: 16}
"""What a router that was told nothing takes."""

# Version 2 has large blocks; these cross their borders.
LARGE_BLOCKS = {
    "the last token of a block": Case(rows=[(1, 255), (1, 256), (255, 1), (256, 0)]),
    "rows of every kind over several blocks": Case(rows=[(1, 600), (300, 0), (1, 511), (20, 500), (1, 0)]),
    "a window over several blocks": Case(rows=[(1, 600), (300, 300)], window=257),
}
PLAIN = {name: case for name, case in (CASES | LARGE_BLOCKS).items() if case.ranges is None}


@pytest.fixture(params=BACKENDS)
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A version of the package, in the place where it is imported from."""
    number: int = request.param
    if not torch.cuda.is_available() or flash_attn.obstacle(number, GPU, torch.float16, SHAPE) is not None:
        put(monkeypatch, number, stand_in_flash_attn.as_module(number))
    return number


def put(monkeypatch: pytest.MonkeyPatch, version: int, module: ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, flash_attn.MODULES[version], module)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_equals_torch(version: int, name: str, dtype: torch.dtype) -> None:
    case = replace(PLAIN[name], dtype=dtype)
    if case.block_size not in BACKENDS[version].supported_block_sizes:
        case = replace(case, block_size=BACKENDS[version].supported_block_sizes[0])
    compare(case, seed=3, backend=BACKENDS[version])


@pytest.mark.parametrize("seed", range(6))
def test_random_steps_equal_torch(version: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    kv_heads, group = int(generator.integers(1, 3)), int(generator.integers(1, 6))
    rows = [
        (int(generator.choice([1, 1, int(generator.integers(2, 300))])), int(generator.integers(0, 600)))
        for _ in range(generator.integers(1, 6))
    ]
    sizes = BACKENDS[version].supported_block_sizes
    case = Case(
        rows=rows,
        heads=(kv_heads * group, kv_heads),
        head_dim=int(generator.choice([16, 64, 72])),
        block_size=sizes[int(generator.integers(len(sizes)))],
        window=(None, 7, 300)[generator.integers(3)],
        softcap=(None, 10.0)[generator.integers(2)],
        dtype=torch.float16,
    )
    compare(case, seed, BACKENDS[version])


def test_entries_behind_the_last_token_may_hold_anything(version: int) -> None:
    """The stand-in takes no block that is not in the cache."""
    case = Case(rows=[(1, 3), (5, 600)], block_size=256, dtype=torch.float16)
    backend = BACKENDS[version](case.shape, torch.zeros(1, 2, 5, 256, 2, 64, dtype=case.dtype, device=DEVICE))
    backend.begin_step(case.layout(np.array([[2, 10**6, -1], [0, 1, 3]])))
    heads_TND = torch.ones(6, 8, 64, dtype=case.dtype, device=DEVICE)
    assert backend.attend(*heads_TND.split([4, 2, 2], 1), 0).isfinite().all()


def test_ranges_are_refused_and_not_ignored(version: int) -> None:
    case = CASES["a range"]
    backend = BACKENDS[version](case.shape, torch.zeros(1, 2, 5, 256, 2, 64, device=DEVICE))
    with pytest.raises(NoRanges, match="both ways"):
        backend.begin_step(case.layout(np.arange(4)[None]))


def test_gives_the_embedded_models_tokens(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the block size that the router is told to the tokens, beside the `torch` backend in the same type."""
    name = f"flash_attn_{version}"
    monkeypatch.setitem(attention.BACKENDS, name, Row(attention.BACKENDS[name].path, lambda *_: None))
    shard = load(dtype="float16", attention=name)
    prompts = [*PROMPTS, Prompt.of(text(13, 300))]
    found = Driver(shard, block_size=BLOCK_SIZES[version]).generate_scored(prompts, 4, [16, 40])
    wanted = Driver(load(dtype="float16")).generate_scored(prompts, 4, [16, 40])
    for one, other in zip(found, wanted, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in other], abs=0.02)


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of compute capability 9.0 on which both versions are installed."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    for number in BACKENDS:
        put(monkeypatch, number, stand_in_flash_attn.as_module(number))


@pytest.mark.usefixtures("able")
def test_the_newest_version_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(name: str) -> str:
        return choose(name, GPU, torch.bfloat16, SHAPE).name

    assert chosen("flash_attn") == "flash_attn_3"
    assert choose("flash_attn", GPU, torch.bfloat16, SHAPE).load() is FlashAttention3
    assert (chosen("flash_attn_2"), chosen("auto")) == ("flash_attn_2", "triton")
    put(monkeypatch, 3, None)
    assert choose("flash_attn", GPU, torch.bfloat16, SHAPE).load() is FlashAttention2
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (12, 0))
    assert chosen("flash_attn") == "flash_attn_2"


Break = Callable[[pytest.MonkeyPatch], None]


def capability(major: int, minor: int) -> Break:
    return lambda monkeypatch: monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (major, minor))


def without(version: int, *names: str, **values: object) -> Break:
    """The package without some of its members, or with others."""
    module = stand_in_flash_attn.as_module(version)
    for name in names:
        delattr(module, name)
    vars(module).update(values)
    return lambda monkeypatch: put(monkeypatch, version, module)


def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_attn, "find_spec", lambda _: None)


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library misses a symbol of another torch."""

    def fail(name: str) -> ModuleType:
        raise ImportError(f"{name}: undefined symbol\nand where it was looked for")

    monkeypatch.setattr(flash_attn, "import_module", fail)


def rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.hip", "7.0")


def nothing(_: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("versions", "change", "device", "dtype", "shape", "reason"),
    [
        ([2, 3], nothing, "cpu", torch.float16, SHAPE, "there is no GPU"),
        ([2, 3], rocm, "cuda", torch.float16, SHAPE, "NVIDIA's GPUs only"),
        ([2, 3], nothing, "cuda", torch.float32, SHAPE, "float16 or bfloat16, not in float32"),
        ([2, 3], nothing, "cuda", torch.float16, replace(SHAPE, has_ranges=True), "cannot mask ranges"),
        (
            [2, 3],
            nothing,
            "cuda",
            torch.float16,
            replace(SHAPE, head_dim=288),
            "widths up to 256 in steps of 8, not 288",
        ),
        ([2, 3], nothing, "cuda", torch.float16, replace(SHAPE, head_dim=84), "in steps of 8, not 84"),
        ([2], capability(7, 5), "cuda", torch.float16, SHAPE, "needs compute capability 8.0, not 7.5"),
        ([3], capability(8, 9), "cuda", torch.float16, SHAPE, "for compute capability 9.0, not 8.9"),
        ([3], capability(10, 0), "cuda", torch.float16, SHAPE, "for compute capability 9.0, not 10.0"),
        ([2], absent, "cuda", torch.float16, SHAPE, "flash_attn is not installed"),
        ([3], absent, "cuda", torch.float16, SHAPE, "flash_attn_interface is not installed"),
        ([2, 3], broken, "cuda", torch.float16, SHAPE, "cannot be imported: .*: undefined symbol$"),
        ([2], without(2, "flash_attn_with_kvcache"), "cuda", torch.float16, SHAPE, "has no flash_attn_with_kvcache"),
        ([2], without(2, __version__="2.5.9.post1"), "cuda", torch.float16, SHAPE, "2.5.9.post1 is older than 2.6"),
        (
            [3],
            without(3, flash_attn_with_kvcache=stand_in_flash_attn.flash_attn_with_kvcache),
            "cuda",
            torch.float16,
            SHAPE,
            "no page_table",
        ),
    ],
)
def test_each_obstacle_is_told(  # noqa: PLR0913
    monkeypatch: pytest.MonkeyPatch,
    versions: list[int],
    change: Break,
    device: str,
    dtype: torch.dtype,
    shape: AttentionShape,
    reason: str,
) -> None:
    change(monkeypatch)
    for version in versions:
        with pytest.raises(UnsuitableBackend, match=reason):
            choose(f"flash_attn_{version}", torch.device(device), dtype, shape)


@pytest.mark.usefixtures("able")
def test_without_obstacles_it_is_chosen() -> None:
    for version in BACKENDS:
        assert choose(f"flash_attn_{version}", GPU, torch.float16, SHAPE).reason == "asked for"


@pytest.mark.usefixtures("able")
def test_a_group_tells_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (7, 5))
    with pytest.raises(UnsuitableBackend, match=r"9\.0, not 7\.5; flash-attn 2 needs compute capability 8\.0"):
        choose("flash_attn", GPU, torch.float16, SHAPE)
