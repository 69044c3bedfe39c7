"""Part d: what the device can do at best, and how near a decode step comes to it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gpu_check.loaded import Loaded, load, text
from gpu_check.place import Place
from gpu_check.rows import Row

STEPS = 20
MIN_SHARE = {1: 0.8, 64: 0.65}
"""Of the time that reading alone takes, by rows."""
MAX_OVERHEAD_S = 60e-6


def parts(place: Place) -> Iterator[Row]:
    """Peaks, then steps."""
    bandwidth, peak = copy_bandwidth(place), matmul_peak(place)
    yield Row("copy bandwidth, read and written", f"{bandwidth / 1e12:.3g} TB/s")
    yield Row("matrix product, bf16", f"{peak / 1e12:.3g} TFLOP/s")
    loaded = load(place)
    for rows in (1, place.pick(64, 4)):
        yield from decode_steps(loaded, rows, bandwidth)


def copy_bandwidth(place: Place) -> float:
    """Bytes read and written a second by the copy of a large tensor."""
    source = torch.ones(place.pick(4 << 30, 1 << 20), dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / place.seconds(lambda: target.copy_(source))


def matmul_peak(place: Place) -> float:
    """Operations a second in a product of large square matrices of random numbers."""
    size, count = place.pick(8192, 64), 10
    left, right = (torch.randn(size, size, dtype=place.dtype, device=place.device) for _ in range(2))

    def products() -> None:
        for _ in range(count):
            torch.mm(left, right)

    return count * 2 * size**3 / place.seconds(products)


def decode_steps(loaded: Loaded, rows: int, bandwidth: float) -> Iterator[Row]:
    """Time of a step, how much of it reading takes, and what is not the device's work."""
    place, context = loaded.place, loaded.place.pick(1024, 48)
    together = max(1, loaded.request.max_step_tokens // context)
    loaded.prefill({name: text(context, name) for name in range(1, rows + 1)}, together=together)
    loaded.decode()
    wall = place.seconds(loaded.decode, repeats=place.pick(STEPS, 3))
    device = place.device_seconds(loaded.decode)
    bound = loaded.step_bytes(rows, context) / bandwidth
    share = bound / wall
    label = f"decode step, {rows} rows of {context} tokens"
    least = MIN_SHARE.get(rows, 0.0)
    note = f"one step after another; reading alone takes {bound * 1e3:.3g} ms"
    reached = place.holds(share >= least)
    yield Row(f"{label}: share of the bound by bytes", f"{share:.2f}", reached, f"≥ {least}", note, goal=True)
    overhead = wall - device
    note = f"step {wall * 1e3:.3g} ms, kernels {device * 1e3:.3g} ms (another run, profiled)"
    within = place.holds(overhead < MAX_OVERHEAD_S)
    measured = f"{overhead * 1e3:.3g} ms"
    yield Row(f"{label}: not the device's work", measured, within, f"< {MAX_OVERHEAD_S * 1e3:.2f} ms", note, goal=True)
    loaded.forget()
