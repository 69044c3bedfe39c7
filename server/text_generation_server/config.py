"""What a shard is told at start: flags and the prepared model file, parsed once.

Nothing below this module reads flags or the environment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_UPLOAD_BYTES = 1 << 30
"""Pixels that may wait for their encoding at once, all images together."""

CPU_KV_CACHE_BYTES = 256 << 20
"""KV cache on a CPU, where free memory says nothing about what we may take."""


MAX_WATERMARK_DELTA = 100.0
"""More would leave nothing of the model's own choice."""


MAX_CAPTURED_ROWS = 1 << 16
"""Rows of a step that may be captured."""


class ConfigError(Exception):
    """The flags or the prepared model ask for something this shard cannot do."""


@dataclass(frozen=True, kw_only=True)
class WatermarkConfig:
    """How the texts of sequences that ask for it are marked. The defaults are those of TGI."""

    gamma: float = 0.5
    """Share of the vocabulary that is favoured at each place."""
    delta: float = 2.0
    """What is added to the scores of its tokens."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gamma < 1.0:
            raise ConfigError(f"watermark gamma {self.gamma} is outside (0, 1)")
        if not 0.0 <= self.delta <= MAX_WATERMARK_DELTA:
            raise ConfigError(f"watermark delta {self.delta} is outside 0 to {MAX_WATERMARK_DELTA}")


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """One rank of one model. Paths are local; sizes are in the unit of their name."""

    prepared: Path
    socket: Path
    rank: int = 0
    world_size: int = 1
    master_port: int = 29500
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"
    cuda_memory_fraction: float = 0.9
    cpu_kv_cache_bytes: int = CPU_KV_CACHE_BYTES
    kv_cache_blocks: int = 0
    num_threads: int = 0
    max_upload_bytes: int = MAX_UPLOAD_BYTES
    watermark: WatermarkConfig = WatermarkConfig()
    cuda_graphs: tuple[int, ...] | None = None
    """Batch sizes of decode steps to capture; empty: none; None: a ladder of our choice."""

    def __post_init__(self) -> None:
        if any(not 0 < size <= MAX_CAPTURED_ROWS for size in self.cuda_graphs or ()):
            raise ConfigError(f"a batch size to capture is outside 1 to {MAX_CAPTURED_ROWS}")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is outside world size {self.world_size}")
        if not 0.0 < self.cuda_memory_fraction <= 1.0:
            raise ConfigError(f"cuda memory fraction {self.cuda_memory_fraction} is outside (0, 1]")


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """The part of the prepared model file that concerns shards. The router reads the rest."""

    model_dir: Path
    model_type: str
    config: dict[str, Any]
    processor: dict[str, Any]
    tokenizer: str = "{}"
    """In the `tokenizers` library's own format, as JSON. Only grammars need it."""
    end_tokens: tuple[int, ...] = ()
    """Ids that end an answer."""
    known_to_transformers: bool = False
    """Whether transformers runs this type as an image-text model, with a processor that names its image token."""

    @staticmethod
    def read(path: Path) -> PreparedModel:
        """Reads the file `prepare` wrote. A relative `model_dir` is relative to the file."""
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            return PreparedModel(
                model_dir=path.parent / facts["model_dir"],
                model_type=facts["model_type"],
                config=facts["config"],
                processor=facts.get("processor") or {},
                tokenizer=json.dumps(facts["tokenizer"]),
                end_tokens=tuple(facts.get("eos_token_ids") or ()),
                known_to_transformers=facts.get("image_marks") is not None,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path.name} is not a prepared model: {type(error).__name__} {error}") from error
