"""Models without a file of ours: what they may ask of attention, what their processor says, and what is refused.

Whether those that are served answer as `transformers` does is in `test_families`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from driver import load
from families import checkpoint
from tiny import Tiny
from torch import Tensor

from text_generation_server.attention.base import AttentionShape
from text_generation_server.config import PreparedModel, ShardConfig
from text_generation_server.images import Image
from text_generation_server.models import CannotEncode, UnsupportedModel
from text_generation_server.models.fallback import check
from text_generation_server.models.fallback.attention import (
    MAX_RULE_POSITIONS,
    Alone,
    HeadShape,
    LayerCall,
    Rule,
    attention_shape,
    window_of,
)
from text_generation_server.models.fallback.model import TransformersModel
from text_generation_server.models.fallback.processor import cut
from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.pb import shard_pb2_grpc
from text_generation_server.plan import EncodeImage, Failure, ImageHeader, ViewSize
from text_generation_server.service import listen, make_server
from text_generation_server.shard import Shard

HEADS = HeadShape(num_heads=4, num_kv_heads=2, head_dim=16, value_dim=16, scale=0.25, softcap=None)


def causal(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return key <= query


def sliding(window: int) -> Rule:
    return lambda batch, head, query, key: causal(batch, head, query, key) & (key > query - window)


def chunked(size: int) -> Rule:
    return lambda batch, head, query, key: causal(batch, head, query, key) & (key // size == query // size)


def prefix_both_ways(length: int) -> Rule:
    return lambda batch, head, query, key: causal(batch, head, query, key) | (key < length)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny("aya_vision", tmp_path_factory.mktemp("aya_vision"))


@pytest.mark.parametrize(
    ("rule", "window"),
    [(None, None), (causal, None), (sliding(1), 1), (sliding(7), 7), (sliding(100), None), (sliding(5000), None)],
)
def test_windows_are_measured(rule: Rule | None, window: int | None) -> None:
    assert window_of(LayerCall(0, HEADS, rule), 100) == window


@pytest.mark.parametrize("rule", [chunked(7), prefix_both_ways(9), lambda *_: torch.ones((), dtype=torch.bool)])
def test_other_views_are_refused(rule: Rule) -> None:
    with pytest.raises(UnsupportedModel, match="layer 3 sees other tokens"):
        window_of(LayerCall(3, HEADS, rule), 100)


def test_a_window_of_the_longest_models_is_found() -> None:
    assert window_of(LayerCall(0, HEADS, sliding(4096)), 1 << 20) == 4096
    assert window_of(LayerCall(0, HEADS, sliding(MAX_RULE_POSITIONS)), 1 << 20) is None


def test_layers_must_agree() -> None:
    calls = [LayerCall(layer, HEADS, causal) for layer in range(2)]
    assert attention_shape(calls, 2, 100).windows == (None, None)
    for spoiled, reason in [
        (calls[:1], "only layers"),
        ([calls[1], calls[0]], "in order"),
        ([calls[0], replace(calls[1], heads=replace(HEADS, scale=1.0))], "differ in their heads"),
        ([replace(call, heads=replace(HEADS, value_dim=8)) for call in calls], "values 8"),
    ]:
        with pytest.raises(UnsupportedModel, match=reason):
            attention_shape(spoiled, 2, 100)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("", []), ("XX", [2]), ("aXXbX", ["a", 2, "b", 1]), ("Xa", [1, "a"]), ("ab", ["ab"])],
)
def test_text_is_cut_at_image_tokens(text: str, pieces: list[int | str]) -> None:
    assert cut(text.replace("X", "<i>"), "<i>") == pieces


@pytest.mark.parametrize(
    ("body", "rope", "reason"),
    [
        ({"get_rope_index": None}, {}, "several axes"),
        ({}, {"mrope_section": [2, 3, 3]}, "several axes"),
        ({}, {"rope_type": "dynamic"}, "dynamic"),
        ({}, {"full_attention": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_positions_that_depend_on_others_are_refused(body: dict[str, Any], rope: dict[str, Any], reason: str) -> None:
    text = type("Text", (), {"rope_parameters": rope})()
    with pytest.raises(UnsupportedModel, match=reason):
        check.positions(type("Body", (), body)(), text)
    check.positions(object(), type("Text", (), {"rope_parameters": {"rope_type": "yarn"}})())


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_alone_is_causal_attention(softcap: float | None) -> None:
    shape = AttentionShape(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25, windows=(None, 3), softcap=softcap)
    q_TND, k_TKD, v_TKD = (torch.randn(9, heads, 16) for heads in (4, 2, 2))
    for layer, window in enumerate((9, 3)):
        output_TND = Alone(shape).attend(q_TND, k_TKD, v_TKD, layer)
        for token in range(9):
            seen = slice(max(0, token - window + 1), token + 1)
            scores = torch.einsum("nd,kd->nk", q_TND[token], k_TKD[seen, 1]) * 0.25
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            torch.testing.assert_close(output_TND[token, 2:], (scores.softmax(-1) @ v_TKD[seen, 1])[2:])


def spoiled_embedding(self: TransformersModel, token_ids_T: Tensor) -> Tensor:
    hidden: Tensor = self._body.get_input_embeddings()(token_ids_T) * 1.01
    return hidden


def test_a_model_that_is_not_reproduced_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransformersModel, "embed", spoiled_embedding)
    with pytest.raises(UnsupportedModel, match="its answers are not reproduced"):
        tiny.driver_of(tiny.prepared)


def test_a_missing_tensor_is_named(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = checkpoint.build("aya_vision", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("linear_2.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Exception, match="linear_2.weight is not in the checkpoint"):
        tiny.driver_of(tiny.prepared_as(folder))


def test_it_runs_on_one_rank(tiny: Tiny) -> None:
    ranks = type("Ranks", (), {"world_size": 2})()
    with pytest.raises(UnsupportedModel, match="one rank only"):
        TransformersModel({"model_type": "aya_vision"}, None, ranks)  # type: ignore[arg-type]


def test_a_type_that_transformers_does_not_know_names_the_known(tmp_path: Path) -> None:
    prepared = PreparedModel(model_dir=tmp_path, model_type="aya_vision", config={}, processor={})
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UnsupportedModel, match="there is fast_vlm"):
        Shard(ShardConfig(prepared=tmp_path, socket=tmp_path, device="cpu"), prepared)


@pytest.mark.parametrize("size", [(1, 1), (56, 56), (100, 37), (640, 480), (17, 600), (3, 200)])
def test_pieces_are_what_the_processor_writes(tiny: Tiny, size: tuple[int, int]) -> None:
    from PIL import Image as Pillow

    family, processor = tiny.oracle.family, tiny.oracle.processor
    pieces = tiny.driver.shard.layouts
    assert pieces is not None
    written = "".join(piece if isinstance(piece, str) else family.image_token * piece for piece in pieces.pieces(*size))
    assert written == family.replacement(processor, Pillow.new("RGB", size))


def test_an_image_the_processor_refuses_fails_alone(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    shard = tiny.driver.shard
    model: Any = shard.model
    monkeypatch.setattr(model._pictures, "_processor", refuse)
    with pytest.raises(CannotEncode):
        model.pieces(5, 5)
    header = ImageHeader(bytes(32), ViewSize(5, 5), (ViewSize(5, 5),), 4)
    shard.images.put(Image(header, [torch.zeros(5, 5, 3, dtype=torch.uint8)]))
    tiny.driver.step([], encode_images=[EncodeImage(bytes(32), 0)])
    found = shard.images.find(bytes(32))
    assert isinstance(found, Failure) and "refuses the image" in found.message


@contextmanager
def served(shard: Shard, folder: Path) -> Iterator[shard_pb2_grpc.ShardStub]:
    address = f"unix:{folder}/shard.sock"
    server = make_server(shard, on_fatal=lambda: None)
    listen(server, address)
    with grpc.insecure_channel(address) as channel:
        yield shard_pb2_grpc.ShardStub(channel)
    server.stop(None).wait()


def test_layouts_over_the_wire(tiny: Tiny, tmp_path: Path) -> None:
    with served(tiny.driver.shard, tmp_path) as stub:
        found = stub.LayoutImage(pb.LayoutImageRequest(width=56, height=56))
        pieces = [piece.text if piece.WhichOneof("piece") == "text" else piece.num_tokens for piece in found.pieces]
        assert pieces == ["<|START_OF_IMG|>TILE_GLOBAL", 4, "<|END_OF_IMG|>"] and not found.refused
        for width, height in [(0, 4), (1 << 31, 1 << 31)]:
            with pytest.raises(grpc.RpcError, match="too large, or empty"):
                stub.LayoutImage(pb.LayoutImageRequest(width=width, height=height))


def test_models_of_ours_are_laid_out_by_the_router(tmp_path: Path) -> None:
    with served(load(), tmp_path) as stub, pytest.raises(grpc.RpcError, match="the router lays out"):
        stub.LayoutImage(pb.LayoutImageRequest(width=5, height=5))
