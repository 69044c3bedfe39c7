"""Where memory goes: tables of what was measured, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from text_generation_server import memory
from text_generation_server.memory import Blocks, Memory, NoRoom

GB = 10**9
BLOCK = Blocks(bytes_each=10**6, tokens_each=16, longest=1600)
H200 = Memory(
    total=140 * GB, fraction=0.9, others=1 * GB, weights=15 * GB, step=2 * GB, images=3 * GB, embeddings=1 * GB
)
FULL = replace(H200, weights=124 * GB)

FITS = {
    "a large card": (H200, BLOCK, 106_000 - 1),
    "the smaller of step and images costs nothing": (replace(H200, step=3 * GB), BLOCK, 106_000 - 1),
    "graphs": (replace(H200, graphs=2 * GB), BLOCK, 104_000 - 1),
    "others": (replace(H200, others=11 * GB), BLOCK, 96_000 - 1),
    "all of the card": (replace(H200, fraction=1.0), BLOCK, 120_000 - 1),
    "no more than asked for": (H200, replace(BLOCK, most=500), 500),
    "as asked for, and less": (replace(H200, weights=121 * GB - 2 * 10**6), replace(BLOCK, most=500), 1),
    "a processor": (Memory(total=256 * 10**6, on_cpu=True), BLOCK, 255),
}


@pytest.mark.parametrize(("measured", "blocks", "wanted"), FITS.values(), ids=FITS)
def test_blocks_that_fit(measured: Memory, blocks: Blocks, wanted: int) -> None:
    assert memory.fit(measured, blocks) == wanted


def test_the_rank_with_the_least_room_decides() -> None:
    assert memory.fit(H200, BLOCK, smallest=7) == 7
    with pytest.raises(NoRoom, match="another rank"):
        memory.fit(H200, BLOCK, smallest=0)
    assert memory.count(replace(H200, weights=200 * GB), BLOCK) == 0


NOTHING_LEFT = {
    "images are the largest": (FULL, ("--max-image-pixels", "--cuda-memory-fraction", "--num-shard"), ()),
    "the step is": (replace(FULL, step=9 * GB), ("--max-batch-prefill-tokens",), ("--max-image-pixels",)),
    "embeddings are": (
        replace(FULL, embeddings=9 * GB),
        ("--embedding-cache-tokens",),
        ("--max-batch-prefill-tokens",),
    ),
    "a processor": (Memory(total=1, on_cpu=True), ("--cpu-kv-cache-mb",), ("--cuda-memory-fraction",)),
}


@pytest.mark.parametrize(("measured", "named", "unnamed"), NOTHING_LEFT.values(), ids=NOTHING_LEFT)
def test_no_block(measured: Memory, named: tuple[str, ...], unnamed: tuple[str, ...]) -> None:
    with pytest.raises(NoRoom) as refused:
        memory.fit(measured, BLOCK)
    assert all(flag in str(refused.value) for flag in named)
    assert not any(flag in str(refused.value) for flag in unnamed)


def test_no_block_says_what_is_needed_and_what_is_there() -> None:
    with pytest.raises(NoRoom) as refused:
        memory.fit(replace(FULL, graphs=GB // 2), BLOCK)
    text = str(refused.value)
    # 124 + 3 + 1 + 0.5, and 101 blocks; 126 - 1.
    assert "128.60 GB are needed" in text
    assert "there are 125.00 GB" in text
    assert "graphs 0.50 GB" in text


@pytest.mark.parametrize(("num_blocks", "said"), [(99, True), (100, False), (101, False)])
def test_fewer_blocks_than_one_whole_sequence(num_blocks: int, said: bool) -> None:
    text = memory.too_short(H200, BLOCK, num_blocks)
    assert (text is not None) == said
    if text is not None:
        assert "holds 1584 tokens" in text
        assert all(flag in text for flag in ("--max-total-tokens", "--cuda-memory-fraction", "--max-image-pixels"))


def test_too_few_blocks_because_a_flag_says_so() -> None:
    text = memory.too_short(H200, replace(BLOCK, most=20), 20)
    assert text is not None
    assert "--max-batch-total-tokens" in text
    assert "--cuda-memory-fraction" not in text


def test_too_few_blocks_on_a_processor() -> None:
    text = memory.too_short(Memory(total=GB, on_cpu=True), BLOCK, 20)
    assert text is not None
    assert "--cpu-kv-cache-mb" in text


def test_what_ran_out_says_how_far_it_came() -> None:
    loading = memory.weights_do_not_fit(20 * GB, 16 * GB, GB)
    assert all(part in loading for part in ("20.00 GB", "16.00 GB", "1.00 GB", "--num-shard"))
    step = memory.step_does_not_fit(8192, replace(H200, step=7 * GB))
    assert all(part in step for part in ("8192 tokens", "7.00 GB", "15.00 GB", "--max-batch-prefill-tokens"))
    images = memory.images_do_not_fit(4, (4000, 3000), H200)
    assert all(part in images for part in ("4 of", "4000x3000", "3.00 GB", "--max-image-pixels"))


def test_the_line_of_the_log_adds_up() -> None:
    line = memory.account(replace(H200, graphs=GB), BLOCK, memory.fit(replace(H200, graphs=GB), BLOCK))
    wanted = (
        "weights 15.00 GB",
        "largest step 2.00 GB",
        "images instead of it 3.00 GB",
        "embeddings 1.00 GB",
        "graphs 1.00 GB",
        "KV cache 105.00 GB: 104999 blocks of 16 tokens, 1049 sequences of 1600",
        "140.00 GB x 0.9, 1.00 GB taken by others",
    )
    assert all(part in line for part in wanted), line
    assert "\n" not in line
