"""langchain-openai."""

from langchain_openai import ChatOpenAI
from shared import MAX_JSON_TOKENS, MAX_TOKENS, SCHEMA, TOOL, main, messages, refusal


def model(url, max_tokens=MAX_TOKENS, **options):
    """A chat model of the server."""
    options = {"temperature": 0, "max_retries": 0, **options}
    return ChatOpenAI(model="tgi", base_url=f"{url}/v1", api_key="-", max_completion_tokens=max_tokens, **options)


def sync(url, _image):
    """Text alone."""
    return {"text": model(url).invoke(messages()).content}


def picture(url, image):
    """A picture."""
    return {"text": model(url).invoke(messages(image)).content}


def stream(url, image):
    """A picture, streamed."""
    return {"pieces": [chunk.content for chunk in model(url).stream(messages(image))]}


def structured(url, image):
    """JSON from a picture."""
    schema = {"title": "picture", **SCHEMA}
    guided = model(url, MAX_JSON_TOKENS).with_structured_output(schema, method="json_schema")
    return {"value": guided.invoke(messages(image))}


def tools(url, image):
    """A tool that has to be called."""
    bound = model(url, MAX_JSON_TOKENS).bind_tools([{"type": "function", "function": TOOL}], tool_choice="required")
    call = bound.invoke(messages(image)).tool_calls[0]
    return {"name": call["name"], "arguments": call["args"]}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: model(url, temperature=-1).invoke(messages(image)))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
