"""openai's newer way to ask, `client.responses`, in 2.x and the newest."""

import json

import openai
from shared import MAX_JSON_TOKENS, MAX_TOKENS, QUESTION, SCHEMA, TOOL, main, refusal

FORMAT = {"format": {"type": "json_schema", "name": "picture", "schema": SCHEMA, "strict": True}}


def asked(image=None):
    """A question, about a picture or without one."""
    if image is None:
        return QUESTION
    picture = {"type": "input_image", "image_url": image, "detail": "auto"}
    return [{"role": "user", "content": [picture, {"type": "input_text", "text": QUESTION}]}]


def options(image=None, **more):
    """What every call has in common."""
    return {"model": "tgi", "input": asked(image), "max_output_tokens": MAX_TOKENS, "temperature": 0, **more}


def client(url):
    """One that never asks twice."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


def respond(url, image=None, **more):
    """One call, whole."""
    return client(url).responses.create(**options(image, **more))


def sync(url, _image):
    """Text alone."""
    return {"text": respond(url).output_text}


def picture(url, image):
    """A picture."""
    return {"text": respond(url, image).output_text}


def stream(url, image):
    """A picture, streamed; the library puts the events together and holds them against the last."""
    pieces = []
    with client(url).responses.stream(**options(image)) as events:
        for event in events:
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
        assert events.get_final_response().output_text == "".join(pieces)
    return {"pieces": pieces}


def structured(url, image):
    """JSON from a picture."""
    return {"value": json.loads(respond(url, image, text=FORMAT, max_output_tokens=MAX_JSON_TOKENS).output_text)}


def tools(url, image):
    """A tool that has to be called, streamed as agents do."""
    offered = [{"type": "function", "strict": True, **TOOL}]
    more = {"tools": offered, "tool_choice": "required", "max_output_tokens": MAX_JSON_TOKENS}
    with client(url).responses.stream(**options(image, **more)) as events:
        call = events.get_final_response().output[0]
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: respond(url, image, temperature=-1))


def valid(url, image):
    """Whether a response has every field of the library's own type, and no value that is not one of its."""
    offered = [{"type": "function", "strict": True, **TOOL}]
    asked = [{}, {"text": FORMAT}, {"tools": offered, "tool_choice": "required"}]
    replies = [respond(url, image, metadata={"a": "b"}, max_output_tokens=MAX_JSON_TOKENS, **more) for more in asked]
    for reply in replies:
        type(reply).model_validate(reply.to_dict(), strict=False)
    return {"ids": [reply.id for reply in replies]}


if __name__ == "__main__":
    calls = {"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error}
    main({**calls, "valid": valid})
