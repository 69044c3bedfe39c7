"""text-generation 0.7, the client that TGI shipped."""

import json

from shared import MAX_JSON_TOKENS, MAX_TOKENS, PROMPT, QUESTION, SCHEMA, TOOL, main, markdown, refusal
from text_generation import Client
from text_generation.types import Grammar, GrammarType


def sync(url, _image):
    """Text alone."""
    return {"text": Client(url).generate(PROMPT, max_new_tokens=MAX_TOKENS).generated_text}


def picture(url, image):
    """A picture."""
    return {"text": Client(url).generate(markdown(image), max_new_tokens=MAX_TOKENS).generated_text}


def stream(url, image):
    """A picture, streamed."""
    events = list(Client(url).generate_stream(markdown(image), max_new_tokens=MAX_TOKENS))
    pieces = [event.token.text for event in events if not event.token.special]
    return {"pieces": pieces, "text": events[-1].generated_text}


def structured(url, image):
    """JSON from a picture."""
    grammar = Grammar(type=GrammarType.Json, value=SCHEMA)
    reply = Client(url).generate(markdown(image), max_new_tokens=MAX_JSON_TOKENS, grammar=grammar)
    return {"value": json.loads(reply.generated_text)}


def tools(url, _image):
    """A tool that has to be called. This client's chats hold no pictures."""
    answer = Client(url).chat(
        messages=[{"role": "user", "content": QUESTION}],
        tools=[{"type": "function", "function": TOOL}],
        tool_choice=TOOL["name"],
        max_tokens=MAX_JSON_TOKENS,
    )
    call = answer.choices[0].message.tool_calls[0]["function"]
    return {"name": call["name"], "arguments": json.loads(call["arguments"])}


def error(url, _image):
    """A picture that no server may read."""
    return refusal(lambda: Client(url).generate(f"![](file:///etc/passwd){PROMPT}", max_new_tokens=4))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
