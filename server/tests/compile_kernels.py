"""Compiles our kernels to machine code of real GPUs. Needs none: Triton brings its assembler.

A program of its own, because a process that interprets kernels cannot compile them. Prints a line for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from text_generation_server.attention.kernels import attend_kernel, join_kernel, store_kernel
from text_generation_server.layers.kernels import gate_kernel, norm_kernel, normalise_kernel

POINTERS = {
    "slots": "*i64",
    "pixels": "*u8",
    **dict.fromkeys(("scales", "shifts"), "*fp32"),
    **dict.fromkeys(("partial", "partial_max", "partial_sum"), "*fp32"),
    **dict.fromkeys(("tile_rows", "tile_offsets", "first_tokens", "counts", "starts", "blocks"), "*i32"),
    **dict.fromkeys(("range_firsts", "range_ends"), "*i32"),
}
MAX_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
"""What a block may have on an A100 and on an H100."""


def variants() -> Iterator[tuple[Any, dict[str, Any], str]]:
    """Kernel, constants, and the type of heads and cache."""
    for head_dim, dtype in ((64, "fp16"), (80, "bf16"), (128, "bf16"), (256, "bf16"), (64, "fp32")):
        width = triton.next_power_of_2(head_dim)
        heads = {"NUM_HEADS": 8, "NUM_KV_HEADS": 2, "SIZE_H": 8, "SIZE_E": width // 2, "ROTATE": True}
        yield store_kernel, {"HEAD_DIM": head_dim} | heads, dtype
        yield join_kernel, {"HEAD_DIM": head_dim, "SIZE_D": width, "SPLITS": 8}, dtype
        shared = {"GROUP": 4, "HEAD_DIM": head_dim, "BLOCK_SIZE": 16, "SIZE_L": 64, "SIZE_D": width, "WIDEN": False}
        shared["MIN_TURNS"] = 4
        plain = {"SOFTCAP": False, "RANGES": False, "RANGES_FIRST": False}
        everything = {"SOFTCAP": True, "RANGES": True, "RANGES_FIRST": head_dim == 256}
        yield attend_kernel, shared | plain | {"SIZE_M": 16, "TOKENS": 1, "SPLITS": 8}, dtype
        yield attend_kernel, shared | everything | {"SIZE_M": 64, "TOKENS": 16, "SPLITS": 1}, dtype
    for activation in range(3):
        yield gate_kernel, {"SIZE_E": 1024, "ACTIVATION": activation}, "bf16"
    for size in (64, 8192):
        yield norm_kernel, {"SIZE_H": size, "ADDED": size > 64}, "bf16"
    yield normalise_kernel, {"SIZE_E": 1024}, "bf16"


def signature(kernel: Any, constants: Mapping[str, Any], dtype: str) -> dict[str, str]:  # noqa: ANN401
    """A type for each argument, in the kernel's own order."""
    names = ("q", "keys", "values", "output", "heads", "table", "hidden", "added", "weight", "total", "gate_up")
    numbers = dict.fromkeys(("scale", "softcap", "eps"), "fp32")
    types = dict.fromkeys(names, f"*{dtype}") | POINTERS | numbers | dict.fromkeys(constants, "constexpr")
    return {name: types.get(name, "i32") for name in kernel.arg_names}


def main() -> None:
    """Raises for the first kernel that does not compile, or wants more shared memory than there is."""
    for capability, most in MAX_SHARED_BYTES.items():
        for kernel, constants, dtype in variants():
            types = signature(kernel, constants, dtype)
            numbered = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
            source = ASTSource(fn=kernel, signature=types, constexprs=numbered)
            done = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            if done.metadata.shared > most:
                raise SystemExit(f"{kernel.__name__} wants {done.metadata.shared} bytes of shared memory: {constants}")
            size = len(done.asm["cubin"])
            print(f"sm_{capability} {kernel.__name__} {constants} {dtype} {size} {done.metadata.shared}")  # noqa: T201


if __name__ == "__main__":
    main()
