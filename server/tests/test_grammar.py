"""Guided sequences: every token is the best of what llguidance allows, and company changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache

import gloo_ranks
import numpy as np
import pytest
import torch
from driver import PREPARED, Driver, Prompt, ints, load
from llguidance import LLMatcher, LLTokenizer
from test_sampler import CPU

from text_generation_server import grammar as guided
from text_generation_server.distributed import Ranks
from text_generation_server.grammar import Grammars, GuidedSlots
from text_generation_server.plan import FailureKind, Grammar, GrammarKind, Sampling, StepResult
from text_generation_server.sampler import Sampler

EOS = 2
ANIMALS = {
    "properties": {
        "location": {"title": "Location", "type": "string", "maxLength": 20},
        "activity": {"title": "Activity", "type": "string", "maxLength": 20},
        "animals_seen": {"maximum": 5, "minimum": 1, "title": "Animals Seen", "type": "integer"},
        "animals": {"items": {"type": "string", "maxLength": 9}, "title": "Animals", "type": "array", "maxItems": 2},
    },
    "required": ["location", "activity", "animals_seen", "animals"],
    "title": "Animals",
    "type": "object",
    "additionalProperties": False,
    "x-guidance": {"whitespace_pattern": " ?"},
}
SCHEMA = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(ANIMALS))
REGEX = Grammar(GrammarKind.REGEX, r"(19|20)\d\d-[01]\d")
LARK = Grammar(GrammarKind.LARK, 'start: "yes" | "no, " /[a-z]{2,9}/')
HOPELESS = Grammar(GrammarKind.JSON_SCHEMA, '{"$ref": "#"}')
PROMPT = Prompt.of([5, 6, 7, 8, 9])
DRAWN = Sampling(greedy=False, temperature=1.5, seed=7)


@cache
def facts() -> tuple[str, int]:
    tokenizer = json.loads(PREPARED.read_text())["tokenizer"]
    return json.dumps(tokenizer), len(tokenizer["model"]["vocab"])


@cache
def tokenizer() -> LLTokenizer:
    return LLTokenizer(facts()[0], eos_token=[EOS])


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(facts()[0], [EOS])


@pytest.fixture(scope="module")
def driver() -> Driver:
    return Driver(load())


def matcher(grammar: Grammar) -> LLMatcher:
    written: dict[GrammarKind, Callable[[str], str]] = {
        GrammarKind.JSON_SCHEMA: LLMatcher.grammar_from_json_schema,
        GrammarKind.REGEX: LLMatcher.grammar_from_regex,
        GrammarKind.LARK: LLMatcher.grammar_from_lark,
    }
    return LLMatcher(tokenizer(), written[grammar.kind](grammar.text), log_level=0)


def text(tokens: Sequence[int]) -> str:
    """What was generated before the end token."""
    return tokenizer().decode_str(list(tokens)[: tokens.index(EOS)])


def entries(result: StepResult) -> list[tuple[int, int]]:
    """Sequence and token of all that was sampled or forced."""
    return list(zip(result.sampled.sequences, result.sampled.token_ids, strict=True))


def generate(
    driver: Driver, wanted: Sequence[tuple[Sampling, Grammar | None]], num_tokens: int, first: int = 1
) -> list[list[int]]:
    """Runs the prompt once for each entry, side by side."""
    outputs: list[list[int]] = [[] for _ in wanted]
    for number, (sampling, grammar) in enumerate(wanted):
        driver.learn(first + number, PROMPT, sampling, grammar)
    length = len(PROMPT.token_ids)
    for index in range(num_tokens):
        rows = [
            driver.chunk(first + number, PROMPT, 0, length)
            if index == 0
            else driver.decode(first + number, length + index - 1)
            for number in range(len(wanted))
        ]
        result = driver.step(rows)
        assert not result.failures
        for number, tokens in enumerate(outputs):
            said = [token for sequence, token in entries(result) if sequence == first + number]
            # A token that was named as one that can only follow is sampled all the same when its row comes.
            assert tokens[index : index + 1] in ([], said)
            tokens += said if len(tokens) == index else []
    driver.step([], forget_sequences=[first + number for number in range(len(wanted))])
    return outputs


@pytest.mark.parametrize("grammar", [SCHEMA, REGEX, LARK])
@pytest.mark.parametrize("extra_rows", [0, 5, -40])
def test_the_best_of_what_llguidance_allows_is_chosen(grammars: Grammars, grammar: Grammar, extra_rows: int) -> None:
    vocabulary = facts()[1] + extra_rows
    sampler, guides, truth = Sampler(vocabulary, CPU, Ranks()), GuidedSlots(grammars), matcher(grammar)
    sampler.learn(3, Sampling(num_top_tokens=1), ints([]))
    guides.learn(3, grammar)
    random = torch.Generator().manual_seed(1)
    for position in range(60):
        scores = torch.randn(1, vocabulary, generator=random)
        at = (ints([3]), ints([position]))
        choice = sampler.sample(scores, *at, guides.allowed(*at))
        guides.accept(*at, choice.token_ids, choice.good)
        bits = np.unpackbits(np.frombuffer(truth.compute_bitmask(), np.uint8), bitorder="little")[:vocabulary]
        may = torch.zeros(vocabulary, dtype=torch.bool)
        may[: len(bits)] = torch.from_numpy(bits).bool()
        assert choice.token_ids[0] == scores[0].masked_fill(~may, float("-inf")).argmax()
        assert truth.consume_token(int(choice.token_ids[0]))
        if choice.token_ids[0] == EOS:
            return
    assert grammar == SCHEMA


def test_raw_logprobs_of_a_guided_row_are_the_models(grammars: Grammars) -> None:
    sampler, guides = Sampler(facts()[1], CPU, Ranks()), GuidedSlots(grammars)
    sampler.learn(0, Sampling(raw_logprobs=True), ints([]))
    sampler.learn(1, Sampling(raw_logprobs=False), ints([]))
    for slot in range(2):
        guides.learn(slot, LARK)
    scores = torch.randn(1, facts()[1], generator=torch.Generator().manual_seed(1)).expand(2, -1)
    choice = sampler.sample(scores.clone(), ints([0, 1]), ints([0, 0]), guides.allowed(ints([0, 1]), ints([0, 0])))
    raw = torch.log_softmax(scores[0], -1)[int(choice.token_ids[0])]
    assert choice.logprobs[0] == pytest.approx(float(raw), abs=1e-5)
    assert choice.logprobs[1] > choice.logprobs[0]


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN])
def test_answers_are_of_their_grammar_and_end(driver: Driver, sampling: Sampling) -> None:
    animals, date, word = generate(driver, [(sampling, SCHEMA), (sampling, REGEX), (sampling, LARK)], 120)
    answer = json.loads(text(animals))
    assert list(answer) == ANIMALS["required"]
    assert 1 <= answer["animals_seen"] <= 5
    assert len(text(date)) == 7
    assert text(word) == "yes" or text(word).startswith("no, ")
    assert set(word[word.index(EOS) :]) == {EOS}, "nothing but the end comes after the end"


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN])
def test_company_changes_nothing(driver: Driver, sampling: Sampling) -> None:
    wanted = [(sampling, None), (sampling, SCHEMA), (Sampling(), None), (sampling, REGEX), (sampling, SCHEMA)]
    together = generate(driver, wanted, 24)
    alone = [generate(driver, [one], 24)[0] for one in wanted]
    assert together == alone
    assert together[1] == together[4]


@pytest.mark.parametrize("few", [0, 1, 100])
def test_who_computes_masks_changes_nothing(driver: Driver, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    wanted = [(Sampling(), SCHEMA), (DRAWN, REGEX), (Sampling(raw_logprobs=True), SCHEMA), (DRAWN, LARK)]
    usual = generate(driver, wanted, 24)
    handed_over = 0
    plain = guided.Guide.hand_over

    def counted(guide: guided.Guide) -> None:
        nonlocal handed_over
        handed_over += 1
        plain(guide)

    monkeypatch.setattr(guided.Guide, "hand_over", counted)
    monkeypatch.setattr(guided, "FEW", few)
    assert generate(driver, wanted, 24) == usual
    assert (handed_over > 0) == (few < len(wanted))


def test_a_matcher_that_raises_loses_its_grammar(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    guides = GuidedSlots(grammars)
    guides.learn(0, REGEX)
    assert guides.allowed(ints([0]), ints([0])) is not None
    (token,) = tokenizer().tokenize_str("1")
    guides.accept(ints([0]), ints([0]), ints([token]), np.array([True]))

    def broken(*_: object) -> guided.Start:
        raise ValueError("no")

    monkeypatch.setattr(guided, "_advance", broken)
    allowed = guides.allowed(ints([0]), ints([1]))
    assert allowed is not None
    assert allowed.lost_G.tolist() == [True]


def test_a_lost_grammar_fails_its_sequence_alone(driver: Driver) -> None:
    for sequence, grammar in ((1, HOPELESS), (2, SCHEMA), (3, None)):
        driver.learn(sequence, PROMPT, grammar=grammar)
    result = driver.step([driver.chunk(sequence, PROMPT, 0, 5) for sequence in (1, 2, 3)])
    assert [(sequence, failure.kind) for sequence, failure in result.failures] == [(1, FailureKind.INTERNAL)]
    assert "grammar" in result.failures[0][1].message
    assert result.sampled.sequences == [2, 3]
    again = driver.step([driver.decode(sequence, 5) for sequence in (2, 3)])
    assert again.sampled.sequences == [2, 3]
    driver.step([], forget_sequences=[1, 2, 3])


def test_a_slot_starts_anew(driver: Driver) -> None:
    once = generate(driver, [(Sampling(), SCHEMA)], 6)
    free = generate(driver, [(Sampling(), None)], 6)
    assert generate(driver, [(Sampling(), SCHEMA)], 6) == once
    assert generate(driver, [(Sampling(), None)], 6) == free != once


def test_a_mask_that_takes_too_long_is_not_waited_for(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "FIRST_MASK_S", 0.05)
    stuck: Future[guided.Start] = Future()
    guide = guided.Guide(grammars._workers, stuck, skips=True)
    started = time.monotonic()
    assert guide.words(0, started) is None
    assert guide.forced(0) == ()
    assert time.monotonic() - started < 1.0


def test_a_step_waits_for_all_its_masks_together_and_only_the_late_ones_are_lost(grammars: Grammars) -> None:
    guides = GuidedSlots(grammars)
    slots, positions = ints(range(6)), ints([0] * 6)
    for slot in slots.tolist():
        guides.learn(slot, REGEX)
    assert guides.allowed(slots, positions) is not None
    for slot in range(5):
        late: Future[guided.Start] = Future()
        guides._guides[slot]._work, guides._guides[slot]._limit_s = late, guided.MASK_S
    started = time.monotonic()
    allowed = guides.allowed(slots, positions)
    assert time.monotonic() - started < 3 * guided.MASK_S
    assert allowed is not None
    assert allowed.lost_G.tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("bomb", ["(a{1000}){1000}", "x(a{1000}){1000}"])
def test_a_grammar_that_explodes_is_lost_by_its_size(grammars: Grammars, bomb: str) -> None:
    guides = GuidedSlots(grammars)
    guides.learn(0, Grammar(GrammarKind.REGEX, bomb))
    started = time.monotonic()
    allowed = guides.allowed(ints([0]), ints([0]))
    assert allowed is not None
    assert allowed.lost_G.tolist() == [True]
    assert time.monotonic() - started < guided.FIRST_MASK_S


def hostile() -> list[Grammar]:
    """Grammars whose first mask is cheap, and whose later ones are not."""
    pairs = [f"(.*{first}.{{40}}{second})" for first in "abcdefgh" for second in "abcd"]
    both = 'start: "q" T\nT: /(.*a.{20}b.*)/ & /(.*b.{19}a.*)/ & /.*aba.{17}.*/'
    regexes = ["((.*a.{300}b)|(.*b.{299}a))*", "(.*a.{18}b)", "|".join(pairs)]
    return [*(Grammar(GrammarKind.REGEX, regex) for regex in regexes), Grammar(GrammarKind.LARK, both)]


@pytest.mark.parametrize("grammar", hostile())
def test_fuel_ends_every_mask_long_before_a_step_gives_up(grammars: Grammars, grammar: Grammar) -> None:
    work = grammars.begin(grammar, False, None)._work
    assert work is not None
    at = work.result(10)
    assert at.matcher is not None
    worst = 0.0
    for letter in "q" * (grammar.kind == GrammarKind.LARK) + "abaababbabaababbab" * 6:
        for token in tokenizer().tokenize_str(letter):
            before = time.thread_time()
            at = guided._advance(at, token)
            worst = max(worst, time.thread_time() - before)
        if at.mask.words is None:
            break
    assert worst < guided.MASK_S / 2


def test_a_broken_worker_loses_the_grammar(grammars: Grammars) -> None:
    broken: Future[guided.Start] = Future()
    broken.set_exception(ValueError("no"))
    assert guided.Guide(grammars._workers, broken, skips=True).words(0, time.monotonic()) is None


def test_a_tokenizer_that_cannot_be_read_loses_every_grammar() -> None:
    guides = GuidedSlots(Grammars("{}", [EOS]))
    guides.learn(0, REGEX)
    allowed = guides.allowed(ints([0]), ints([0]))
    assert allowed is not None
    assert allowed.lost_G.tolist() == [True]


def test_two_ranks_follow_one_grammar(driver: Driver) -> None:
    wanted = [SCHEMA, None, HOPELESS, REGEX]
    ranks = gloo_ranks.run([PROMPT] * 4, 24, (), grammars=wanted)
    assert ranks[0] == ranks[1]
    alone = [[] if grammar == HOPELESS else generate(driver, [(Sampling(), grammar)], 24)[0][:24] for grammar in wanted]
    assert ranks[0] == alone


FORCING = Grammar(GrammarKind.REGEX, r"(one|two) and then a long text that nobody chose(, again and again)?")


def test_forced_tokens_come_at_once_and_change_nothing(driver: Driver) -> None:
    [stepwise] = generate(driver, [(Sampling(num_top_tokens=1), FORCING)], 60, first=900)
    driver.learn(950, PROMPT, Sampling(), FORCING)
    rows, tokens = [driver.chunk(950, PROMPT, 0, len(PROMPT.token_ids))], list[int]()
    steps = 0
    while not tokens or tokens[-1] != EOS:
        result = driver.step(rows)
        said = [token for _, token in entries(result)]
        tokens += said
        steps += 1
        whole = PROMPT.continued(tokens)
        end = len(whole.token_ids)
        assert not result.failures
        rows = [driver.chunk(950, whole, end - len(said), end)]
    assert tokens == stepwise[: stepwise.index(EOS) + 1]
    assert steps < len(tokens) / 2
    assert all(logprob == 0 for logprob in result.sampled.logprobs[1:])


@pytest.mark.parametrize(
    "sampling", [Sampling(num_top_tokens=1), Sampling(raw_logprobs=True), Sampling(repetition_penalty=1.2)]
)
def test_tokens_that_are_looked_at_are_sampled(driver: Driver, sampling: Sampling) -> None:
    driver.learn(960, PROMPT, sampling, FORCING)
    for index in range(8):
        start = len(PROMPT.token_ids) + index - 1
        row = driver.decode(960, start) if index else driver.chunk(960, PROMPT, 0, len(PROMPT.token_ids))
        assert len(entries(driver.step([row]))) == 1
    driver.step([], forget_sequences=[960])
