"""Part f: how busy decoding keeps the device, and what arriving pictures do to text streams that run beside them.

The shard is driven step by step, without the router, whose one step ahead hides some of what is seen here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gpu_check.loaded import Loaded, load, picture_prompt, text
from gpu_check.place import Place
from gpu_check.rows import Row
from text_generation_server.plan import EncodeImage, NewSequence, Sampling

STREAMS = 32
EVERY = 10
"""Steps from one picture to the next."""
MAX_RATIO = 1.3


def parts(place: Place) -> Iterator[Row]:
    """Gaps between kernels, then gaps between tokens."""
    loaded = load(place)
    streams = place.pick(STREAMS, 3)
    loaded.prefill({name: text(64, name) for name in range(1, streams + 1)}, together=streams)
    yield gaps_of_the_device(loaded)
    count = place.pick(300, 21)
    alone = [decode(loaded) for _ in range(count)]
    beside = list(beside_pictures(loaded, count))
    first, second = percentile(alone), percentile(beside)
    ratio = second / first
    note = f"P99 {first * 1e3:.3g} ms of text alone, {second * 1e3:.3g} ms with a picture in every {EVERY}th step"
    what = f"time between tokens of {streams} text streams: P99 beside pictures, to that of text alone"
    yield Row(what, f"{ratio:.2f} ×", place.holds(ratio <= MAX_RATIO), f"≤ {MAX_RATIO} ×", note, goal=True)


def gaps_of_the_device(loaded: Loaded) -> Row:
    """How long no kernel ran while steps followed each other."""
    steps = loaded.place.pick(10, 2)
    spans = loaded.place.device_spans(lambda: [loaded.decode() for _ in range(steps)])
    assert spans, "the profiler saw nothing of the device"
    idle, reached = 0.0, spans[0][1]
    for began, ended in spans:
        idle, reached = idle + max(0.0, began - reached), max(reached, ended)
    whole = reached - spans[0][0]
    note = f"{len(spans)} kernels and copies in {steps} steps; the profiler makes the host slower"
    return Row("decoding, one step after another: the device is idle", f"{idle / whole:.0%} of the time", note=note)


def decode(loaded: Loaded) -> float:
    """Seconds of one step of all streams."""
    started = time.perf_counter()
    loaded.decode()
    return time.perf_counter() - started


def beside_pictures(loaded: Loaded, count: int) -> Iterator[float]:
    """Seconds of each step, where some encode a picture and prefill its prompt beside the streams."""
    for index in range(count):
        if index % EVERY:
            yield decode(loaded)
            continue
        name = 5000 + index
        prompt = picture_prompt(loaded.place, name)
        (picture,) = prompt.images.values()
        loaded.shard.images.put(picture)
        row = loaded.driver.chunk(name, prompt, 0, len(prompt.token_ids))
        new = [NewSequence(name, Sampling(), np.empty(0, dtype=np.int64))]
        started = time.perf_counter()
        loaded.decode([row], new_sequences=new, encode_images=[EncodeImage(picture.header.key, 0)])
        yield time.perf_counter() - started
        loaded.driver.step([], forget_sequences=[name], forget_images=[picture.header.key])


def percentile(seconds: list[float], share: float = 0.99) -> float:
    """The time that all but a hundredth stay below."""
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]
