"""From a model's name to a folder of files: a directory as it is, or a snapshot of the Hub.

Only what serving needs is downloaded: settings, tokenizer, chat template and safetensors weights at the top of the
repository. Pickled weights are refused, never converted. `huggingface_hub` reads `HF_TOKEN`, `HF_HOME` and
`HF_HUB_OFFLINE` itself; nothing here looks at the environment.
"""

import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import DryRunFileInfo

logger = logging.getLogger(__name__)

SETTINGS = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken")
WEIGHTS = ("*.safetensors",)
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# A second copy of the weights in another layout (`consolidated`), and files for other programs.
SKIPPED = ("consolidated*", "*/*", "optimizer*", "training_args*")
PROGRESS_SECONDS = 5.0


class ModelUnavailable(Exception):
    """A model that cannot be served, with a reason an operator can act on."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """Where a model's files are, and what they are called."""

    model_id: str
    revision: str | None
    """The commit of a Hub snapshot; None for a plain directory."""
    model_dir: Path


def resolve(model_id: str, revision: str | None = None) -> ResolvedModel:
    """The folder of `model_id`, downloaded first when it is the name of a Hub repository.

    Raises ModelUnavailable: no such model, no access, no safetensors weights, or not enough space.
    """
    directory = Path(model_id).expanduser()
    if directory.is_dir():
        model = ResolvedModel(model_id=model_id, revision=revision, model_dir=directory.resolve())
    elif looks_like_path(model_id):
        raise ModelUnavailable(f"the model directory {model_id} does not exist")
    else:
        model = download(model_id, revision)
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


def download(model_id: str, revision: str | None) -> ResolvedModel:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        model_dir = snapshot(model_id, revision)
    except HFValidationError as error:
        raise ModelUnavailable(f"{model_id} is neither a directory nor the name of a Hub repository") from error
    except LocalEntryNotFoundError as error:
        raise ModelUnavailable(f"{model_id} is not in the local cache and the Hub cannot be reached") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelUnavailable(f"cannot download {model_id}: {first_line(error)}") from error
    return ResolvedModel(model_id=model_id, revision=model_dir.name, model_dir=model_dir)


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def snapshot(model_id: str, revision: str | None) -> Path:
    """Downloads what is missing; the last part of the answer is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return Path(snapshot_download(model_id, revision=revision, local_files_only=True))
    files = plan(model_id, revision)
    if sys.stderr.isatty():
        wanted = [file.filename for file in files]
        return Path(snapshot_download(model_id, revision=files[0].commit_hash, allow_patterns=wanted))
    return fetch_with_log_lines(model_id, files)


def plan(model_id: str, revision: str | None) -> list["DryRunFileInfo"]:
    """The files to have, after refusing a repository without safetensors before anything large is fetched."""
    from huggingface_hub import snapshot_download

    files = snapshot_download(
        model_id,
        revision=revision,
        allow_patterns=[*SETTINGS, *WEIGHTS, *PICKLED],
        ignore_patterns=list(SKIPPED),
        dry_run=True,
    )
    pickled = [file.filename for file in files if file.filename.endswith(tuple(name[1:] for name in PICKLED))]
    wanted = [file for file in files if file.filename not in pickled]
    if not any(file.filename.endswith(".safetensors") for file in wanted):
        raise ModelUnavailable(no_safetensors(model_id, pickled))
    return wanted


def fetch_with_log_lines(model_id: str, files: list["DryRunFileInfo"]) -> Path:
    """The snapshot without progress bars: one log line at the start, one every few seconds, one at the end."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    missing = [file for file in files if file.will_download]
    total = sum(file.file_size or 0 for file in missing)
    logger.info("downloading %s: %d files, %s", model_id, len(missing), readable(total))
    done, reported = 0, time.monotonic()
    for file in missing:
        hf_hub_download(model_id, file.filename, revision=file.commit_hash)
        done += file.file_size or 0
        if time.monotonic() - reported > PROGRESS_SECONDS:
            logger.info("downloading %s: %s of %s", model_id, readable(done), readable(total))
            reported = time.monotonic()
    config = hf_hub_download(model_id, "config.json", revision=files[0].commit_hash)
    logger.info("downloaded %s", model_id)
    return Path(config).parent


def readable(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
