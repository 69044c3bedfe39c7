"""Ends JSON in time: an answer that is held to a schema is whole when its tokens are used up.

While there is room a model writes what it likes. When what is left is only just enough for the shortest way to the end,
the mask is narrowed to that way: strings are closed, lists and objects too, and what is still required is kept short.
An answer whose shortest form is longer than its tokens cannot be saved, and is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

MAX_SHORTEST = 512
"""Tokens of a shortest end that are looked for; one that is longer is not."""

LONGEST_ESCAPE = 7
"""`\\u0000` and the quote."""

NEVER = -(1 << 60)

MARGIN = 2
"""Tokens to spare: the end token, and one where the model chose a way that is not the shortest."""

Words = NDArray[np.int32]


class Closers:
    """The vocabulary by what tokens do to JSON that is open, as masks of a bit a token."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        texts = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        self._brackets = _mask(texts, lambda text: not text.strip(b"]}"))
        self._separators = _mask(texts, lambda text: text.rstrip() in (b",", b":"))
        self._quotes = _mask(texts, lambda text: text[:1] == b'"' and not text.strip(b'"]}'))
        # No value of JSON begins with one of these, so where they are allowed a string is open.
        self._letters = _mask(texts, lambda text: text[:1] in (b"q", b"z", b"k", b"x"))
        self._by_length = [_mask(texts, partial(_is_long, length)) for length in (1, 2, 3)]

    def narrow(self, words: Words) -> Words:
        """What of a mask leads to the end; all of it where nothing is known to."""
        inside = _meet(words, self._letters).any()
        ways = (self._quotes,) if inside else (self._brackets, self._separators, self._quotes)
        return next((kept for way in ways if (kept := _meet(words, way)).any()), words)

    def shortest(self, words: Words) -> int:
        """The token that a shortest way would take."""
        narrowed = self.narrow(words)
        short = (kept for length in self._by_length if (kept := _meet(narrowed, length)).any())
        bits = np.unpackbits(next(short, narrowed).view(np.uint8), bitorder="little")
        return int(bits.argmax())

    def tokens_to_end(self, matcher: LLMatcher) -> int:
        """Tokens of the shortest way, at most `MAX_SHORTEST` + 1. The matcher stays as it is."""
        ahead, count = matcher.deep_copy(), 0
        while count <= MAX_SHORTEST and not ahead.is_accepting() and not ahead.is_error():
            following = ahead.compute_ff_tokens() or [
                self.shortest(np.frombuffer(ahead.compute_bitmask(), dtype=np.int32))
            ]
            if not ahead.consume_token(following[0]):
                return MAX_SHORTEST + 1
            count += 1
        return MAX_SHORTEST + 1 if ahead.is_error() else count


class Budget:
    """The tokens that one answer has left. `shortest` is what the whole grammar needs from its beginning, and `jump`
    what a single token can add to what is needed.

    The shortest way is looked for only when what was left could have become too little: seldom while there is much.
    """

    def __init__(self, closers: Closers, num_tokens: int, shortest: int, jump: int) -> None:
        self._closers = closers
        self._left = num_tokens
        self._spare = MARGIN + jump
        self._look_at = num_tokens if shortest <= min(MAX_SHORTEST, num_tokens) else NEVER
        self._closing = False

    def spend(self, count: int) -> None:
        """Tokens were taken."""
        self._left -= count

    def narrow(self, matcher: LLMatcher, words: Words) -> Words:
        """The mask behind what was taken, narrowed if it is time."""
        if not self._closing and self._left <= self._look_at:
            room = self._left - self._closers.tokens_to_end(matcher) - self._spare
            self._closing = room <= 0
            self._look_at = self._left - max(1, room // self._spare)
        return self._closers.narrow(words) if self._closing else words


def largest_jump(schema: object) -> int:
    """How much longer a single token can make the shortest way, at most: by beginning a part of the schema."""
    parts = [part for part in _parts(schema) if part is not schema]
    return max([LONGEST_ESCAPE, *(_shortest_text(part, schema, frozenset()) for part in parts)])


def _parts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)


def _shortest_text(part: object, root: object, within: frozenset[str]) -> int:
    """Letters of the shortest JSON by this part: no fewer than its tokens. What contains itself counts once."""
    if not isinstance(part, dict):
        return 1
    name = part.get("$ref")
    if isinstance(name, str):
        return 0 if name in within else _shortest_text(_referred(name, root), root, within | {name})
    several = next((part[key] for key in ("anyOf", "oneOf") if isinstance(part.get(key), list)), None)
    if several:
        return min(_shortest_text(one, root, within) for one in several)
    values = part.get("enum", [part["const"]] if "const" in part else None)
    if isinstance(values, list) and values:
        return min(len(json.dumps(value)) for value in values)
    return _shortest_of_type(part, root, within)


def _shortest_of_type(part: dict[str, Any], root: object, within: frozenset[str]) -> int:
    count = max([0, *(int(part[key]) for key in ("minLength", "minItems") if isinstance(part.get(key), int))])
    needed, properties = part.get("required"), part.get("properties")
    if isinstance(needed, list) and isinstance(properties, dict):
        return 2 + sum(len(str(key)) + 5 + _shortest_text(properties.get(key), root, within) for key in needed)
    if "items" in part:
        return 2 + count * (2 + _shortest_text(part["items"], root, within))
    return 2 + count


def _referred(name: str, root: object) -> object:
    found = root
    for key in name.removeprefix("#").split("/")[1:]:
        found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _meet(words: Words, others: Words) -> Words:
    """Bits that both have. The grammar's masks may be a word longer than the vocabulary."""
    both = np.zeros_like(words)
    width = min(len(words), len(others))
    np.bitwise_and(words[:width], others[:width], out=both[:width])
    return both


def _is_long(length: int, text: bytes) -> bool:
    return len(text) == length


def _mask(texts: Iterable[bytes], belongs: Callable[[bytes], bool]) -> Words:
    bits = np.array([bool(text) and belongs(text) for text in texts])
    padded = np.zeros(-(-len(bits) // 32) * 32, dtype=np.bool_)
    padded[: len(bits)] = bits
    return np.packbits(padded, bitorder="little").view(np.int32)
