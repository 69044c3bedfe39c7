"""What the encoder would see in photographs, without any.

No photograph is trained on. The encoder's published head says how strongly each of its features speaks for each class;
read as a naive Bayes model, that tilts how often a feature fires in a picture of the class. Features are drawn so, more
strongly inside a blob, where the thing would be, and pushed until the head itself names the class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# How much of what is drawn for a feature is shared by all cells of a picture.
SHARED = 0.7
ROUNDS = 6
SURE = 0.3
STEP = 5.0
CEILING = 6.0
FEATURES_PUSHED = 60


class Imagination:
    """Draws features. `seen` [N, cells, width] are of drawn pictures: how often and how strongly each fires."""

    def __init__(self, head: tuple[Tensor, Tensor], groups: Tensor, seen: Tensor) -> None:
        self._weight, self._bias = (tensor.float() for tensor in head)
        self._centred = self._weight - self._weight.mean(0)
        self._groups = groups
        fires = seen > 0.05
        rate = fires.float().mean((0, 1))
        level = (seen * fires).sum((0, 1)) / fires.sum((0, 1)).clamp_min(1)
        self._rate = (0.7 * rate + 0.3 * rate.mean()).clamp(0.02, 0.6)
        self._level = (0.5 * level + 0.5 * level.mean()).clamp(0.5, 3.5)
        self._grid = int(seen.shape[1] ** 0.5)

    def draw(self, classes: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features [N, cells, width] of pictures of these classes, and where the thing lies in each [N, cells]."""
        blob = self._blobs(len(classes), random)
        shape = (len(classes), self._grid**2, len(self._rate))
        normal = SHARED**0.5 * torch.randn(len(classes), 1, shape[2], generator=random)
        normal = normal + (1 - SHARED) ** 0.5 * torch.randn(shape, generator=random)
        fires = normal > torch.special.ndtri(1 - self._chance(classes, blob, random))
        strength = (
            0.25 + torch.rand(shape, generator=random) + 0.8 * torch.rand(shape[0], 1, shape[2], generator=random)
        )
        features = torch.where(fires, (self._level * strength).clamp(0, CEILING), 0.0)
        return self._convinced(features, classes, blob), blob

    def _blobs(self, count: int, random: torch.Generator) -> Tensor:
        """Where the thing is: one on average, up to three."""
        steps = torch.arange(self._grid, dtype=torch.float32)
        down, across = (axis.reshape(1, -1) for axis in torch.meshgrid(steps, steps, indexing="ij"))
        y, x = (torch.rand(count, 2, 1, generator=random) * (self._grid - 1)).unbind(1)
        spread = 0.9 + torch.rand(count, 1, generator=random) * self._grid * 0.7
        blob = torch.exp(-((down - y) ** 2 + (across - x) ** 2) / (2 * spread**2))
        return (blob / blob.mean(1, keepdim=True)).clamp(max=3.0)

    def _chance(self, classes: Tensor, blob: Tensor, random: torch.Generator) -> Tensor:
        """How likely each feature fires in each cell. Something of another class is always mixed in."""
        count = len(classes)
        others = torch.randint(len(self._centred), (count,), generator=random)
        tilt = self._centred[classes] + 0.35 * torch.rand(count, 1, generator=random) * self._centred[others]
        sharpness = 2.5 + 4.5 * torch.rand(count, 1, 1, generator=random)
        odds = (sharpness * blob[..., None] * tilt[:, None] * self._level).clamp(-6, 6).exp()
        rate = self._rate * (0.5 + torch.rand(count, 1, 1, generator=random))
        return (rate * odds / (1 - rate + rate * odds)).clamp(1e-4, 0.97)

    def _convinced(self, features: Tensor, classes: Tensor, blob: Tensor) -> Tensor:
        """The same, where the head was not sure of the name, nearer to what would make it sure."""
        alike = self._groups[None] == self._groups[classes][:, None]
        wanted = F.one_hot(classes, len(self._weight)).float()
        for _ in range(ROUNDS):
            found = (features.mean(1) @ self._weight.T + self._bias).softmax(-1)
            unsure = ((found * alike).sum(-1) < SURE).float()
            push = (wanted - found) @ self._weight
            least = push.topk(FEATURES_PUSHED, -1).values[:, -1:]
            push = F.normalize(torch.where(push >= least, push, 0.0), dim=-1) * unsure[:, None]
            features = (features + push[:, None] * blob[..., None] * STEP).clamp(0, CEILING)
        return features
