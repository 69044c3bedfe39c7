"""pydantic-ai."""

import asyncio
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, BinaryContent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from shared import MAX_JSON_TOKENS, MAX_TOKENS, QUESTION, main, refusal


class Picture(BaseModel):
    """Reports what is in a picture."""

    shape: Literal["square", "circle", "triangle"]
    count: Annotated[int, Field(ge=1, le=5)]


def agent(url, output=str, max_tokens=MAX_TOKENS, **settings):
    """An agent over the server."""
    model = OpenAIChatModel("tgi", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="-"))
    settings = {"temperature": 0, "max_tokens": max_tokens, **settings}
    return Agent(model, output_type=output, model_settings=settings, retries=0)


def asked(image):
    """The question about a picture."""
    return [BinaryContent.from_data_uri(image), QUESTION]


def sync(url, _image):
    """Text alone."""
    return {"text": agent(url).run_sync(QUESTION).output}


def picture(url, image):
    """A picture."""
    return {"text": agent(url).run_sync(asked(image)).output}


def stream(url, image):
    """A picture, streamed."""

    async def pieces():
        async with agent(url).run_stream(asked(image)) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return {"pieces": asyncio.run(pieces())}


def structured(url, image):
    """JSON from a picture."""
    return {"value": agent(url, NativeOutput(Picture), MAX_JSON_TOKENS).run_sync(asked(image)).output.model_dump()}


def tools(url, image):
    """A tool that has to be called."""
    output = ToolOutput(Picture, name="report")
    return {
        "name": "report",
        "arguments": agent(url, output, MAX_JSON_TOKENS).run_sync(asked(image)).output.model_dump(),
    }


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: agent(url, temperature=-1).run_sync(asked(image)))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
