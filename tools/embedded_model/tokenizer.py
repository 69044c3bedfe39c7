"""The tokenizer: byte-level BPE in which every name of a thing, colour, shape, number and place is exactly one token.

A name is one token wherever it stands, because it is cut off from the blank before it and the plural ending behind it;
so what an image token is taught to look like is also what the answer is made of, in a sentence as in JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from embedded_model import chat
from embedded_model.concepts import COLOURS, NUMBERS, PLACES, SHAPES, concepts, countable, names, plural
from embedded_model.questions import exchanges
from embedded_model.scenes import Scene, Stock, scene
from embedded_model.several import about_several

PAD, START, END, IMAGE = "<|pad|>", "<|im_start|>", "<|im_end|>", "<image>"
SPECIAL = (PAD, START, END, "<|endoftext|>", IMAGE)
LEARNED = 1600
SAMPLES = 3000
# Sizes that are multiples of this compute faster.
ROUND_TO = 64
ROLES = ("user\n", "assistant\n", "system\n", "\n")
PIECES = r"[ ]?[A-Za-z]+|[0-9]|[ ]?[^\sA-Za-z0-9]+|\s"


def train(stock: Stock, seed: int) -> Tokenizer:
    """Merges are learned from what is asked and answered; names are added whole."""
    words = concept_words()
    name = any_of(words)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _cut(Regex(_name_pattern(name)), "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=4,
        show_progress=False,
    )
    learner.train_from_iterator(corpus(stock, Random(f"{seed}/tokenizer")), trainer)
    return _with_words(learner, words, name)


def concept_words() -> list[str]:
    """Everything that is one token by rule."""
    categories = {concept.category for concept in concepts().values()}
    irregular = [plural(name) for name in (*concepts(), *SHAPES) if countable(name)]
    irregular = [word for word in irregular if not re.fullmatch(r"(.+)e?s", word) or not _regular(word)]
    return list(dict.fromkeys([*names(), *COLOURS, *NUMBERS, *PLACES, *sorted(categories), "shape", *irregular]))


def _regular(word: str) -> bool:
    """Whether a plural is a name with an ending, which is cut off."""
    known = set(names())
    return word.removesuffix("s") in known or word.removesuffix("es") in known


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of these words, the longest that fits, written as a tree so that no letter is tried twice."""
    tree: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        tree.setdefault(word[:1], []).append(word[1:])
    ends = bool(tree.pop("", None))
    branches = [re.escape(letter) + any_of(rest) if any(rest) else re.escape(letter) for letter, rest in tree.items()]
    if not branches:
        return ""
    pattern = branches[0] if len(branches) == 1 and not ends else f"(?:{'|'.join(branches)})"
    return f"{pattern}?" if ends else pattern


def corpus(stock: Stock, random: Random) -> Iterator[str]:
    """Texts like those of training."""
    for role in ROLES:
        yield from [role] * SAMPLES
    for _ in range(SAMPLES):
        shown: list[Scene] = [scene(stock, random) for _ in range(2)]
        for exchange in (*exchanges(shown[0], random), *about_several(shown, random), chat.without_picture(random)):
            yield exchange.question
            yield exchange.answer
    for turn in chat.SYSTEM_TURNS:
        yield from [turn] * 20


def save(tokenizer: Tokenizer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def load(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def id_of(words: Tokenizer, token: str) -> int:
    """The id of a token that must be there."""
    found = words.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}")
    return found


def _name_pattern(name: str) -> str:
    """A name, or the blank before one: neither inside a longer word."""
    return rf"[ ](?={name}(?:e?s)?(?![A-Za-z]))|{name}(?=(?:e?s)?(?![A-Za-z]))"


def _cut(pattern: Regex, behaviour: str) -> pre_tokenizers.PreTokenizer:
    names_first = pre_tokenizers.Split(pattern, behaviour)  # type: ignore[arg-type]
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    return pre_tokenizers.Sequence([names_first, pieces, pre_tokenizers.ByteLevel(False, use_regex=False)])  # type: ignore[list-item]


def _with_words(learner: Tokenizer, words: list[str], name: str) -> Tokenizer:
    learned = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    merges = [tuple(pair) for pair in learned["merges"]]
    if "es" not in vocabulary:
        vocabulary["es"] = len(vocabulary)
        merges.append(("e", "s"))
    for word in words:
        vocabulary.setdefault(_bytes(word), len(vocabulary))
    # With `ignore_merges` a piece that is in the vocabulary is that token, however it could be merged.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    split = Regex(f"{_name_pattern(name)}|{PIECES}")
    isolated = pre_tokenizers.Split(split, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([isolated, pre_tokenizers.ByteLevel(False, use_regex=False)])  # type: ignore[assignment, list-item]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _bytes(word: str) -> str:
    """A word as byte-level BPE spells it."""
    ((spelled, _),) = pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(word)
    return spelled
