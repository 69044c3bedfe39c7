"""From a model's name to a folder of files: a directory as it is, or a snapshot of the Hub.

Only what serving needs is downloaded: settings, tokenizer, chat template and safetensors weights at the top of the
repository. Pickled weights are refused, never converted. `huggingface_hub` reads `HF_TOKEN`, `HF_HOME` and
`HF_HUB_OFFLINE` itself; nothing here looks at the environment.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import DryRunFileInfo
    from huggingface_hub.utils.tqdm import tqdm

logger = logging.getLogger(__name__)

SETTINGS = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken")
WEIGHTS = ("*.safetensors",)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX_FILE = "model.safetensors.index.json"
# A second copy of the weights in another layout (`consolidated`), and files for other programs.
SKIPPED = ("consolidated*", "*/*", "optimizer*", "training_args*")
# The cache names a large file by the hash the Hub gives for it.
SHA256 = re.compile(r"[0-9a-f]{64}")
# Asking what there is takes no time worth a line.
QUIET_S = 3600.0


class ModelUnavailable(Exception):
    """A model that cannot be served, with a reason an operator can act on."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """Where a model's files are, and what they are called."""

    model_id: str
    revision: str | None
    """The commit of a Hub snapshot; None for a plain directory."""
    model_dir: Path


def resolve(model_id: str, revision: str | None = None, *, log_every_s: float | None = None) -> ResolvedModel:
    """The folder of `model_id`, downloaded first when it is the name of a Hub repository.

    Progress is drawn as bars, or logged every `log_every_s` seconds when that is given.

    Raises ModelUnavailable: no such model, no access, no safetensors weights, or not enough space.
    """
    directory = Path(model_id).expanduser()
    if directory.is_dir():
        model = ResolvedModel(model_id=model_id, revision=revision, model_dir=directory.resolve())
    elif looks_like_path(model_id):
        raise ModelUnavailable(f"the model directory {model_id} does not exist")
    else:
        model = download(model_id, revision, log_every_s)
    check_files(model)
    return model


def looks_like_path(model_id: str) -> bool:
    return model_id.startswith(("/", "./", "../", "~")) or model_id.count("/") > 1


def check_files(model: ResolvedModel) -> None:
    """Raises ModelUnavailable unless the folder has a config.json and safetensors weights."""
    if not (model.model_dir / "config.json").is_file():
        raise ModelUnavailable(f"{model.model_id} has no config.json: it is not a transformers model")
    if not any(model.model_dir.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in PICKLED for path in model.model_dir.glob(pattern))
        raise ModelUnavailable(no_safetensors(model.model_id, pickled))


def no_safetensors(model_id: str, pickled: list[str]) -> str:
    if pickled:
        found = f"only pickled weights ({pickled[0]})"
        return f"{model_id} has {found}, which can run code when loaded; convert them to safetensors"
    return f"{model_id} has no safetensors weights"


def download(model_id: str, revision: str | None, log_every_s: float | None) -> ResolvedModel:
    from huggingface_hub.errors import DryRunError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        model_dir = snapshot(model_id, revision, log_every_s)
    except HFValidationError as error:
        raise ModelUnavailable(f"{model_id} is neither a directory nor the name of a Hub repository") from error
    except DryRunError as error:
        model_dir = cached_after(model_id, revision, error.__cause__)
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(f"{model_id} is not in the local cache, and the Hub was not asked") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelUnavailable(f"cannot download {model_id}: {first_line(error)}") from error
    return ResolvedModel(model_id=model_id, revision=model_dir.name, model_dir=model_dir)


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def snapshot(model_id: str, revision: str | None, log_every_s: float | None) -> Path:
    """Downloads what is missing; the last part of the answer is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return cached(model_id, revision)
    files = plan(model_id, revision)
    num_bytes = sum(file.file_size or 0 for file in files if file.will_download)
    logger.info("%s: %s to download", model_id, readable(num_bytes))
    folder = snapshot_download(
        model_id,
        revision=files[0].commit_hash,
        allow_patterns=[file.filename for file in files],
        tqdm_class=None if log_every_s is None else progress_log(model_id, num_bytes, log_every_s),
    )
    check_hashes(model_id, [Path(folder) / file.filename for file in files if file.will_download])
    check_index(model_id, Path(folder))
    return Path(folder)


def check_hashes(model_id: str, paths: Sequence[Path]) -> None:
    """Raises ModelUnavailable when a file is not what the Hub says it is, and removes it, so that it is fetched anew.

    The library itself compares lengths only.
    """
    for path in paths:
        blob = path.resolve()
        if SHA256.fullmatch(blob.name) and sha256(blob) != blob.name:
            blob.unlink()
            path.unlink()
            raise ModelUnavailable(f"{path.name} of {model_id} came damaged and was removed; start again to fetch it")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_index(model_id: str, folder: Path) -> None:
    """Raises ModelUnavailable when the repository lacks a file that its own index names."""
    index = folder / INDEX_FILE
    named = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values() if index.is_file() else ()
    missing = sorted({name for name in named if not (folder / str(name)).is_file()})
    if missing:
        raise ModelUnavailable(f"{model_id} lacks {missing[0]}, which its {INDEX_FILE} names")


def cached(model_id: str, revision: str | None) -> Path:
    """The snapshot that is here already, if it is complete."""
    from huggingface_hub import snapshot_download

    wanted = [*SETTINGS, *WEIGHTS]
    folder = snapshot_download(
        model_id, revision=revision, allow_patterns=wanted, ignore_patterns=list(SKIPPED), local_files_only=True
    )
    return Path(folder)


def cached_after(model_id: str, revision: str | None, cause: BaseException | None) -> Path:
    """The snapshot that is here already, because the Hub did not say what it has."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = cached(model_id, revision)
    except LocalEntryNotFoundError as error:
        if isinstance(cause, RepositoryNotFoundError | GatedRepoError):
            reason = "the Hub shows no such repository; private and gated ones need HF_TOKEN"
        else:
            reason = "it is not in the local cache and the Hub cannot be reached"
        raise ModelUnavailable(f"cannot download {model_id}: {reason}") from error
    logger.warning("the Hub did not answer; %s is served as it was last downloaded", model_id)
    return folder


def plan(model_id: str, revision: str | None) -> list[DryRunFileInfo]:
    """The files to have, after refusing a repository without safetensors before anything large is fetched."""
    from huggingface_hub import snapshot_download

    files = snapshot_download(
        model_id,
        revision=revision,
        allow_patterns=[*SETTINGS, *WEIGHTS, *PICKLED],
        ignore_patterns=list(SKIPPED),
        dry_run=True,
        tqdm_class=progress_log(model_id, 0, QUIET_S),
    )
    pickled = [file.filename for file in files if file.filename.endswith(tuple(name[1:] for name in PICKLED))]
    wanted = [file for file in files if file.filename not in pickled]
    if not any(file.filename.endswith(".safetensors") for file in wanted):
        raise ModelUnavailable(no_safetensors(model_id, pickled))
    return wanted


def progress_log(model_id: str, num_bytes: int, seconds: float) -> type[tqdm]:
    """A progress bar that writes log lines instead, each with a `progress` field for programs that draw."""
    from huggingface_hub.utils.tqdm import tqdm

    class ProgressLog(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options |= {"file": Nowhere(), "mininterval": seconds, "disable": False}
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]

        def display(self, *_: Any, **__: Any) -> None:
            done = int(self.n)
            # The library has more bars than one; this is the one that counts bytes on disk.
            if done and self.unit == "B" and str(self.desc).startswith("Reconstruct"):
                total = max(num_bytes, done)
                progress = {"what": model_id, "done": done, "total": total}
                message = f"downloading {model_id}: {readable(done)} of {readable(total)}"
                logger.info(message, extra={"progress": progress})

    return ProgressLog


class Nowhere:
    """What a progress bar may write to that is not to be seen."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def readable(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
