"""What grammars cost: a mask a token over a vocabulary of the size that large models have, and compiling.

The vocabulary is made here, from a fixed seed: byte-level BPE, each token a pair of earlier ones, as in real ones.
"""

import json
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from llguidance import LLMatcher, LLTokenizer

VOCABULARY = 151_936
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
PUNCTUATION = " \"':,.{}[]()/\\-_=0123456789\nETAOINSHRDLU"
MAX_TOKEN_LETTERS = 12

ANIMALS = {
    "title": "Animals",
    "type": "object",
    "properties": {
        "activity": {"type": "string"},
        "animals": {"type": "array", "items": {"type": "string"}},
        "animals_seen": {"type": "integer", "minimum": 1, "maximum": 5},
        "location": {"type": "string"},
    },
    "required": ["activity", "animals", "animals_seen", "location"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_pattern": " ?"},
}
"""The schema of text-generation-inference's page about guided vision-language models, as our router passes it on."""


@dataclass(frozen=True)
class MaskTimes:
    """Microseconds a mask, and how often a token was forced without the mask being that token alone."""

    median_us: float
    p99_us: float
    tokens: int
    inexact: int


def tokenizer() -> LLTokenizer:
    """Takes a few seconds."""
    return LLTokenizer(json.dumps(tokenizer_json()), eos_token=[VOCABULARY - 1])


def tokenizer_json() -> dict[str, object]:
    """In the `tokenizers` library's own format."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    texts = [disguise(byte) for byte in range(256)]
    merges = list(pairs(texts))
    end = {"id": VOCABULARY - 1, "content": "</s>", "special": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [end | plain],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {text: id for id, text in enumerate(texts)}, "merges": merges},
    }


def pairs(texts: list[str]) -> Iterator[list[str]]:
    """Merges until the vocabulary is full but for the end token, each of which is put at the end of `texts`."""
    draw = random.Random(5)
    weights = [8 if chr(byte) in LETTERS else 2 if chr(byte) in PUNCTUATION else 0.02 for byte in range(256)]
    seen = set(texts)
    singles = draw.choices(texts[:256], weights, k=4 * VOCABULARY)
    while len(texts) < VOCABULARY - 1:
        left = texts[draw.randrange(len(texts))] if draw.random() < 0.8 else singles.pop()
        merged = left + singles.pop()
        if len(merged) <= MAX_TOKEN_LETTERS and merged not in seen:
            seen.add(merged)
            texts.append(merged)
            yield [left, merged[len(left) :]]


def disguise(byte: int) -> str:
    """The letter that stands for a byte in byte-level vocabularies: itself where it prints, a stand-in where not."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def hundred_properties() -> tuple[dict[str, object], dict[str, object]]:
    """A schema and an object that is valid by it."""
    kinds: list[tuple[dict[str, object], object]] = [
        ({"type": "string"}, "a picture of two dogs on a beach"),
        ({"type": "integer", "minimum": 0}, 12345),
        ({"type": "boolean"}, True),
        ({"type": "array", "items": {"type": "number"}}, [1.5, 2, 30.25]),
        ({"enum": ["red", "green", "blue"]}, "green"),
    ]
    names = [f"property_{number}" for number in range(100)]
    schema = {
        "type": "object",
        "properties": {name: kinds[number % 5][0] for number, name in enumerate(names)},
        "required": names,
        "additionalProperties": False,
        "x-guidance": {"whitespace_pattern": " ?"},
    }
    return schema, {name: kinds[number % 5][1] for number, name in enumerate(names)}


def mask_times(vocabulary: LLTokenizer) -> MaskTimes:
    """Every mask on the way through an object of a hundred properties, taking the token included."""
    schema, instance = hundred_properties()
    tokens = vocabulary.tokenize_str(json.dumps(instance, separators=(",", ":")))
    times = []
    for token, matcher in along(vocabulary, schema, tokens):
        started = time.perf_counter()
        matcher.consume_token(token)
        matcher.compute_bitmask()
        times.append(1e6 * (time.perf_counter() - started))
    inexact = sum(
        forces_another(matcher) or not matcher.consume_token(token)
        for token, matcher in along(vocabulary, schema, tokens)
    )
    ordered = sorted(times)
    return MaskTimes(statistics.median(ordered), ordered[int(0.99 * len(ordered))], len(ordered), inexact)


def along(vocabulary: LLTokenizer, schema: dict[str, object], tokens: list[int]) -> Iterator[tuple[int, LLMatcher]]:
    """A matcher before each of the tokens; who asks lets it take the token."""
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_json_schema(schema), log_level=0)
    matcher.compute_bitmask()  # the step that follows compiling
    for at, token in enumerate(tokens):
        yield token, matcher
        if matcher.is_error():
            raise RuntimeError(f"token {at} is not allowed: {matcher.get_error()}")


def forces_another(matcher: LLMatcher) -> bool:
    """Whether a token is forced here, and the mask is not that token alone."""
    forced = matcher.compute_ff_tokens()
    return bool(forced) and int.from_bytes(matcher.compute_bitmask(), "little") != 1 << forced[0]


def compile_ms(vocabulary: LLTokenizer, rounds: int = 20) -> float:
    """Median of compiling the page's schema, its first mask included."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_json_schema(ANIMALS), log_level=0)
        matcher.compute_bitmask()
        times.append(1e3 * (time.perf_counter() - started))
        if matcher.is_error():
            raise RuntimeError(matcher.get_error())
    return statistics.median(times)
