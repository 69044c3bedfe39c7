"""An exported model is the trained one: stock classes of transformers give its tokens."""

from pathlib import Path

import pytest
import timm
import torch
from embedded_model import export, tokenizer
from embedded_model.answer import Answerer
from embedded_model.concepts import concepts
from embedded_model.model import Shape, VisionLanguage
from embedded_model.scenes import Stock
from tokenizers import Tokenizer

STOCK = Stock({"a style": dict.fromkeys(concepts(), 1)}, fonts=1)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return tokenizer.train(STOCK, seed=1)


def random_model(words: Tokenizer) -> VisionLanguage:
    """Weights large enough that answers differ, and exact in half precision."""
    torch.manual_seed(3)
    model = VisionLanguage(Shape(words.get_vocab_size(), width=64, layers=2, heads=2, key_heads=1, inner=64))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
        parameter.data = parameter.data.half().float()
    return model


def test_transformers_gives_the_same_tokens(words: Tokenizer, tmp_path: Path) -> None:
    model = random_model(words)
    tower = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    export.write(tmp_path, model.state_dict(), tower, words)
    assert export.shape_of(model.state_dict()) == model.shape
    export.prove(tmp_path, Answerer.of_export(model, tmp_path, words))


def test_another_model_is_noticed(words: Tokenizer, tmp_path: Path) -> None:
    model = random_model(words)
    tower = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    export.write(tmp_path, model.state_dict(), tower, words)
    model.language_model.embed_tokens.weight.data.mul_(-1)
    with pytest.raises(export.NotExported, match="transformers answers"):
        export.prove(tmp_path, Answerer.of_export(model, tmp_path, words))
