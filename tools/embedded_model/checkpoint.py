"""A run as it stands: parameters, optimiser state and the step, as safetensors. Written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# What optimisers remember of each parameter, beside how many steps they made.
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")
Optimisers = Sequence[torch.optim.Optimizer]
# Parameters of an earlier run of this recipe, in half precision: where a new run begins, if the file is there.
START = Path(__file__).with_name("start.safetensors")


def save(folder: Path, modules: nn.ModuleDict, optimisers: Optimisers, step: int) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in modules.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in modules.named_parameters()}
    for optimiser in optimisers:
        for parameter, state in optimiser.state.items():
            found = {f"{moment}/{names[parameter]}": state[moment] for moment in MOMENTS if moment in state}
            tensors |= {name: moment.contiguous() for name, moment in found.items()}
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "run.safetensors.new"
    save_file(tensors, written, {"step": json.dumps(step)})
    os.replace(written, folder / "run.safetensors")


def resume(folder: Path, modules: nn.ModuleDict, optimisers: Optimisers) -> int:
    """Fills parameters and optimisers, and says how many steps were done; 0 where nothing was saved."""
    path = folder / "run.safetensors"
    if not path.is_file():
        return 0
    step = saved_step(path)
    tensors = load_file(path)
    modules.load_state_dict({name: tensor for name, tensor in tensors.items() if "/" not in name})
    names: dict[Tensor, str] = {parameter: name for name, parameter in modules.named_parameters()}
    for optimiser in optimisers:
        for parameter in (parameter for group in optimiser.param_groups for parameter in group["params"]):
            kept = {moment: tensors.get(f"{moment}/{names[parameter]}") for moment in MOMENTS}
            moments = {moment: tensor.to(parameter.device) for moment, tensor in kept.items() if tensor is not None}
            if moments:
                optimiser.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step


class OtherTokens(Exception):
    """The kept parameters belong to another tokenizer."""


def begin(folder: Path, modules: nn.ModuleDict, path: Path = START) -> None:
    """Takes the parameters of an earlier run over, where they were kept; `folder` holds the tokenizer of this one."""
    if not path.is_file():
        return
    with safe_open(path, "pt") as file:
        if file.metadata()["tokenizer"] != _digest(folder):
            raise OtherTokens(f"{path.name} belongs to another tokenizer; remove it to begin with nothing")
    modules.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})


def keep(folder: Path, path: Path = START) -> None:
    """Writes the parameters of the run in `folder` for later runs."""
    found = load_file(folder / "run" / "run.safetensors")
    tensors = {name: tensor.half() for name, tensor in found.items() if "/" not in name}
    save_file(tensors, path, {"tokenizer": _digest(folder)})
    path.chmod(0o644)


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


def saved_step(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(json.loads(file.metadata()["step"]))


def parameters(path: Path, prefix: str) -> dict[str, Tensor]:
    """Parameters of one module of a run."""
    found = load_file(path)
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
