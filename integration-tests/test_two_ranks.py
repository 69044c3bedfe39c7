"""Two ranks share the model on a CPU and give the tokens of one; losing one of them is survived."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import launched
from harness.calls import answer, streamed_answer
from harness.goldens import MAX_NEW_TOKENS, Goldens, PictureCase, chat_cases, picture_cases
from harness.launched import Server, wait_until
from harness.pictures import markdown

RESTART_LIMIT_S = 90.0
PROMPT = "one two three What can you do?"
CASES = [case for number, case in enumerate(picture_cases()) if number % 8 == 0]


@pytest.fixture(scope="module")
def pair(logs: Path) -> Iterator[Server]:
    """A server of two ranks."""
    with launched.running(logs / "two-ranks.log", "--num-shard", "2") as server:
        yield server


def test_there_are_two(pair: Server) -> None:
    assert len(pair.shards()) == 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_picture(pair: Server, goldens: Goldens, case: PictureCase) -> None:
    golden = goldens.pictures[case.name]
    inputs = markdown(case.url) + golden["question"]
    assert list(answer(pair, inputs, max_new_tokens=MAX_NEW_TOKENS).token_ids) == golden["token_ids"]


@pytest.mark.parametrize("name", ["two images", "text only", "image in the second turn"])
def test_chat(pair: Server, goldens: Goldens, name: str) -> None:
    (case,) = [case for case in chat_cases() if case.name == name]
    reply = pair.post("/v1/chat/completions", {"messages": case.openai(), "temperature": 0, "max_tokens": 24}).json()
    assert reply["choices"][0]["message"]["content"] == goldens.chats[name]["text"]


def test_seeded_answers_equal_those_of_one_rank(pair: Server, server: Server, red_square_uri: str) -> None:
    inputs, parameters = markdown(red_square_uri), {"temperature": 1.5, "seed": 77, "max_new_tokens": 32}
    assert streamed_answer(pair, inputs, **parameters) == streamed_answer(server, inputs, **parameters)


def test_a_killed_rank_comes_back(pair: Server) -> None:
    before = answer(pair, PROMPT, max_new_tokens=24)
    lost = pair.shards()[1]
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: pair.status("/health") == 503, 2, "red health", every=0.01)
    wait_until(lambda: pair.status("/health") == 200, RESTART_LIMIT_S, "green health")
    assert lost not in pair.shards()
    assert answer(pair, PROMPT, max_new_tokens=24) == before
