"""The gRPC face of a shard.

`Run` has three threads: a reader parses plans, the one compute thread executes them, and the handler only yields
results. That split is what lets a plan wait ready while the one before it computes. Everything that touches the
device runs on the compute thread, so a second stream waits until the first is gone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from text_generation_server import wire
from text_generation_server.images import Image, ImageRejected, Upload, UploadFull
from text_generation_server.memory import NoRoom
from text_generation_server.models import CannotEncode
from text_generation_server.pb import shard_pb2 as pb
from text_generation_server.pb import shard_pb2_grpc
from text_generation_server.plan import StepPlan, StepResult
from text_generation_server.shard import PlanRefused, Shard
from text_generation_server.threads import deep_threads

MAX_MESSAGE_BYTES = 64 << 20
MAX_HANDLERS = 16
"""Each `Run` and each health `Watch` holds one for its lifetime."""
MAX_IMAGE_BYTES = 256 << 20
MAX_QUEUED_PLANS = 4
MAX_QUEUED_RESULTS = 64
STUCK_AFTER_S = 60.0
"""A step this long is reported as not serving; the router has its own, shorter deadline."""

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.ServicerContext"


class CannotListen(Exception):
    """The socket's folder is missing, or not ours."""


@dataclass
class StreamEnd:
    """The last thing a queue holds: why the stream is over, None when the router closed it."""

    error: str | None = None


@dataclass
class RunStream:
    """One `Run` call: its two queues, and whether it was given up."""

    plans: queue.Queue[StepPlan | StreamEnd] = field(default_factory=lambda: queue.Queue(MAX_QUEUED_PLANS))
    results: queue.Queue[StepResult | StreamEnd] = field(default_factory=lambda: queue.Queue(MAX_QUEUED_RESULTS))
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Lets every thread of the stream go, however full or empty its queue is."""
        self.cancelled.set()
        for waiting in (self.plans, self.results):
            _drain(waiting)
            waiting.put(StreamEnd("the stream was given up"))


class Heartbeat:
    """How long the compute thread has been inside one step."""

    def __init__(self) -> None:
        self._entered: float | None = None
        self.failed = False

    def __enter__(self) -> None:
        self._entered = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._entered = None

    def is_healthy(self) -> bool:
        """False after a fatal error, or when a step does not end."""
        entered = self._entered
        return not self.failed and (entered is None or time.monotonic() - entered < STUCK_AFTER_S)


class ShardService(shard_pb2_grpc.ShardServicer):
    """Answers for one `Shard`. `on_fatal` is called when the device is lost."""

    def __init__(self, shard: Shard, on_fatal: Callable[[], None]) -> None:
        self._shard = shard
        self._on_fatal = on_fatal
        # It computes masks too.
        self._compute = deep_threads(1, "compute")
        self._stream: RunStream | None = None
        self._lock = threading.Lock()
        self.heartbeat = Heartbeat()

    def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.ShardInfo:
        """See the proto."""
        return wire.info_message(self._shard)

    def Warmup(self, request: pb.WarmupRequest, context: Context) -> pb.WarmupResult:
        """See the proto. Refused while a stream runs."""
        if self._stream is not None:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "a Run stream is open")
        try:
            return wire.warmup_message(self._compute.submit(self._shard.warm_up, wire.parse_warmup(request)).result())
        except PlanRefused as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except NoRoom as error:
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    def PutImage(self, request_iterator: Iterator[pb.ImageChunk], context: Context) -> pb.PutImageResult:
        """See the proto."""
        if not self._shard.takes_images:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "this model takes no images")
        try:
            self._shard.images.put(_assemble(request_iterator))
        except ImageRejected as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except UploadFull as error:
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return pb.PutImageResult()

    def LayoutImage(self, request: pb.LayoutImageRequest, context: Context) -> pb.LayoutImageResult:
        """See the proto."""
        layouts = self._shard.layouts
        if layouts is None:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, "the router lays out this model's images")
        if not 0 < request.width * request.height * 3 <= MAX_IMAGE_BYTES:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the image is too large, or empty")
        try:
            return wire.layout_message(layouts.pieces(request.width, request.height))
        except CannotEncode:
            return pb.LayoutImageResult(refused=True)

    def Run(self, request_iterator: Iterator[pb.StepPlan], context: Context) -> Iterator[pb.StepResult]:
        """See the proto. The newest stream wins: a router that comes back must not wait for its own ghost."""
        # The router's call returns when headers arrive, and it sends its first plan only after that.
        context.send_initial_metadata(())
        stream = self._open_stream()
        if not context.add_callback(stream.cancel):
            stream.cancel()
        axes = self._shard.model.shape.position_axes
        threading.Thread(target=_read, args=(request_iterator, stream, axes), name="reader", daemon=True).start()
        computing = self._compute.submit(self._execute, stream)
        try:
            while not isinstance(result := stream.results.get(), StreamEnd):
                yield wire.result_message(result)
        finally:
            stream.cancel()
            computing.result()
        if result.error is not None:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, result.error)

    def _open_stream(self) -> RunStream:
        with self._lock:
            if self._stream is not None:
                self._stream.cancel()
                # Now and not when the old stream has ended: by then the new one may have sent pixels.
                self._shard.images.clear()
            self._stream = RunStream()
            return self._stream

    def _execute(self, stream: RunStream) -> None:
        """The compute thread's work for one stream; afterwards nothing of it is left."""
        try:
            self._execute_plans(stream)
        finally:
            stream.results.put(StreamEnd("the step failed"))
            self._shard.reset_sequences()
            self._close_stream(stream)

    def _close_stream(self, stream: RunStream) -> None:
        with self._lock:
            if self._stream is stream:
                self._stream = None
                self._shard.images.clear()

    def _execute_plans(self, stream: RunStream) -> None:
        expected = Expected()
        while not stream.cancelled.is_set():
            plan = stream.plans.get()
            if isinstance(plan, StreamEnd):
                return stream.results.put(plan)
            try:
                expected.check(plan)
                stream.results.put(self._step(plan))
            except PlanRefused as error:
                return stream.results.put(StreamEnd(str(error)))

    def _step(self, plan: StepPlan) -> StepResult:
        try:
            with self.heartbeat:
                return self._shard.step(plan)
        except RuntimeError:
            log.exception("the device failed")
            self.heartbeat.failed = True
            self._on_fatal()
            raise


@dataclass
class Expected:
    """The epoch and step that must come next. The first plan of a stream names its epoch."""

    epoch: int | None = None
    step: int = 0

    def check(self, plan: StepPlan) -> None:
        """Refuses a plan of another epoch, or out of turn."""
        epoch = plan.epoch if self.epoch is None else self.epoch
        if (plan.epoch, plan.step) != (epoch, self.step):
            raise PlanRefused(f"step {plan.step} of epoch {plan.epoch} came in place of {self.step} of {epoch}")
        self.epoch, self.step = epoch, self.step + 1


class Health(health.HealthServicer):
    """The standard service; answers from the heartbeat at the time of asking."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._names = ("", pb.DESCRIPTOR.services_by_name["Shard"].full_name)
        self._update()

    def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """See grpc.health.v1."""
        self._update()
        return super().Check(request, context)

    def _update(self) -> None:
        statuses = health_pb2.HealthCheckResponse
        for name in self._names:
            self.set(name, statuses.SERVING if self._heartbeat.is_healthy() else statuses.NOT_SERVING)


def make_server(shard: Shard, on_fatal: Callable[[], None]) -> grpc.Server:
    """Answers from threads, once it listens."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.server(ThreadPoolExecutor(MAX_HANDLERS, "handler"), options=options)
    service = ShardService(shard, on_fatal)
    shard_pb2_grpc.add_ShardServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(service.heartbeat), server)
    return server


def listen(server: grpc.Server, address: str) -> None:
    """Opens `address` until the server is stopped."""
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {address}: {error}") from error
    server.start()


def _read(messages: Iterator[pb.StepPlan], stream: RunStream, position_axes: int) -> None:
    """The reader thread: parses until the stream ends, one way or another."""
    end = StreamEnd()
    try:
        for message in messages:
            if stream.cancelled.is_set():
                return
            stream.plans.put(wire.parse_plan(message, position_axes))
    except wire.MalformedPlan as error:
        end = StreamEnd(str(error))
    except grpc.RpcError:
        end = StreamEnd("the router is gone")
    stream.plans.put(end)


def _assemble(chunks: Iterator[pb.ImageChunk]) -> Image:
    first = next(chunks, None)
    if first is None or not first.HasField("header"):
        raise ImageRejected("the first piece has no header")
    upload = Upload(wire.parse_header(first.header), MAX_IMAGE_BYTES)
    upload.write(first.offset, first.data)
    for chunk in chunks:
        upload.write(chunk.offset, chunk.data)
    return upload.finish()


def _drain(waiting: queue.Queue[StepPlan | StreamEnd] | queue.Queue[StepResult | StreamEnd]) -> None:
    while True:
        try:
            waiting.get_nowait()
        except queue.Empty:
            return


def _abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("abort raises")
