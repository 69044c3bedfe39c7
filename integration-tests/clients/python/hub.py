"""huggingface_hub, 0.25 and the newest."""

import json

from huggingface_hub import InferenceClient, __version__
from shared import MAX_JSON_TOKENS, MAX_TOKENS, PROMPT, SCHEMA, TOOL, main, markdown, messages, refusal

OLD = __version__.startswith("0.")


def native(url, image):
    """As TGI's documentation has it."""
    return {"text": InferenceClient(url).text_generation(markdown(image), max_new_tokens=MAX_TOKENS)}


def native_stream(url, image):
    """Token by token, with details at the end."""
    client = InferenceClient(url)
    events = list(client.text_generation(markdown(image), max_new_tokens=MAX_TOKENS, stream=True, details=True))
    pieces = [event.token.text for event in events if not event.token.special]
    return {"pieces": pieces, "text": events[-1].generated_text, "tokens": events[-1].details.generated_tokens}


def native_json(url, image):
    """A grammar, as the page on vision-language models has it."""
    grammar = {"type": "json", "value": SCHEMA}
    client = InferenceClient(url)
    text = client.text_generation(markdown(image), max_new_tokens=MAX_JSON_TOKENS, grammar=grammar)
    return {"value": json.loads(text)}


def native_error(url, _image):
    """A picture that no server may read."""
    client = InferenceClient(url)
    return refusal(lambda: client.text_generation(f"![](file:///etc/passwd){PROMPT}", max_new_tokens=4))


def chat(url, image=None, **options):
    """One chat call; what is said about it is left to the caller."""
    options = {"max_tokens": MAX_TOKENS, "temperature": 0.0, **options}
    return InferenceClient(url).chat_completion(messages(image), **options)


def sync(url, _image):
    """Text alone."""
    return {"text": chat(url).choices[0].message.content}


def picture(url, image):
    """A picture."""
    return {"text": chat(url, image).choices[0].message.content}


def stream(url, image):
    """A picture, streamed."""
    client = InferenceClient(url)  # A stream ends with its client, so the client needs a name.
    chunks = list(client.chat_completion(messages(image), max_tokens=MAX_TOKENS, temperature=0.0, stream=True))
    return {"pieces": [chunk.choices[0].delta.content or "" for chunk in chunks]}


def structured(url, image):
    """JSON from a picture."""
    if OLD:
        return native_json(url, image)
    response_format = {"type": "json_schema", "json_schema": {"name": "picture", "schema": SCHEMA, "strict": True}}
    answer = chat(url, image, response_format=response_format, max_tokens=MAX_JSON_TOKENS)
    return {"value": json.loads(answer.choices[0].message.content)}


def tools(url, image):
    """A tool that has to be called."""
    choice = {"type": "function", "function": {"name": TOOL["name"]}} if OLD else "required"
    offered = [{"type": "function", "function": TOOL}]
    answer = chat(url, image, tools=offered, tool_choice=choice, max_tokens=MAX_JSON_TOKENS)
    call = answer.choices[0].message.tool_calls[0].function
    arguments = call.arguments
    return {"name": call.name, "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: chat(url, image, top_p=7.0))


if __name__ == "__main__":
    main(
        {
            "native": native,
            "native_stream": native_stream,
            "native_json": native_json,
            "native_error": native_error,
            "sync": sync,
            "image": picture,
            "stream": stream,
            "json": structured,
            "tools": tools,
            "error": error,
        }
    )
