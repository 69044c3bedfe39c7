"""`text-generation-server prepare`: from a model's name to the one file the router reads about it.

Prints the absolute path of that file on standard output and nothing else; progress goes to standard error. The answer
for the model in the package is ready made, and one for a model seen before comes from a cache keyed by content, so
that neither imports transformers. Nothing here loads weights.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from text_generation_server import lifeline, logs

logger = logging.getLogger("text_generation_server.prepare")

EMBEDDED_DIR = Path(__file__).resolve().parent / "embedded"
EMBEDDED_FILE = EMBEDDED_DIR / "prepared.json"
EMBEDDED_MODEL_ID = "text-generation-vlm/embedded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command, for the program that has several."""
    parser.add_argument("--model-id", help="a directory or the name of a Hub repository; absent: the model we ship")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    parser.add_argument("--cache-dir", type=Path, help="where prepared files are kept")
    parser.add_argument("--json-output", action="store_true", help="log lines as JSON")
    parser.add_argument("--parent-pid", type=int, help="end when this process, the parent, ends")


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(prog="text-generation-server prepare", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments), environ)


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Returns the exit status: 1, with one line of reason, when the model cannot be prepared."""
    if arguments.model_id is None:
        sys.stdout.write(f"{EMBEDDED_FILE}\n")
        return 0
    start_logging(json_output=arguments.json_output)
    if arguments.parent_pid is not None:
        # A download goes on for hours; nobody waits for it once the launcher is gone.
        lifeline.die_with(arguments.parent_pid)
        lifeline.watch_stdin()
    cache_dir = arguments.cache_dir or default_cache_dir(environ)
    try:
        with only_stderr():
            path = prepare(arguments.model_id, arguments.revision, cache_dir, log_every_s=log_interval(arguments))
    except Exception as error:  # a model folder can fail in any way; the operator needs the reason, not a trace
        logger.error("cannot prepare %s: %s", arguments.model_id, error)
        logger.debug("trace", exc_info=True)
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    root = environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "text-generation-vlm" / "prepared"


def log_interval(arguments: argparse.Namespace) -> float | None:
    """Seconds between log lines about a download; None to draw bars on the terminal."""
    if arguments.json_output:
        return 0.5
    return None if sys.stderr.isatty() else 5.0


def prepare(model_id: str, revision: str | None, cache_dir: Path, *, log_every_s: float | None = None) -> Path:
    """The prepared file of a model, from the cache when its small files have not changed."""
    from text_generation_server.hub import resolve
    from text_generation_server.model_facts import FORMAT, content_hash, model_facts

    model = resolve(model_id, revision, log_every_s=log_every_s)
    identity = content_hash(model.model_dir)
    name = {"model_id": model_id, "revision": model.revision, "model_dir": str(model.model_dir), "identity": identity}
    path = cache_dir.absolute() / f"{cache_key(name)}.json"
    if path.is_file():
        return path
    logger.info("asking transformers about %s", model_id)
    write_atomically(path, {"format": FORMAT, **name, **model_facts(model.model_dir)})
    return path


def embedded() -> dict[str, object]:
    """What the ready-made file of the model in the package holds."""
    from text_generation_server.model_facts import FORMAT, content_hash, model_facts

    name = {"model_id": EMBEDDED_MODEL_ID, "revision": None, "model_dir": ".", "identity": content_hash(EMBEDDED_DIR)}
    # It was trained on chats only, so plain `inputs` are put to it as one user turn.
    return {"format": FORMAT, **name, "raw_prompt": "chat", **model_facts(EMBEDDED_DIR)}


def cache_key(name: Mapping[str, str | None]) -> str:
    """Everything the prepared file depends on: the model, and the programs that were asked about it."""
    from importlib.metadata import version

    versions = {package: version(package) for package in ("transformers", "tokenizers")}
    code = [(Path(__file__).parent / file).read_text(encoding="utf-8") for file in ("prepare.py", "model_facts.py")]
    return hashlib.sha256(json.dumps([name, versions, code]).encode()).hexdigest()[:32]


def write_atomically(path: Path, content: Mapping[str, object]) -> None:
    """A reader sees the whole file or none, also when two programs prepare the same model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        temporary = Path(file.name)
        try:
            json.dump(content, file, ensure_ascii=False, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def only_stderr() -> Iterator[None]:
    """Whatever a library prints while it is asked must not be taken for the path."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def start_logging(*, json_output: bool) -> None:
    logs.start("info", json_output)
    # The HTTP client logs a line for every request, with its address.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
