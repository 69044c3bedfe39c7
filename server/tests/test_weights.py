"""Reading safetensors by slices, and what a bad model folder is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from text_generation_server.distributed import Ranks
from text_generation_server.layers.embedding import vocabulary_rows
from text_generation_server.layers.linear import RowPart, ShapeError, SummedLinear, fused_rows
from text_generation_server.weights import INDEX_FILE, WeightError, Weights

MATRIX = torch.arange(24.0).view(6, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a.weight": MATRIX, "a.bias": torch.arange(6.0)}, tmp_path / "model.safetensors")
    return tmp_path


def read(folder: Path, progress: list[tuple[int, int]] | None = None) -> Weights:
    seen = [] if progress is None else progress
    return Weights(folder, torch.float32, torch.device("cpu"), lambda done, total: seen.append((done, total)))


def test_slices(folder: Path) -> None:
    with read(folder) as weights:
        assert weights.has("a.bias") and not weights.has("b")
        assert weights.whole("a.weight", (6, 4)).equal(MATRIX)
        assert weights.rows("a.weight", (6, 4), 2, 5).equal(MATRIX[2:5])
        assert weights.columns("a.weight", (6, 4), 1, 3).equal(MATRIX[:, 1:3])


def test_a_sharded_checkpoint(tmp_path: Path) -> None:
    save_file({"a": MATRIX}, tmp_path / "one.safetensors")
    save_file({"b": MATRIX + 1}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with read(tmp_path) as weights:
        assert weights.whole("b", (6, 4)).equal(MATRIX + 1)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    with read(folder) as weights, pytest.raises(WeightError, match="b.weight is not in the checkpoint"):
        weights.whole("b.weight", (6, 4))


def test_a_misshapen_tensor_is_told_both_shapes(folder: Path) -> None:
    with read(folder) as weights, pytest.raises(WeightError, match=r"a.weight has shape \[6, 4\].*\[6, 5\]"):
        weights.whole("a.weight", (6, 5))


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file(folder: Path, damage: bytes) -> None:
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(WeightError, match="model.safetensors"):
        read(folder)


def test_a_file_cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightError, match="model.safetensors"):
        read(folder)


@pytest.mark.parametrize(
    "index",
    ["not json", "[]", '{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {"a": "absent.safetensors"}}'],
)
def test_a_bad_index(folder: Path, index: str) -> None:
    (folder / INDEX_FILE).write_text(index)
    with pytest.raises(WeightError):
        read(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="safetensors"):
        read(tmp_path)


def test_progress_ends_at_the_total(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    with read(folder, seen) as weights:
        weights.whole("a.weight", (6, 4))
    assert seen[-1][0] == seen[-1][1] == (folder / "model.safetensors").stat().st_size


def test_ranks_share_a_matrix_by_rows_and_by_columns(folder: Path) -> None:
    x = torch.randn(3, 4)
    with read(folder) as weights:
        halves = [fused_rows(weights, [RowPart.even("a", 6, Ranks(rank, 2))], 4, bias=True)(x) for rank in range(2)]
        whole = x @ MATRIX.T + torch.arange(6.0)
        torch.testing.assert_close(torch.cat(halves, -1), whole)
        sums = []
        for rank in range(2):
            # Alone in its world a rank gives its partial product; the bias belongs to the first.
            part = SummedLinear(weights, Ranks(rank, 2), "a", (6, 4), bias=True)
            sums.append(part._linear(x[:, 2 * rank : 2 * rank + 2]))
        torch.testing.assert_close(sums[0] + sums[1], whole)


def test_a_vocabulary_that_does_not_divide_is_padded(folder: Path) -> None:
    with read(folder) as weights:
        parts = [vocabulary_rows(weights, Ranks(rank, 4), "a.weight", (6, 4)) for rank in range(4)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert torch.cat(parts)[:6].equal(MATRIX)
    assert not parts[3].any()


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match="5.*among 2 ranks"):
        RowPart.even("a", 5, Ranks(0, 2))
