"""instructor, in its two ways to have an answer of a type."""

from typing import Annotated, Literal

import instructor
import openai
from pydantic import BaseModel, Field
from shared import MAX_JSON_TOKENS, main, messages, refusal


class Picture(BaseModel):
    """Reports what is in a picture."""

    shape: Literal["square", "circle", "triangle"]
    count: Annotated[int, Field(ge=1, le=5)]


def create(url, image, mode, **options):
    """One typed answer."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    options = {"max_tokens": MAX_JSON_TOKENS, "temperature": 0, "max_retries": 0, **options}
    guided = instructor.from_openai(client, mode=mode)
    return guided.chat.completions.create(model="tgi", messages=messages(image), response_model=Picture, **options)


def sync(url, _image):
    """Without a picture, by a schema all the same."""
    return {"value": create(url, None, instructor.Mode.JSON_SCHEMA).model_dump(mode="json")}


def stream(url, image):
    """Piece by piece, each a little more of the value."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    pieces = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(
        model="tgi", messages=messages(image), response_model=Picture, max_tokens=MAX_JSON_TOKENS, temperature=0
    )
    return {"value": list(pieces)[-1].model_dump(mode="json")}


def structured(url, image):
    """By a schema."""
    return {"value": create(url, image, instructor.Mode.JSON_SCHEMA).model_dump(mode="json")}


def tools(url, image):
    """By a named tool."""
    picture = create(url, image, instructor.Mode.TOOLS)
    return {"name": type(picture).__name__, "arguments": picture.model_dump(mode="json")}


def error(url, image):
    """A value out of its range."""
    return refusal(lambda: create(url, image, instructor.Mode.TOOLS, temperature=-1))


if __name__ == "__main__":
    main({"sync": sync, "image": structured, "stream": stream, "json": structured, "tools": tools, "error": error})
