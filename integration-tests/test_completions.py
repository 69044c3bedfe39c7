"""`/v1/completions` of the launched server, as OpenAI's older clients and the newest JavaScript one send it."""

import json

import pytest
from harness.calls import answer
from harness.embedded import IMAGE_TOKENS
from harness.launched import Server
from harness.pictures import markdown
from harness.types import Json

QUESTION = "What is this a picture of?\n\n"


def complete(server: Server, prompt: object, **fields: object) -> Json:
    """A successful request for a greedy continuation."""
    reply = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 16, "temperature": 0, **fields})
    assert reply.status_code == 200, reply.text
    body: Json = reply.json()
    return body


def chunks(server: Server, prompt: object, **fields: object) -> list[Json]:
    """The chunks of a stream, which ends as it must."""
    body = {"prompt": prompt, "max_tokens": 16, "temperature": 0, "stream": True, **fields}
    *events, done = [line[6:] for line in server.post("/v1/completions", body).text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


def test_a_picture_in_the_prompt(server: Server, red_square_uri: str) -> None:
    prompt = markdown(red_square_uri) + QUESTION
    body = complete(server, prompt)
    [choice] = body["choices"]
    assert choice["text"] == answer(server, prompt, max_new_tokens=16).text
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert body["usage"]["prompt_tokens_details"]["image_tokens"] == IMAGE_TOKENS


def test_choices_come_in_the_order_of_the_prompts(server: Server) -> None:
    prompts = ["one", "two two", "three three three"]
    alone = [complete(server, prompt)["choices"][0]["text"] for prompt in prompts]
    body = complete(server, prompts)
    assert [choice["text"] for choice in body["choices"]] == alone
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]


def test_streamed_chunks_add_up(server: Server, red_square_uri: str) -> None:
    prompts = [markdown(red_square_uri) + QUESTION, "one"]
    whole = [choice["text"] for choice in complete(server, prompts)["choices"]]
    texts = ["", ""]
    for chunk in chunks(server, prompts):
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == whole


def test_chunks_carry_what_text_generation_clients_read(server: Server, red_square_uri: str) -> None:
    prompt = markdown(red_square_uri) + QUESTION
    *tokens, last = chunks(server, prompt, details=True)
    whole = answer(server, prompt, max_new_tokens=16)
    assert tuple(chunk["token"]["id"] for chunk in [*tokens, last]) == whole.token_ids
    assert last["details"]["generated_tokens"] == len(whole.token_ids)
    assert last["details"]["finish_reason"] == "eos_token"


def test_token_ids_are_a_prompt(server: Server) -> None:
    ids = server.post("/tokenize", {"prompt": "What is this?"}).json()["tokens"]
    assert complete(server, ids)["usage"]["prompt_tokens"] == len(ids)
    assert complete(server, [ids, ids])["usage"]["prompt_tokens"] == 2 * len(ids)


def test_log_probabilities_in_the_old_form(server: Server, red_square_uri: str) -> None:
    [choice] = complete(server, markdown(red_square_uri) + QUESTION, logprobs=2)["choices"]
    found = choice["logprobs"]
    # The end token is one of them.
    assert "".join(found["tokens"]).startswith(choice["text"])
    assert all(logprob <= 0 for logprob in found["token_logprobs"])
    for token, best in zip(found["tokens"], found["top_logprobs"], strict=True):
        assert token == max(best, key=best.get)
    assert found["text_offset"] == [len("".join(found["tokens"][:index])) for index in range(len(found["tokens"]))]


def test_a_stop_string_is_cut(server: Server, red_square_uri: str) -> None:
    [choice] = complete(server, markdown(red_square_uri) + QUESTION, stop=" red")["choices"]
    assert choice["text"] == "This is a picture of a"
    assert choice["finish_reason"] == "stop"


def test_a_bias_decides(server: Server, red_square_uri: str) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    token = server.post("/tokenize", {"prompt": "red"}).json()["tokens"][0]
    body = {"messages": messages, "max_tokens": 3, "temperature": 0, "logit_bias": {str(token): 100}}
    body["logprobs"] = True
    [choice] = server.post("/v1/chat/completions", body).json()["choices"]
    assert len({entry["token"] for entry in choice["logprobs"]["content"]}) == 1
    banned = {**body, "logit_bias": {str(token): -100}}
    [other] = server.post("/v1/chat/completions", banned).json()["choices"]
    assert choice["logprobs"]["content"][0]["token"] not in [e["token"] for e in other["logprobs"]["content"]]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"prompt": ["a"] * 5}, "batch size exceeded"),
        ({"prompt": "a", "suffix": "b"}, "suffix not supported"),
        ({"prompt": ""}, "validation"),
        ({"prompt": [1, 999_999_999]}, "validation"),
        ({"prompt": "a", "logprobs": 6}, "validation"),
        ({"prompt": "a", "n": 3}, "validation"),
    ],
    ids=["batch", "suffix", "empty", "ids", "logprobs", "n"],
)
def test_refusals(server: Server, fields: Json, kind: str) -> None:
    reply = server.post("/v1/completions", fields)
    assert reply.status_code == 422
    assert reply.json()["error_type"] == kind
