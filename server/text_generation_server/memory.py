"""Where the memory of a device goes, and how many KV blocks are left. Arithmetic alone: others measure.

Whoever is told that a model does not fit learns what it needs, what there is, and which flags of the launcher help.
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHT_FLAGS = "--num-shard shares the model among GPUs, --dtype bfloat16 halves float32"
IMAGE_FLAGS = "lower --max-image-pixels or --max-step-image-tokens"
STEP_FLAGS = "lower --max-batch-prefill-tokens or --max-batch-size"
EMBEDDING_FLAGS = "lower --embedding-cache-tokens"
ROOM_FLAGS = "raise --cuda-memory-fraction, or share the model among more GPUs with --num-shard"
CPU_FLAGS = "raise --cpu-kv-cache-mb"


class NoRoom(Exception):
    """The model, or the work that was promised, does not fit. The text says what would help."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device. Of a CPU only `total` counts: what may be taken for the KV cache."""

    total: int
    fraction: float = 1.0
    """Share of `total` that everybody on the device may have together."""
    others: int = 0
    """What is taken and is not ours: other processes, and what the driver keeps for this one."""
    weights: int = 0
    step: int = 0
    """What the largest step takes at its peak, beside weights and KV cache."""
    images: int = 0
    """What encoding the largest images takes at its peak. Never at the same time as `step`."""
    embeddings: int = 0
    """Of as many image tokens as may stay encoded."""
    graphs: int = 0
    """The pool of captured CUDA graphs."""
    on_cpu: bool = False

    @property
    def allowed(self) -> int:
        """What this shard may have."""
        return int(self.total * self.fraction) - self.others

    @property
    def needed(self) -> int:
        """What it needs before the first KV block."""
        return self.weights + max(self.step, self.images) + self.embeddings + self.graphs

    @property
    def left(self) -> int:
        """For the KV cache; below 0 where not even the rest fits."""
        return self.allowed - self.needed


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """What is asked of the KV cache."""

    bytes_each: int
    tokens_each: int
    most: int = 0
    """Blocks at most; 0: as many as fit."""
    longest: int = 1
    """Tokens of the longest sequence."""

    @property
    def a_sequence(self) -> int:
        """Blocks that the longest sequence takes."""
        return -(-self.longest // self.tokens_each)


def count(memory: Memory, blocks: Blocks) -> int:
    """Blocks that fit, none if not even one does. One more is kept for zeros."""
    fitting = max(0, memory.left // blocks.bytes_each - 1)
    return min(fitting, blocks.most) if blocks.most else fitting


def fit(memory: Memory, blocks: Blocks, smallest: int | None = None) -> int:
    """Blocks that every rank has room for. `smallest` is what the rank with the least room counts.

    Raises:
        NoRoom: there is none, here or there.
    """
    fitting = count(memory, blocks)
    if fitting < 1:
        raise NoRoom(_no_block(memory, blocks))
    if smallest is not None and smallest < 1:
        raise NoRoom("another rank has no room for the KV cache; it says what would help")
    return fitting if smallest is None else smallest


def too_short(memory: Memory, blocks: Blocks, num_blocks: int) -> str | None:
    """What to say where the blocks do not hold the longest sequence, though it may be asked for."""
    if num_blocks >= blocks.a_sequence:
        return None
    if blocks.most and num_blocks >= blocks.most:
        help_ = "it is as --max-batch-total-tokens says"
    else:
        help_ = CPU_FLAGS if memory.on_cpu else f"{_relief(memory)}, {ROOM_FLAGS}"
    held = num_blocks * blocks.tokens_each
    missing = (blocks.a_sequence - num_blocks) * blocks.bytes_each
    return (
        f"the KV cache holds {held} tokens; the longest sequence has {blocks.longest}, which takes {gb(missing)} more: "
        f"lower --max-total-tokens, or {help_}"
    )


def account(memory: Memory, blocks: Blocks, num_blocks: int) -> str:
    """One line for the log."""
    sequences = num_blocks // blocks.a_sequence
    cache = (
        f"KV cache {gb(num_blocks * blocks.bytes_each)}: {num_blocks} blocks of {blocks.tokens_each} tokens, "
        f"{sequences} sequences of {blocks.longest}"
    )
    if memory.on_cpu:
        return f"memory: {cache}"
    of = f"{gb(memory.total)} x {memory.fraction:g}, {gb(memory.others)} taken by others"
    return f"memory: {_parts(memory)}, {cache}; of {of}"


def weights_do_not_fit(weights: int, total: int, free: int) -> str:
    """What to say when memory ran out while weights were read: `weights` are this rank's, as far as is known."""
    there = f"of {gb(total)} {gb(free)} are free now"
    return f"the weights do not fit: about {gb(weights)} are needed, {there}; {WEIGHT_FLAGS}"


def cache_is_refused(memory: Memory, blocks: Blocks, num_blocks: int) -> str:
    """What to say when the device does not give what it said was free: somebody else took it meanwhile."""
    size = gb(num_blocks * blocks.bytes_each)
    return (
        f"{size} for the KV cache were free and cannot be had now; lower --cuda-memory-fraction ({memory.fraction:g})"
    )


def step_does_not_fit(tokens: int, memory: Memory) -> str:
    """What to say when memory ran out in the largest step; `memory.step` is what it had got by then."""
    return _ran_out(f"a step of {tokens} tokens", memory.step, memory, STEP_FLAGS)


def images_do_not_fit(count: int, size: tuple[int, int], memory: Memory) -> str:
    """What to say when memory ran out while the largest images were encoded."""
    return _ran_out(f"encoding {count} of the largest image ({size[0]}x{size[1]})", memory.images, memory, IMAGE_FLAGS)


def gb(count: int) -> str:
    """Decimal gigabytes, as they are sold."""
    return f"{count / 1e9:.2f} GB"


def _ran_out(what: str, taken: int, memory: Memory, flags: str) -> str:
    there = f"beside {gb(memory.weights)} of weights and {gb(memory.others)} of others, of {gb(memory.total)}"
    needs = f"it needs more than the {gb(taken)} it got {there}"
    return f"{what} does not fit: {needs}; {flags}, or use more GPUs (--num-shard)"


def _no_block(memory: Memory, blocks: Blocks) -> str:
    if memory.on_cpu:
        return f"two blocks of the KV cache take {gb(2 * blocks.bytes_each)}, {gb(memory.total)} are there: {CPU_FLAGS}"
    needed = memory.needed + blocks.bytes_each * (blocks.a_sequence + 1)
    return (
        f"nothing is left for the KV cache: {gb(needed)} are needed ({_parts(memory)}, the longest sequence "
        f"{gb(blocks.bytes_each * blocks.a_sequence)}); there are {gb(memory.allowed)}, {gb(memory.total)} x "
        f"{memory.fraction:g} less {gb(memory.others)} taken by others: {_relief(memory)}, {ROOM_FLAGS}"
    )


def _parts(memory: Memory) -> str:
    sizes = {
        "weights": memory.weights,
        "largest step": memory.step,
        "images instead of it": memory.images,
        "embeddings": memory.embeddings,
        "graphs": memory.graphs,
    }
    return ", ".join(f"{name} {gb(size)}" for name, size in sizes.items())


def _relief(memory: Memory) -> str:
    """The flags that govern the largest part that flags govern."""
    work = IMAGE_FLAGS if memory.images > memory.step else STEP_FLAGS
    return EMBEDDING_FLAGS if memory.embeddings > max(memory.step, memory.images) else work
