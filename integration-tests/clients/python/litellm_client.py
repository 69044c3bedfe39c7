"""litellm, by its route to Hugging Face endpoints."""

import json
import os

from shared import MAX_JSON_TOKENS, MAX_TOKENS, SCHEMA, TOOL, main, messages, refusal

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for prices when it is imported
import litellm  # noqa: E402


def chat(url, image=None, **options):
    """One chat call."""
    options = {"max_tokens": MAX_TOKENS, "temperature": 0, **options}
    return litellm.completion(model="huggingface/tgi", api_base=url, api_key="-", messages=messages(image), **options)


def sync(url, _image):
    """Text alone."""
    return {"text": chat(url).choices[0].message.content}


def picture(url, image):
    """A picture."""
    return {"text": chat(url, image).choices[0].message.content}


def stream(url, image):
    """A picture, streamed."""
    return {"pieces": [chunk.choices[0].delta.content or "" for chunk in chat(url, image, stream=True)]}


def structured(url, image):
    """JSON from a picture."""
    response_format = {"type": "json_schema", "json_schema": {"name": "picture", "schema": SCHEMA, "strict": True}}
    answer = chat(url, image, response_format=response_format, max_tokens=MAX_JSON_TOKENS)
    return {"value": json.loads(answer.choices[0].message.content)}


def tools(url, image):
    """A tool that has to be called."""
    offered = [{"type": "function", "function": TOOL}]
    answer = chat(url, image, tools=offered, tool_choice="required", max_tokens=MAX_JSON_TOKENS)
    call = answer.choices[0].message.tool_calls[0].function
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: chat(url, image, temperature=-1))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
