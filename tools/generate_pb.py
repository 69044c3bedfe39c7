"""Writes the Python types of `proto/shard.proto`, with stubs: `make proto`. They are committed, because a wheel's build
runs no Python generator; `tools/tidy.py` generates them again and compares."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "text_generation_server/pb"
GENERATED = ("shard_pb2.py", "shard_pb2.pyi", "shard_pb2_grpc.py", "shard_pb2_grpc.pyi")


def generate(into: Path) -> None:
    """Writes the generated files into `into / PACKAGE`.

    The virtual path of the proto file makes generated imports absolute, so that they work inside a package.
    """
    into.mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{into}" for kind in ("mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", f"{PACKAGE}={REPOSITORY / 'proto'}", *outputs]
    plugins = Path(sys.executable).parent
    environment = {"PATH": f"{plugins}:/usr/bin:/bin"}
    subprocess.run([*command, f"{PACKAGE}/shard.proto"], check=True, env=environment, cwd=REPOSITORY)


if __name__ == "__main__":
    generate(REPOSITORY / "server")
