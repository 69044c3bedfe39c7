"""openai, 1.x, 2.x and the newest."""

import json

import openai
from shared import MAX_JSON_TOKENS, MAX_TOKENS, SCHEMA, TOOL, main, messages, refusal


def chat(url, image=None, **options):
    """One chat call."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    options = {"max_tokens": MAX_TOKENS, "temperature": 0, **options}
    return client.chat.completions.create(model="tgi", messages=messages(image), **options)


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
    """A tool that has to be called, streamed as agents do."""
    offered = [{"type": "function", "function": TOOL}]
    choice = {"type": "function", "function": {"name": TOOL["name"]}}
    options = {"tools": offered, "tool_choice": choice, "max_tokens": MAX_JSON_TOKENS}
    name, arguments = "", ""
    for chunk in chat(url, image, stream=True, **options):
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    return {"name": name, "arguments": json.loads(arguments)}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: chat(url, image, temperature=-1))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
