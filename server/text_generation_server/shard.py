"""The spine of one rank: load, warm up, step.

A shard computes plans and keeps what the router named: KV blocks, pixels, embeddings, sequences. It decides nothing
about scheduling, and it outlives every failure but the device's own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from text_generation_server import attention, distributed, models, warmup
from text_generation_server.config import ConfigError, PreparedModel, ShardConfig
from text_generation_server.grammar import Grammars
from text_generation_server.images import ImageEncoder, ImageStore
from text_generation_server.kv_cache import KvCache, block_bytes, blocks_that_fit
from text_generation_server.plan import StepPlan, StepResult, WarmupRequest
from text_generation_server.steps import Place, StepRunner
from text_generation_server.threads import MIN_WIDE_TOKENS, Threads
from text_generation_server.weights import Weights

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
            known = prepared.known_to_transformers
            self.model = models.build(
                prepared.model_type, prepared.config, weights, self.ranks, known_to_transformers=known
            )
        self._threads = Threads.choose(config, weights.total_bytes)
        self.attention = attention.choose(config.attention, self.device, self.dtype, self.model.shape.attention)
        self.backend = self.attention.load()
        self.images = ImageStore(config.max_upload_bytes)
        self._like = torch.empty(0, dtype=self.dtype, device=self.device)
        self._encoder = ImageEncoder(self.model, prepared.processor, self.ranks, self._like)
        self._runner: StepRunner | None = None

    @torch.inference_mode()
    def warm_up(self, request: WarmupRequest) -> WarmupResult:
        """Runs the largest step, then gives the KV cache what memory is left."""
        self._check_warm_up(request)
        self._runner = None
        peak_bytes = self._run_largest_step(request)
        bytes_a_block = block_bytes(self.model.shape.attention, request.block_size, self.dtype)
        max_blocks = min(filter(None, (request.max_blocks, self.config.kv_cache_blocks)), default=0)
        fitting = blocks_that_fit(self._kv_budget(request, peak_bytes), bytes_a_block, max_blocks)
        # Every rank must promise the same; the smallest one decides.
        num_blocks = -self.ranks.largest([-fitting], self.device)[0]
        self._runner = self._new_runner(request, num_blocks)
        if self._grammars is not None:
            self._grammars.wait()
        return WarmupResult(num_blocks, num_blocks * bytes_a_block)

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        """Forgets, learns, encodes, computes. Raises only for a broken protocol or a broken device."""
        started = time.perf_counter_ns()
        runner = self._runner_for(plan)
        runner.forget(plan.forget_sequences)
        for key in plan.forget_images:
            self.images.forget(key)
        failures = runner.learn(plan.new_sequences)
        encoding = time.perf_counter_ns()
        if plan.encode_images:
            self._threads.use(wide=True)
            self._encoder.encode(self.images, plan.encode_images)
        computing = time.perf_counter_ns()
        self._threads.use(wide=len(plan.rows.token_ids_T) >= MIN_WIDE_TOKENS)
        computed, failed = runner.run(plan.rows, self.images.find)
        done = time.perf_counter_ns()
        times_us = ((computing - encoding) // 1000, (done - computing) // 1000, (done - started) // 1000)
        return StepResult(plan.epoch, plan.step, computed.sampled, failures + failed, *times_us, computed.scores)

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

    def _check_warm_up(self, request: WarmupRequest) -> None:
        if request.block_size not in self.backend.supported_block_sizes:
            raise PlanRefused(f"block size {request.block_size} is not one of {self.backend.supported_block_sizes}")
        if not 0 < request.max_sequence_tokens <= self.model.shape.max_positions:
            raise PlanRefused(f"a sequence has 1 to {self.model.shape.max_positions} tokens here")
        if request.max_rows < 1 or request.max_step_tokens < 1:
            raise PlanRefused("a step has at least one row and one token")

    def _run_largest_step(self, request: WarmupRequest) -> int:
        """Returns the bytes it took at its peak, weights included; 0 where that limits nothing."""
        warmup.encode_largest(self._encoder, request, self.device)
        rows = warmup.largest_tokens(request, self.device)
        num_blocks = warmup.blocks_for(rows, request.block_size)
        self._runner = self._new_runner(request, num_blocks)
        for plan in warmup.warm_up_plans(rows, request.block_size, self.device):
            failures = self.step(plan).failures
            if failures:
                raise warmup.NoRoom(f"a step of {sum(rows)} tokens cannot be run: {failures[0][1].message}")
        self._runner = None
        if self.device.type == "cpu":
            return 0
        cache_bytes = num_blocks * block_bytes(self.model.shape.attention, request.block_size, self.dtype)
        torch.cuda.empty_cache()
        return torch.cuda.max_memory_allocated(self.device) - cache_bytes

    def _kv_budget(self, request: WarmupRequest, peak_bytes: int) -> int:
        if self.device.type == "cpu":
            return self.config.cpu_kv_cache_bytes
        free, total = torch.cuda.mem_get_info(self.device)
        others = total - free - torch.cuda.memory_reserved(self.device)
        embeddings = request.embedding_cache_tokens * self.model.shape.embedding_width * self.dtype.itemsize
        return int(total * self.config.cuda_memory_fraction) - others - peak_bytes - embeddings


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
