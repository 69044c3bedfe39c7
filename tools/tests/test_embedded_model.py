"""The pure parts of the recipe: what is fetched, planned, asked, tokenised and supervised."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from embedded_model import checkpoint, fonts, measures, phrases, sources, tokenizer
from embedded_model.concepts import COLOURS, article, concepts, names, photo_names, plural
from embedded_model.encoder import timm_name
from embedded_model.fetch import WrongArchive, check
from embedded_model.model import Shape, VisionLanguage, visible
from embedded_model.progress import Progress
from embedded_model.questions import exchanges
from embedded_model.rows import IGNORED, LENGTH, RowWriter
from embedded_model.scenes import (
    PLACINGS,
    UNSEEN_PLACINGS,
    Arrangement,
    Kind,
    Scene,
    Stock,
    Thing,
    place,
    scene,
    spot,
)
from embedded_model.structured import structured
from embedded_model.supervision import CELLS, CLASS_OF, UNKNOWN, targets
from embedded_model.train import Recipe, pace
from tokenizers import Tokenizer

STOCK = Stock({"a style": dict.fromkeys(concepts(), 2)}, fonts=3)


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return tokenizer.train(STOCK, seed=1)


def test_share_alike_art_is_never_trained_on() -> None:
    shared = {sources.style(package) for package in sources.ICONS if "SA" in package.licence}
    assert shared == set(sources.UNSEEN_STYLES)
    assert not shared & set(sources.TRAINING_STYLES)


def test_evaluation_has_placings_and_fonts_of_its_own() -> None:
    assert not set(UNSEEN_PLACINGS) & set(STOCK.placing)
    assert set(UNSEEN_PLACINGS) | set(STOCK.placing) == set(PLACINGS)
    assert not set(fonts.training_fonts()) & set(fonts.unseen_fonts())


def test_an_archive_with_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noto.tgz"
    path.write_bytes(b"something else")
    with pytest.raises(WrongArchive, match="expected"):
        check(path, sources.ICONS[0])


def test_every_photo_class_has_a_name() -> None:
    assert len(photo_names()) == 1000
    assert {photo_names()[281], photo_names()[954]} == {"cat", "banana"}
    assert set(photo_names()) <= set(names())


@pytest.mark.parametrize(
    ("name", "one", "several"),
    [
        ("owl", "an owl", "owls"),
        ("fox", "a fox", "foxes"),
        ("grapes", "grapes", "grapes"),
        ("mouse", "a mouse", "mice"),
    ],
)
def test_names_in_sentences(name: str, one: str, several: str) -> None:
    assert (article(name), plural(name)) == (one, several)


def test_scenes_depend_on_their_number_only() -> None:
    assert [scene(STOCK, Random(f"1/{n}")) for n in range(50)] == [scene(STOCK, Random(f"1/{n}")) for n in range(50)]


@pytest.mark.parametrize("how", sorted(PLACINGS))
@pytest.mark.parametrize("count", range(1, 7))
def test_placed_things_are_in_the_picture(how: str, count: int) -> None:
    placed = PLACINGS[how](Random(count), count)
    assert len(placed) == count
    assert all(x - size / 2 >= -0.05 and x + size / 2 <= 1.05 for x, _, size in placed)


def test_spots_are_clearly_somewhere() -> None:
    found = {place(Thing("cat", Kind.DRAWING, *spot(Random(n), 0.3), 0.3)) for n in range(400)}
    assert len(found) == 9


def test_answers_are_true_of_the_scene() -> None:
    cat = Thing("cat", Kind.DRAWING, 0.2, 0.8, 0.3)
    dog = Thing("dog", Kind.DRAWING, 0.74, 0.5, 0.4)
    shown = Scene(Arrangement.SINGLE, (cat,), "red")
    assert phrases.described(shown) == "The picture shows a cat at the bottom left on a red background."
    pair = Scene(Arrangement.ROW, (cat, dog), "blue")
    sides = {e.question: e.answer for n in range(9) for e in exchanges(pair, Random(n)) if e.topic == "side"}
    assert sides["What is on the right?"] == "There is a dog on the right."
    assert sides["What is to the left of the dog?"] == "There is a cat to the left of the dog."


def test_text_is_not_read_but_admitted() -> None:
    shown = Scene(Arrangement.TEXT, (Thing("text", Kind.TEXT, 0.5, 0.5, 0.5, "red", content="STOP"),), "white")
    answers = [e.answer for n in range(20) for e in exchanges(shown, Random(n)) if e.topic == "read"]
    assert set(answers) == {phrases.CANNOT_READ}


def test_json_answers_have_the_keys_that_were_asked_for() -> None:
    for number in range(300):
        random = Random(number)
        question, answer = structured(scene(STOCK, random), random)
        asked = [key for key in json.loads(answer) if key not in question]
        assert not asked or "with" not in question and ":" not in question


def test_every_name_is_one_token_wherever_it_stands(words: Tokenizer) -> None:
    for word in tokenizer.concept_words():
        for text in (f"This is {word}.", f'{{"object": "{word}"}}', word):
            encoded = words.encode(text, add_special_tokens=False)
            assert words.encode(word, add_special_tokens=False).ids[0] in encoded.ids
            assert words.decode(encoded.ids) == text
        assert len(words.encode(word, add_special_tokens=False).ids) == 1


@pytest.mark.parametrize(
    "text", ["catalog scattered", "two  blanks", "Grüße 漢字 🦊", 'a\n\tb "c"', "12 foxes, 3 owls"]
)
def test_any_text_comes_back(words: Tokenizer, text: str) -> None:
    assert words.decode(words.encode(text, add_special_tokens=False).ids) == text


def test_names_inside_words_are_left_alone(words: Tokenizer) -> None:
    cat = words.encode("cat", add_special_tokens=False).ids[0]
    assert cat not in words.encode("catalog", add_special_tokens=False).ids
    assert cat in words.encode("cats", add_special_tokens=False).ids


def test_rows_are_full_and_teach_answers_only(words: Tokenizer) -> None:
    writer = RowWriter(words, lambda number: scene(STOCK, Random(number)))
    batch = writer.batch(range(64), 24, Random(5))
    image, end = tokenizer.id_of(words, tokenizer.IMAGE), tokenizer.id_of(words, tokenizer.END)
    assert batch.ids.shape == (24, LENGTH)
    assert (batch.ids == image).sum() == CELLS * len(batch.pictures)
    taught = batch.labels != IGNORED
    assert (batch.labels[taught] == batch.ids[taught]).all()
    assert not (taught & ((batch.branches <= 0) | (batch.ids == image))).any()
    assert (batch.labels == end).any(1).all()


def test_a_branch_sees_what_is_shared_and_itself() -> None:
    mask = visible(torch.tensor([[0, 0, 1, 1, 2]]))[0, 0]
    assert mask[4].tolist() == [True, True, False, False, True]
    assert mask[3].tolist() == [True, True, True, True, False]


def test_branches_answer_as_if_they_stood_alone() -> None:
    torch.manual_seed(0)
    model = VisionLanguage(Shape(8, width=32, layers=2, heads=4, inner=32)).eval()
    shared, branches = torch.randn(1, 3, 32), torch.randn(2, 2, 32)
    together = torch.cat([shared, branches[:1], branches[1:]], 1)
    positions = torch.tensor([[0, 1, 2, 3, 4, 3, 4]])
    state = model(together, positions, visible(torch.tensor([[0, 0, 0, 1, 1, 2, 2]])))[-1]
    alone = torch.cat([shared, branches[1:]], 1)
    expected = model(alone, torch.arange(5)[None], visible(torch.zeros(1, 5)))[-1]
    torch.testing.assert_close(state[:, 5:], expected[:, 3:])


def test_cells_know_what_covers_them() -> None:
    found = targets(Scene(Arrangement.SINGLE, (Thing("circle", Kind.SHAPE, 0.5, 0.5, 3 / 7, "red"),), "blue"))
    grid = found.classes.reshape(7, 7)
    assert grid[3, 3] == CLASS_OF["circle"]
    assert grid[0, 0] == CLASS_OF["blank"]
    assert found.colours.reshape(7, 7)[3, 3] == list(COLOURS).index("red")
    blurred = targets(Scene(Arrangement.PHOTO, (Thing("cat", Kind.DRAWING, 0.5, 0.5, 1.0),)), torch.eye(7).reshape(-1))
    assert np.count_nonzero(blurred.classes != UNKNOWN) == 7


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.bias", "bn2.bias"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.15._bn2.running_var", "blocks.6.0.bn3.running_var"),
        ("_fc.weight", "classifier.weight"),
    ],
)
def test_names_of_tensors(ours: str, theirs: str) -> None:
    assert timm_name(ours) == theirs


@pytest.mark.parametrize(
    ("judge", "right", "wrong"),
    [
        (measures.says("cat"), "This is a picture of two cats.", "a catalog"),
        (measures.last_colour("blue"), "No, the background is blue.", "It is blue on red."),
        (measures.number("three"), "There are three owls.", "There are 4."),
        (measures.placed("top left"), "The cat is at the top left of the image.", "It is at the top."),
        (measures.same_json('{"a": 1}'), '{"a":1}', "{"),
        (measures.read_or_honest("STOP"), "I cannot read it.", 'It says "SHOP".'),
    ],
)
def test_judges(judge: measures.Judge, right: str, wrong: str) -> None:
    assert judge(right)
    assert not judge(wrong)


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=1000, warm_up=100, decay_share=0.2)
    assert [round(pace(step, recipe), 3) for step in (0, 99, 500, 900, 999)] == [0.01, 1.0, 1.0, 0.5, 0.005]


def test_a_run_begins_where_another_was_kept(tmp_path: Path) -> None:
    def fresh() -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({"model": torch.nn.Linear(3, 2)})

    (tmp_path / "tokenizer.json").write_text("{}")
    kept, begun, path = fresh(), fresh(), tmp_path / "start.safetensors"
    optimiser = torch.optim.AdamW(kept.parameters())
    kept["model"](torch.ones(1, 3)).sum().backward()
    optimiser.step()
    checkpoint.save(tmp_path / "run", kept, [optimiser], 7)
    checkpoint.keep(tmp_path, path)
    checkpoint.begin(tmp_path, begun, path)
    torch.testing.assert_close(begun.state_dict(), kept.state_dict(), atol=1e-3, rtol=1e-3)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(checkpoint.OtherTokens):
        checkpoint.begin(tmp_path, begun, path)


def test_progress_draws_the_losses(tmp_path: Path) -> None:
    progress = Progress(tmp_path, steps=4, every=2)
    for step in range(1, 5):
        progress.tell(step, {"answers": 1 / step})
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "losses.png").is_file()
