"""Many different streams at once bring what each brings alone: nobody sees a neighbour."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness.calls import Answer, answer, streamed_answer, wait_idle
from harness.launched import Server
from harness.pictures import data_uri, drawing, jpeg, markdown, photo, png
from harness.types import Json

STREAMS = 32
WORDS = "a picture of a red square on a white background and a green circle "


def _pictures() -> list[str]:
    drawings = [data_uri(png(drawing(shape, "red", "black"))) for shape in ("circle", "square", "triangle")]
    return [*drawings, data_uri(jpeg(photo(11, (640, 480))), "image/jpeg")]


def _inputs(number: int, images: list[str]) -> str:
    """Text or image, short or long, by the bits of the number."""
    text = "Describe the image. " + (WORDS * (number + 5) if number & 2 else str(number))
    return markdown(images[number // 4 % len(images)]) + text if number & 1 else text


def _greedy(number: int) -> Json:
    return {"max_new_tokens": 96 if number & 4 else 12}


def _seeded(number: int) -> Json:
    """Warm enough that a shared random number would show, and different for every stream."""
    return {"temperature": 1.5, "top_k": 40 + number, "seed": 1000 + number, "max_new_tokens": 64 if number & 4 else 16}


@pytest.mark.parametrize("parameters", [_greedy, _seeded], ids=["greedy", "seeded"])
def test_streams_equal_themselves_alone(server: Server, parameters: Callable[[int], Json]) -> None:
    images = _pictures()
    requests = [(_inputs(number, images), parameters(number)) for number in range(STREAMS)]

    def stream(request: tuple[str, Json]) -> Answer:
        return streamed_answer(server, request[0], **request[1])

    with ThreadPoolExecutor(STREAMS) as pool:
        together = list(pool.map(stream, requests))
    alone = [answer(server, inputs, **given) for inputs, given in requests]
    assert together == alone
    assert len(set(together)) > STREAMS // 4, "too many equal answers to tell neighbours apart"
    wait_idle(server)
