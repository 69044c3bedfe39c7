"""Answers held to a schema end within their tokens, whoever samples."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from driver import PREPARED, Driver, Prompt, load
from llguidance import LLTokenizer

from text_generation_server.closing import Closers, largest_jump
from text_generation_server.grammar import Grammars
from text_generation_server.plan import Grammar, GrammarKind, Sampling

EOS = 2
PAGE = {
    "properties": {
        "location": {"type": "string"},
        "activity": {"type": "string"},
        "animals_seen": {"maximum": 5, "minimum": 1, "type": "integer"},
        "animals": {"items": {"type": "string"}, "type": "array"},
    },
    "required": ["location", "activity", "animals_seen", "animals"],
    "type": "object",
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "required": ["name", "children"],
    "additionalProperties": False,
}
NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2}


def closed(required: bool, **properties: Any) -> dict[str, Any]:  # noqa: ANN401 (schemas)
    """An object of these properties."""
    names = {"required": list(properties)} if required else {}
    return {"type": "object", "properties": properties, "additionalProperties": False} | names


SCHEMAS: dict[str, dict[str, Any]] = {
    "the VLM page": PAGE,
    "numbers": closed(True, a={"type": "number"}, b={"type": "integer"}),
    "lists of lists": {"type": "array", "items": NUMBERS, "minItems": 2},
    "optional properties": closed(False, **{name: {"type": "string"} for name in "abcdef"}),
    "any object": {"type": "object"},
    "anything": {},
    "a choice": closed(True, a={"enum": ["queue", "quest", 'q"x']}, b={"type": "boolean"}),
    "a tree": {"$defs": {"node": TREE}, "$ref": "#/$defs/node"},
    "strings that are long enough": {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 2},
}


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return LLTokenizer(json.dumps(json.loads(PREPARED.read_text())["tokenizer"]), eos_token=[EOS])


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(json.dumps(json.loads(PREPARED.read_text())["tokenizer"]), [EOS])


def written(schema: dict[str, Any]) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema | {"x-guidance": {"whitespace_pattern": " ?"}}))


def sample(grammars: Grammars, grammar: Grammar, num_tokens: int, seed: int) -> list[int]:
    """Any of the tokens that are allowed, the end token only when there is no other."""
    generator = np.random.default_rng(seed)
    guide = grammars.begin(grammar, False, num_tokens)
    tokens: list[int] = []
    for position in range(num_tokens):
        words = guide.words(position, 1e9)
        assert words is not None
        allowed = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        others = allowed[allowed != EOS]
        token = int(generator.choice(others if len(others) else allowed))
        if token == EOS:
            break
        tokens.append(token)
        guide.accept(token, position)
    return tokens


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_is_whole_when_its_tokens_are_used_up(name: str, grammars: Grammars, tokenizer: LLTokenizer) -> None:
    schema = SCHEMAS[name]
    for seed in range(12):
        num_tokens = (50, 80, 130, 300)[seed % 4]
        tokens = sample(grammars, written(schema), num_tokens, seed)
        text = tokenizer.decode_bytes(tokens).decode(errors="replace")
        jsonschema.validate(json.loads(text), schema)
        assert len(tokens) <= num_tokens


def test_while_there_is_room_nothing_is_narrowed(grammars: Grammars) -> None:
    grammar = written(PAGE)
    bounded, free = sample(grammars, grammar, 300, 3), sample(grammars, grammar, 400, 3)
    assert len(bounded) > 250
    assert len(free) > 350
    assert bounded[:240] == free[:240]


def test_an_answer_that_cannot_be_saved_is_left_alone(grammars: Grammars) -> None:
    grammar = written(PAGE)
    free = grammars.begin(grammar, False, None)
    short = grammars.begin(grammar, False, 5)
    words = [guide.words(0, 1e9) for guide in (free, short)]
    assert words[0] is not None and words[1] is not None
    assert (words[0] == words[1]).all()


def test_a_model_that_never_ends_a_string_is_brought_to_the_end() -> None:
    driver = Driver(load())
    for seed in range(3):
        sampling = Sampling(greedy=False, temperature=2.0, seed=seed)
        driver.learn(seed, Prompt.of([5, 6, 7]), sampling, written(PAGE), max_new_tokens=60)
    rows = [driver.chunk(seed, Prompt.of([5, 6, 7]), 0, 3) for seed in range(3)]
    outputs: list[list[int]] = [[], [], []]
    for index in range(60):
        sampled = driver.step(rows).sampled
        first = dict(reversed(list(zip(sampled.sequences, sampled.token_ids, strict=True))))
        for number, token in first.items():
            outputs[number].append(token)
        rows = [driver.decode(number, 3 + index) for number in sorted(first) if EOS not in outputs[number]]
        if not rows:
            break
    tokenizer = LLTokenizer(json.dumps(json.loads(PREPARED.read_text())["tokenizer"]), eos_token=[EOS])
    for tokens in outputs:
        assert EOS in tokens
        jsonschema.validate(json.loads(tokenizer.decode_str(tokens[: tokens.index(EOS)])), PAGE)


def test_the_shortest_way_is_found(grammars: Grammars) -> None:
    compiled = grammars._compile(written({"type": "array", "items": {"type": "number"}, "minItems": 3}))
    assert compiled is not None
    assert compiled.shortest <= 10
    assert isinstance(grammars._closers.result(), Closers)


@pytest.mark.parametrize(("schema", "letters"), [(PAGE, 7), (SCHEMAS["a tree"], 28), (SCHEMAS["lists of lists"], 10)])
def test_a_token_adds_no_more_than_the_largest_part(schema: dict[str, Any], letters: int) -> None:
    assert largest_jump(schema) == letters
