"""The program: `serve` runs one rank, `prepare` asks transformers once what a model's text side is.

The only module that reads flags and the environment.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from text_generation_server import lifeline, logs
from text_generation_server.config import (
    CPU_KV_CACHE_BYTES,
    ConfigError,
    PreparedModel,
    ShardConfig,
    WatermarkConfig,
)

if TYPE_CHECKING:
    import grpc

SWITCH_INTERVAL_S = 0.0002
"""The reader and the handler must get the interpreter while the compute thread launches kernels."""

log = logging.getLogger("text_generation_server")


def main() -> NoReturn:
    """Entry point of `text-generation-server` and of `python -m text_generation_server`."""
    if sys.argv[1:2] == ["prepare"]:
        # Imported here because it is a different program in all but name.
        from text_generation_server.prepare import main as prepare

        sys.exit(prepare(sys.argv[2:], os.environ))
    sys.exit(serve(_parser().parse_args()))


def serve(flags: argparse.Namespace) -> int:
    """Loads, listens, and waits for the end. Returns the exit status."""
    logs.start(flags.log_level, flags.json_output)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Importing torch makes millions of objects that live forever; looking through them takes a fifth of the start.
    gc.disable()
    try:
        if flags.parent_pid is not None:
            lifeline.die_with(flags.parent_pid)
            lifeline.watch_stdin()
        return _serve(_config(flags))
    except (ConfigError, lifeline.Orphaned) as error:
        log.error("%s", error)
        return 2


def _serve(config: ShardConfig) -> int:
    prepared = PreparedModel.read(config.prepared)
    # torch takes seconds to import; bad flags and `--help` should not.
    from text_generation_server.attention import UnknownBackend, UnsuitableBackend
    from text_generation_server.distributed import RanksApart, leave
    from text_generation_server.layers.linear import ShapeError
    from text_generation_server.memory import NoRoom
    from text_generation_server.models import UnsupportedModel
    from text_generation_server.service import CannotListen, listen, make_server
    from text_generation_server.shard import Shard
    from text_generation_server.weights import WeightError

    try:
        shard = Shard(config, prepared)
        gc.freeze()
        gc.enable()
        server = make_server(shard, on_fatal=_give_up)
        # Before anybody can see the socket, so that whoever does can also end us properly.
        terminated = _stop_on_sigterm(server)
        listen(server, f"unix:{config.socket}")
    except (
        WeightError,
        UnsupportedModel,
        ShapeError,
        UnknownBackend,
        UnsuitableBackend,
        RanksApart,
        CannotListen,
        NoRoom,
    ) as error:
        raise ConfigError(str(error)) from error
    if terminated.is_set():
        server.stop(grace=None)
    log.info("rank %d of %d serves %s on %s", config.rank, config.world_size, prepared.model_type, shard.device)
    log.info("attention backend %s: %s", shard.attention.name, shard.attention.reason)
    server.wait_for_termination()
    leave()
    return 0


def _stop_on_sigterm(server: grpc.Server) -> threading.Event:
    """Returns what tells that the signal came, also to a server that had not started yet."""
    terminated = threading.Event()

    def stop(*_: object) -> None:
        terminated.set()
        server.stop(grace=None)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return terminated


def _give_up() -> NoReturn:
    # Nothing on a lost device can be put right, and a clean exit might wait for it.
    os._exit(1)


def _config(flags: argparse.Namespace) -> ShardConfig:
    return ShardConfig(
        prepared=flags.prepared,
        socket=flags.socket,
        rank=flags.rank,
        world_size=flags.world_size,
        master_port=flags.master_port,
        dtype=flags.dtype,
        device=flags.device,
        attention=flags.attention,
        cuda_memory_fraction=flags.cuda_memory_fraction,
        cpu_kv_cache_bytes=flags.cpu_kv_cache_mb << 20,
        kv_cache_blocks=flags.kv_cache_blocks,
        num_threads=flags.num_threads,
        watermark=WatermarkConfig(gamma=flags.watermark_gamma, delta=flags.watermark_delta),
        cuda_graphs=flags.cuda_graphs,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-generation-server", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("prepare", help="write the file the router and `serve` read about a model")
    _add_serve_flags(commands.add_parser("serve", help="run one tensor-parallel rank"))
    return parser


def _add_serve_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prepared", type=Path, required=True, help="the file `prepare` wrote")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--master-port", type=int, default=29500, help="loopback port where ranks meet")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "float16", "bfloat16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--attention", default="auto", help="attention backend")
    parser.add_argument("--cuda-memory-fraction", type=float, default=0.9, help="of the GPU, weights included")
    sizes = "batch sizes to capture as CUDA graphs, with commas between; 0: none"
    parser.add_argument("--cuda-graphs", type=_sizes, metavar="SIZES", help=sizes)
    parser.add_argument("--cpu-kv-cache-mb", type=int, default=CPU_KV_CACHE_BYTES >> 20, help="KV cache on a CPU")
    parser.add_argument("--kv-cache-blocks", type=int, default=0, help="KV blocks at most; 0: what memory allows")
    parser.add_argument("--num-threads", type=int, default=0, help="compute threads on a CPU; 0: torch decides")
    marks = WatermarkConfig()
    parser.add_argument("--watermark-gamma", type=float, default=marks.gamma, help="share of tokens it favours")
    parser.add_argument("--watermark-delta", type=float, default=marks.delta, help="added to the scores of those")
    parser.add_argument("--parent-pid", type=int, help="end when this process, the parent, ends")
    parser.add_argument("--json-output", action="store_true", help="log lines as JSON")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def _sizes(text: str) -> tuple[int, ...]:
    """A zero says none, as in TGI, and says nothing beside others."""
    return tuple(size for size in map(int, text.split(",")) if size != 0)


if __name__ == "__main__":
    main()
