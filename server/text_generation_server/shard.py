"""The spine of one rank: load, warm up, step.

A shard computes plans and keeps what the router named: KV blocks, pixels, embeddings, sequences. It decides nothing
about scheduling, and it outlives every failure but the device's own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch

from text_generation_server import attention, cuda_graphs, distributed, memory, models, warmup
from text_generation_server.config import ConfigError, PreparedModel, ShardConfig
from text_generation_server.grammar import Grammars
from text_generation_server.images import ImageEncoder, ImageStore
from text_generation_server.kv_cache import KvCache, block_bytes
from text_generation_server.memory import Blocks, Memory, NoRoom
from text_generation_server.plan import StepPlan, StepResult, WarmupRequest
from text_generation_server.steps import Place, StepRunner
from text_generation_server.threads import MIN_WIDE_TOKENS, Threads
from text_generation_server.times import Part, now
from text_generation_server.weights import Weights

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class PlanRefused(Exception):
    """A plan or warm-up that cannot be run as a whole: the router and the shard disagree about the protocol."""


@dataclass(frozen=True)
class WarmupResult:
    """What fits beside the weights and the largest step."""

    num_blocks: int
    kv_cache_bytes: int


class Shard:
    """One rank. `warm_up`, `step` and `reset_sequences` belong to one thread; `images` takes uploads from any."""

    @torch.inference_mode()
    def __init__(self, config: ShardConfig, prepared: PreparedModel) -> None:
        self.config = config
        self.model_type = prepared.model_type
        self.device = choose_device(config)
        self.dtype = choose_dtype(config, prepared, self.device)
        # Rank 0 samples for all, and so it alone holds them to grammars.
        self._grammars = Grammars(prepared.tokenizer, prepared.end_tokens) if config.rank == 0 else None
        self.ranks = distributed.join(config.rank, config.world_size, config.master_port, self.device)
        with Weights(prepared.model_dir, self.dtype, self.device) as weights:
            self.model = self._build(prepared, weights)
        self._threads = Threads.choose(config, weights.total_bytes)
        self._meter = warmup.Meter(self.device)
        self.attention = attention.choose(config.attention, self.device, self.dtype, self.model.shape.attention)
        self.backend = self.attention.load()
        self.images = ImageStore(config.max_upload_bytes)
        self._like = torch.empty(0, dtype=self.dtype, device=self.device)
        self._encoder = ImageEncoder(self.model, prepared.processor, self.ranks, self._like)
        self._runner: StepRunner | None = None

    @torch.inference_mode()
    def warm_up(self, request: WarmupRequest) -> WarmupResult:
        """Runs the largest work, then gives the KV cache what memory is left.

        Raises:
            PlanRefused: what is promised cannot be.
            NoRoom: it does not fit into the device's memory.
        """
        self._check_warm_up(request)
        self._runner = None
        blocks, found = self._blocks(request), self._measure(request)
        sizes = self._sizes_to_capture(request)
        found = replace(found, graphs=cuda_graphs.max_bytes(max(0, found.left)) if sizes else 0)
        # Every rank must promise the same; the smallest one decides.
        smallest = -self.ranks.largest([-memory.count(found, blocks)], self.device)[0]
        num_blocks = memory.fit(found, blocks, smallest)
        self._meter.start()
        try:
            self._runner = self._new_runner(request, num_blocks)
        except torch.OutOfMemoryError as error:
            raise NoRoom(memory.cache_is_refused(found, blocks, num_blocks)) from error
        if sizes:
            self._runner.capture(cuda_graphs.RECORDERS[self.device.type](self.device), sizes, found.graphs)
        log.info("%s", memory.account(found, blocks, num_blocks))
        short = memory.too_short(found, blocks, num_blocks)
        if short is not None:
            log.warning("%s", short)
        if self._grammars is not None:
            self._grammars.wait()
        return WarmupResult(num_blocks, num_blocks * blocks.bytes_each)

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        """Forgets, learns, encodes, computes. Raises only for a broken protocol or a broken device."""
        started = now()
        runner = self._runner_for(plan)
        runner.forget(plan.forget_sequences)
        for key in plan.forget_images:
            self.images.forget(key)
        failures = runner.learn(plan.new_sequences)
        encoding = now()
        if plan.encode_images:
            self._threads.use(wide=True)
            self._encoder.encode(self.images, plan.encode_images)
        computing = now()
        self._threads.use(wide=len(plan.rows.token_ids_T) >= MIN_WIDE_TOKENS)
        computed, failed = runner.run(plan.rows, self.images.find)
        done = now()
        times_us = ((computing - encoding) // 1000, (done - computing) // 1000, (done - started) // 1000)
        if plan.times is not None:
            waiting = runner.waiting_ns if runner.waiting_ns > computing else done
            encoded = computing if plan.encode_images else encoding
            ends = ((Part.LEARN, encoding), (Part.ENCODE, encoded), (Part.LAUNCH, waiting), (Part.WAIT, done))
            plan.times.add_chain(started, *ends)
        said = (computed.sampled, failures + failed, *times_us, computed.scores, plan.times)
        return StepResult(plan.epoch, plan.step, *said)

    @property
    def takes_images(self) -> bool:
        """Whether the model has a vision encoder."""
        return self._encoder.takes_images

    @property
    def layouts(self) -> models.CountsImages | None:
        """Who lays images out, for a model of which the router cannot. May be asked by any thread."""
        return self.model if isinstance(self.model, models.CountsImages) else None

    def reset_sequences(self) -> None:
        """Drops every sequence, as if just warmed up. Images have their own `clear`."""
        if self._runner is not None:
            self._runner.reset()

    def _runner_for(self, plan: StepPlan) -> StepRunner:
        if self._runner is None:
            raise PlanRefused("the shard is not warmed up")
        most = self._runner.request
        num_rows, num_tokens = len(plan.rows.sequences), len(plan.rows.token_ids_T)
        if num_rows > most.max_rows or num_tokens > most.max_step_tokens:
            raise PlanRefused(
                f"{num_rows} rows, {num_tokens} tokens; promised: {most.max_rows}, {most.max_step_tokens}"
            )
        return self._runner

    def _new_runner(self, request: WarmupRequest, num_blocks: int) -> StepRunner:
        kv_cache = KvCache(self.model.shape.attention, num_blocks, request.block_size, self._like)
        place = Place(self.ranks, self.backend, self._grammars, self.config.watermark)
        return StepRunner(self.model, place, request, kv_cache)

    def _sizes_to_capture(self, request: WarmupRequest) -> list[int]:
        sizes = cuda_graphs.ladder(self.config.cuda_graphs, request.max_rows)
        obstacle = self._obstacle_to_graphs()
        # On a CPU nobody expects any.
        if sizes and obstacle is not None and (self.config.cuda_graphs or self.device.type != "cpu"):
            log.info("CUDA graphs: none, %s", obstacle)
        return sizes if obstacle is None else []

    def _obstacle_to_graphs(self) -> str | None:
        if self.device.type not in cuda_graphs.RECORDERS:
            return f"{self.device.type} captures nothing"
        if not self.backend.can_be_captured:
            return f"attention backend {self.attention.name} cannot be captured"
        return None if self.model.shape.can_be_captured else "the modules of this model cannot be captured"

    def _check_warm_up(self, request: WarmupRequest) -> None:
        if request.block_size not in self.backend.supported_block_sizes:
            raise PlanRefused(f"block size {request.block_size} is not one of {self.backend.supported_block_sizes}")
        if not 0 < request.max_sequence_tokens <= self.model.shape.max_positions:
            raise PlanRefused(f"a sequence has 1 to {self.model.shape.max_positions} tokens here")
        if request.max_rows < 1 or request.max_step_tokens < 1:
            raise PlanRefused("a step has at least one row and one token")

    def _build(self, prepared: PreparedModel, weights: Weights) -> models.Model:
        known = prepared.known_to_transformers
        try:
            return models.build(prepared.model_type, prepared.config, weights, self.ranks, known_to_transformers=known)
        except torch.OutOfMemoryError as error:
            free, total = torch.cuda.mem_get_info(self.device)
            share = weights.total_bytes // self.ranks.world_size
            raise NoRoom(memory.weights_do_not_fit(share, total, free)) from error

    def _blocks(self, request: WarmupRequest) -> Blocks:
        return Blocks(
            bytes_each=block_bytes(self.model.shape.attention, request.block_size, self.dtype),
            tokens_each=request.block_size,
            most=min(filter(None, (request.max_blocks, self.config.kv_cache_blocks)), default=0),
            longest=request.max_sequence_tokens,
        )

    def _measure(self, request: WarmupRequest) -> Memory:
        """Does the largest work, images first, and tells what it took. A CPU has no memory to divide."""
        weights = self._meter.start()
        found = Memory(total=self.config.cpu_kv_cache_bytes, on_cpu=True)
        if not self._meter.on_cpu:
            total, others = self._meter.total_and_others()
            fraction, width = self.config.cuda_memory_fraction, self.model.shape.embedding_width
            embeddings = request.embedding_cache_tokens * width * self.dtype.itemsize
            found = Memory(total=total, fraction=fraction, others=others, weights=weights, embeddings=embeddings)
        found = replace(found, images=self._encode_largest(request, found))
        found = replace(found, step=self._run_largest_step(request, found))
        if self._meter.on_cpu:
            return found
        # Kernels and libraries that were loaded meanwhile are nobody's tensors.
        return replace(found, others=self._meter.total_and_others()[1])

    def _encode_largest(self, request: WarmupRequest, found: Memory) -> int:
        """Bytes it takes at its peak."""
        count, largest = warmup.largest_images(request, self.device), request.largest_image
        if largest is None or not count or not self.takes_images:
            return 0
        before = self._meter.start()
        try:
            warmup.encode_largest(self._encoder, largest, count)
        except torch.OutOfMemoryError as error:
            found = replace(found, images=self._meter.peak() - before)
            size = (largest.original.width, largest.original.height)
            raise NoRoom(memory.images_do_not_fit(count, size, found)) from error
        return self._meter.peak() - before

    def _run_largest_step(self, request: WarmupRequest, found: Memory) -> int:
        """Bytes it takes at its peak, beside its keys and values."""
        rows = warmup.largest_tokens(request, self.device)
        plans = list(warmup.warm_up_plans(rows, request.block_size, self.device))
        if not self._meter.on_cpu:
            plans.append(warmup.crowded_plan(request, step=len(plans)))
        num_blocks = max(int(plan.rows.num_new_blocks_R.sum()) for plan in plans)
        before = self._meter.start()
        try:
            self._runner = self._new_runner(request, num_blocks)
            for plan in plans:
                for _, failure in self.step(plan).failures:
                    warmup.raise_failure(failure, f"a step of {sum(rows)} tokens cannot be run")
        except torch.OutOfMemoryError as error:
            found = replace(found, step=self._meter.peak() - before)
            raise NoRoom(memory.step_does_not_fit(sum(rows), found)) from error
        finally:
            self._runner = None
        cache_bytes = num_blocks * block_bytes(self.model.shape.attention, request.block_size, self.dtype)
        return max(0, self._meter.peak() - before - cache_bytes)


def choose_device(config: ShardConfig) -> torch.device:
    """One GPU a rank where there is one, unless the flags say otherwise."""
    if config.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {config.device} is not auto, cpu or cuda")
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if config.rank >= torch.cuda.device_count():
        raise ConfigError(f"rank {config.rank} has no GPU; there are {torch.cuda.device_count()}")
    device = torch.device("cuda", config.rank)
    torch.cuda.set_device(device)
    return device


def choose_dtype(config: ShardConfig, prepared: PreparedModel, device: torch.device) -> torch.dtype:
    """The checkpoint's own on a GPU. On a CPU float16 is slow, so that becomes float32; bfloat16 stays."""
    if config.dtype != "auto":
        if config.dtype not in DTYPES:
            raise ConfigError(f"dtype {config.dtype} is not one of auto, {', '.join(DTYPES)}")
        return DTYPES[config.dtype]
    text = prepared.config.get("text_config", {})
    named = next((c[k] for c in (prepared.config, text) for k in ("dtype", "torch_dtype") if c.get(k)), "float32")
    dtype = DTYPES.get(named, torch.float32)
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype
