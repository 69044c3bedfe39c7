"""The training run: by steps, from one seed, resumable at every checkpoint.

Each step sees some new pictures and learns from rows about any of those it has seen, so that a slow machine uses each
picture more often and a fast one hardly ever twice.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from embedded_model import checkpoint, tokenizer
from embedded_model.concepts import names
from embedded_model.corpus import Corpus, Plan, Preparation, Prepared
from embedded_model.encoder import Encoder
from embedded_model.features import Eye, Features
from embedded_model.losses import Step, losses, total
from embedded_model.model import Helpers, Shape, VisionLanguage
from embedded_model.progress import Progress
from embedded_model.supervision import Targets, targets

CHECKPOINT_EVERY_S = 300
REPORT_EVERY = 10
# Pictures that are seen before the first step.
SEEN_FIRST = 2048
SEEN_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the result, with its seed."""

    seed: int = 8
    steps: int = 2_000
    rows: int = 32
    fresh: int = 20
    kept: int = 60_000
    rate: float = 2e-3
    warm_up: int = 200
    decay_share: float = 0.3
    decay: float = 0.05
    clip: float = 1.0


def train(folder: Path, recipe: Recipe, workers: int, device: torch.device) -> None:
    """Runs, or goes on with, the run in `folder`."""
    run = Run(folder, recipe, device)
    preparation = Preparation(folder, recipe.seed, workers)
    progress = Progress(folder / "run", recipe.steps, REPORT_EVERY)
    saved = time.monotonic()
    for prepared in preparation.run(run.plans()):
        values = run.step(prepared)
        if values:
            progress.tell(run.done, values)
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            run.save()
            saved = time.monotonic()
    run.save()
    preparation.close()


class Run:
    """Model, optimiser and the pictures seen so far."""

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self._folder = folder / "run"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._recipe = recipe
        self._device = device
        self._corpus = Corpus(folder, recipe.seed)
        self._eye = Eye(Encoder.stored(folder / "encoder.safetensors", device), self._corpus, recipe.seed)
        self._features = Features(folder, recipe.kept)
        words = tokenizer.load(folder / "tokenizer.json")
        self._image_id = tokenizer.id_of(words, tokenizer.IMAGE)
        self.modules = modules(words).to(device)
        checkpoint.begin(folder, self.modules)
        self._optimisers = optimisers(self.modules, recipe)
        self.done = checkpoint.resume(self._folder, self.modules, self._optimisers)

    def plans(self) -> Iterator[Plan]:
        """First the pictures that must be known, then steps with new ones."""
        recipe = self._recipe
        if self.done == 0:
            for start in range(0, SEEN_FIRST, SEEN_AT_ONCE):
                yield Plan(-1, range(start, start + SEEN_AT_ONCE), range(0), 0)
        for step in range(self.done, recipe.steps):
            seen = SEEN_FIRST + step * recipe.fresh
            yield Plan(step, range(seen, seen + recipe.fresh), self._features.known(seen), recipe.rows)

    def step(self, prepared: Prepared) -> dict[str, float]:
        """Losses of one step; nothing when it only saw pictures."""
        self._eye.see(prepared, self._features)
        if prepared.batch is None:
            return {}
        with torch.autocast(self._device.type, torch.bfloat16):
            found = losses(self._model, self._helpers, self._loaded(prepared), self._image_id)
            loss = total(found)
        loss.backward()  # type: ignore[no-untyped-call]
        self._update(self._recipe.rate * pace(prepared.plan.step, self._recipe))
        self.done = prepared.plan.step + 1
        return {name: value.item() for name, value in found.items()}

    def save(self) -> None:
        self._features.flush()
        checkpoint.save(self._folder, self.modules, self._optimisers, self.done)

    def _update(self, rate: float) -> None:
        nn.utils.clip_grad_norm_(self.modules.parameters(), self._recipe.clip)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    @property
    def _model(self) -> VisionLanguage:
        model = self.modules["model"]
        assert isinstance(model, VisionLanguage)
        return model

    @property
    def _helpers(self) -> Helpers:
        helpers = self.modules["helpers"]
        assert isinstance(helpers, Helpers)
        return helpers

    def _loaded(self, prepared: Prepared) -> Step:
        batch = prepared.batch
        assert batch is not None
        arrays = (batch.ids, batch.labels, batch.positions, batch.branches)
        ids, labels, positions, branches = (torch.from_numpy(array).to(self._device) for array in arrays)
        features = self._features.read(batch.pictures).to(self._device)
        known = [self._targets(number) for number in batch.pictures]
        return Step(ids, labels, positions, branches, features, known)

    def _targets(self, number: int) -> Targets:
        scene = self._corpus.scene(number)
        return targets(scene, self._features.blob(number) if scene.photo_class is not None else None)


def modules(words: Tokenizer) -> nn.ModuleDict:
    """Model and helpers, new."""
    size = -(-words.get_vocab_size() // tokenizer.ROUND_TO) * tokenizer.ROUND_TO
    shape = Shape(size)
    name_ids = [words.encode(name, add_special_tokens=False).ids[0] for name in names()]
    return nn.ModuleDict({"model": VisionLanguage(shape), "helpers": Helpers(shape, name_ids)})


def optimisers(trained: nn.ModuleDict, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the model, which takes fewer steps; AdamW for embeddings, norms and helpers."""
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for name, parameter in trained.named_parameters():
        multiplied = parameter.ndim == 2 and name.startswith("model.") and "embed" not in name
        (inside if multiplied else outside).append(parameter)
    # The rate then means for Muon what it means for AdamW.
    muon = torch.optim.Muon(inside, recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(outside, recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)]


def pace(step: int, recipe: Recipe) -> float:
    """Share of the learning rate: warms up, stays, and falls in the end; a longer run shares its beginning."""
    rising = (step + 1) / recipe.warm_up
    falling = (recipe.steps - step) / (recipe.decay_share * recipe.steps)
    return min(1.0, rising, falling)
