"""Where a part runs, and how it takes the time there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Place:
    """A GPU with real shapes, or a CPU with tiny ones, where no bound means anything."""

    tiny: bool
    launcher: str = ""
    """The program of this name, where somebody built it; parts that need the router are left out without it."""

    @property
    def device(self) -> torch.device:
        """The first GPU, or the CPU."""
        return torch.device("cpu") if self.tiny else torch.device("cuda", 0)

    @property
    def dtype(self) -> torch.dtype:
        """What models are served in."""
        return torch.float32 if self.tiny else torch.bfloat16

    def pick(self, real: int, tiny: int) -> int:
        """A size."""
        return tiny if self.tiny else real

    def holds(self, condition: bool) -> bool | None:
        """Whether a bound was reached; nothing in a dry run."""
        return None if self.tiny else condition

    def wait(self) -> None:
        """Returns when the device has done everything."""
        if not self.tiny:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], repeats: int = 5) -> float:
        """Wall time of one run, median, the device's work included; one run before it does not count."""
        times = []
        for _ in range(repeats + 1):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def device_seconds(self, run: Callable[[], object]) -> float:
        """How long kernels and copies kept the device busy, side by side counted twice; on a CPU simply the time."""
        if self.tiny:
            return self.seconds(run, repeats=1)
        return sum(stop - start for start, stop in self.device_spans(run))

    def host_calls(self, run: Callable[[], object]) -> set[str]:
        """Names of what the host called in a run: operators, and calls of the CUDA runtime."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [] if self.tiny else [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            run()
            self.wait()
        return {event.name for event in profile.events() or []}

    def device_spans(self, run: Callable[[], object]) -> list[tuple[float, float]]:
        """When the device worked in a run, in seconds, in order of the beginnings. Of a CPU: its operators."""
        activities = [torch.profiler.ProfilerActivity.CPU if self.tiny else torch.profiler.ProfilerActivity.CUDA]
        self.wait()
        with torch.profiler.profile(activities=activities) as profile:
            run()
            self.wait()
        kind = "CPU" if self.tiny else "CUDA"
        events = [event.time_range for event in profile.events() or [] if event.device_type.name == kind]
        return sorted((span.start / 1e6, span.end / 1e6) for span in events)
