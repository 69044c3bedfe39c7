"""The launched server gives the tokens that `transformers` gives, for pictures of all sizes and kinds and for chats.

The answers were recorded by `goldens/make.py`, because `transformers` needs timm and torchvision for this model and
the product does not.
"""

import pytest
from harness.calls import answer, generate, user_turn
from harness.embedded import IMAGE_TOKENS
from harness.goldens import MAX_NEW_TOKENS, ChatCase, Goldens, PictureCase, chat_cases, picture_cases
from harness.launched import Server
from harness.pictures import data_uri, drawing, markdown, png, sha256

# A picture resized another way than Pillow does it is off by more than this, another summation order by much less.
LOGPROB_TOLERANCE = 5e-4


@pytest.mark.parametrize("case", picture_cases(), ids=lambda case: case.name)
def test_picture(server: Server, goldens: Goldens, case: PictureCase) -> None:
    golden = goldens.pictures[case.name]
    assert sha256(case.file) == golden["sha256"], "another picture than the one recorded: run goldens/make.py"
    inputs = markdown(case.url) + golden["question"]
    body = generate(server, inputs, max_new_tokens=MAX_NEW_TOKENS)
    tokens = body["details"]["tokens"]
    assert [token["id"] for token in tokens] == golden["token_ids"]
    assert body["generated_text"] == golden["text"]
    assert [token["logprob"] for token in tokens] == pytest.approx(golden["logprobs"], abs=LOGPROB_TOLERANCE)


@pytest.mark.parametrize("case", picture_cases()[::9], ids=lambda case: case.name)
def test_picture_in_a_prompt_that_the_client_templated(server: Server, goldens: Goldens, case: PictureCase) -> None:
    golden = goldens.pictures[case.name]
    inputs = user_turn(markdown(case.url) + golden["question"])
    assert list(answer(server, inputs, max_new_tokens=MAX_NEW_TOKENS).token_ids) == golden["token_ids"]
    assert len(server.post("/tokenize", {"inputs": inputs}).json()) == golden["prompt_tokens"]


@pytest.mark.parametrize("case", picture_cases()[::5], ids=lambda case: case.name)
def test_prompt_length(server: Server, goldens: Goldens, case: PictureCase) -> None:
    golden = goldens.pictures[case.name]
    body = {"inputs": markdown(case.url) + golden["question"], "parameters": {"max_new_tokens": 1}}
    assert server.post("/generate", body).headers["x-prompt-tokens"] == str(golden["prompt_tokens"])


@pytest.mark.parametrize("case", chat_cases(), ids=lambda case: case.name)
def test_chat(server: Server, goldens: Goldens, case: ChatCase) -> None:
    golden = goldens.chats[case.name]
    assert [sha256(file) for file in case.pictures()] == golden["sha256"], "run goldens/make.py"
    body = {"messages": case.openai(), "temperature": 0, "max_tokens": MAX_NEW_TOKENS}
    reply = server.post("/v1/chat/completions", body).json()
    assert reply["choices"][0]["message"]["content"] == golden["text"]
    usage = reply["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (golden["prompt_tokens"], len(golden["token_ids"]))
    assert usage["prompt_tokens_details"]["image_tokens"] == IMAGE_TOKENS * len(case.pictures())


def test_two_pictures_in_one_prompt_keep_their_order(server: Server, red_square_uri: str) -> None:
    circle = data_uri(png(drawing("circle", "blue", "yellow")))
    one = generate(server, f"{markdown(red_square_uri)}{markdown(circle)}Describe the images.", max_new_tokens=24)
    other = generate(server, f"{markdown(circle)}{markdown(red_square_uri)}Describe the images.", max_new_tokens=24)
    assert one["generated_text"] != other["generated_text"]
