"""llama-index, by its client of servers that speak OpenAI's API."""

from typing import Annotated, Literal

from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field
from shared import MAX_JSON_TOKENS, MAX_TOKENS, QUESTION, main, refusal


class Picture(BaseModel):
    """Reports what is in a picture."""

    shape: Literal["square", "circle", "triangle"]
    count: Annotated[int, Field(ge=1, le=5)]


def model(url, max_tokens=MAX_TOKENS, **options):
    """A model of the server."""
    options = {"temperature": 0, "max_retries": 0, **options}
    return OpenAILike(
        model="tgi",
        api_base=f"{url}/v1",
        api_key="-",
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=max_tokens,
        **options,
    )


def asked(image=None):
    """The question, about a picture or without one."""
    blocks = [TextBlock(text=QUESTION)]
    return [ChatMessage(role="user", blocks=[ImageBlock(url=image), *blocks] if image else blocks)]


def sync(url, _image):
    """Text alone."""
    return {"text": model(url).chat(asked()).message.content}


def picture(url, image):
    """A picture."""
    return {"text": model(url).chat(asked(image)).message.content}


def stream(url, image):
    """A picture, streamed."""
    return {"pieces": [chunk.delta or "" for chunk in model(url).stream_chat(asked(image))]}


def structured(url, image):
    """JSON from a picture."""
    llm = model(url, MAX_JSON_TOKENS, should_use_structured_outputs=True).as_structured_llm(Picture)
    return {"value": llm.chat(asked(image)).raw.model_dump()}


def tools(url, image):
    """A tool that has to be called."""
    tool = FunctionTool.from_defaults(fn=lambda shape, count: None, name="report", fn_schema=Picture)
    llm = model(url, MAX_JSON_TOKENS)
    answer = llm.chat_with_tools([tool], chat_history=asked(image), tool_required=True)
    call = llm.get_tool_calls_from_response(answer)[0]
    return {"name": call.tool_name, "arguments": call.tool_kwargs}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: model(url, additional_kwargs={"top_p": 7}).chat(asked(image)))


if __name__ == "__main__":
    main({"sync": sync, "image": picture, "stream": stream, "json": structured, "tools": tools, "error": error})
