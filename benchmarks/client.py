"""A closed-loop load client for `/generate_stream`: every stream timed token by token."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Stream:
    """One finished stream. Times in seconds."""

    first_token: float
    total: float
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0


@dataclass
class Load:
    """What a closed loop of streams came to."""

    wall: float
    streams: list[Stream]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all streams over the wall time."""
        return sum(stream.tokens for stream in self.streams) / self.wall

    @property
    def first_token_ms(self) -> float:
        """Median time to the first token."""
        return 1000 * statistics.median(stream.first_token for stream in self.streams)

    @property
    def gap_ms(self) -> float:
        """Median time between two tokens of a stream."""
        return 1000 * statistics.median(gap for stream in self.streams for gap in stream.gaps)


FREE: dict[str, object] = {"ignore_eos": True}
"""Parameters of an answer that has its full length whatever the model says."""


async def stream(
    session: aiohttp.ClientSession, url: str, inputs: str, max_new_tokens: int, more: dict[str, object]
) -> Stream:
    """Sends one request and reads it to its end. Raises on any status but 200 and on an error event."""
    parameters = {"max_new_tokens": max_new_tokens, "do_sample": False, **more}
    start = time.perf_counter()
    stamps: list[float] = []
    body = {"inputs": inputs, "parameters": parameters}
    async with session.post(f"{url}/generate_stream", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data:"):
                stamps.append(time.perf_counter())
                if b'"error"' in line:
                    raise RuntimeError(json.loads(line[5:]))
    gaps = [later - earlier for earlier, later in zip(stamps, stamps[1:], strict=False)]
    return Stream(stamps[0] - start, stamps[-1] - start, gaps, len(stamps))


async def closed_loop(
    url: str, prompts: list[str], concurrency: int, max_new_tokens: int, more: dict[str, object]
) -> Load:
    """Works through `prompts` with `concurrency` streams open at a time."""
    todo = list(reversed(prompts))
    done: list[Stream] = []

    async def worker(session: aiohttp.ClientSession) -> None:
        while todo:
            done.append(await stream(session, url, todo.pop(), max_new_tokens, more))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=1 << 20) as session:
        start = time.perf_counter()
        await asyncio.gather(*[worker(session) for _ in range(concurrency)])
        return Load(time.perf_counter() - start, done)


def load(
    url: str, prompts: list[str], concurrency: int, max_new_tokens: int, more: dict[str, object] | None = None
) -> Load:
    """[`closed_loop`] for callers that are not asynchronous. `more` are parameters instead of `FREE`."""
    return asyncio.run(closed_loop(url, prompts, concurrency, max_new_tokens, FREE if more is None else more))
