"""What is minimised: wrong answers, and wrong words about cells and pictures while the decoder learns to look."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from embedded_model.model import Helpers, VisionLanguage, cells_of, visible
from embedded_model.rows import IGNORED
from embedded_model.supervision import BLANK, CLASS_OF, CLASSES, GRID, UNKNOWN, Targets

# Which layer's output knows where its cell lies, and which one has looked at the whole picture.
PLACE_LAYER, SUMMARY_LAYER = 1, 2
WEIGHTS = {
    "answers": 1.0,
    "cells": 0.4,
    "colours": 0.2,
    "places": 0.2,
    "name": 0.3,
    "count": 0.2,
    "background": 0.1,
}
# Most cells are blank.
BLANK_WEIGHT = 0.15


@dataclass(frozen=True)
class Step:
    """Tensors of one step on the device. `features` [pictures, CELLS, width], targets by picture."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    branches: Tensor
    features: Tensor
    targets: list[Targets]


def losses(model: VisionLanguage, helpers: Helpers, step: Step, image_id: int) -> dict[str, Tensor]:
    """By the names of `WEIGHTS`, and shares of right words under `right_…`."""
    embedding = model.language_model.embed_tokens
    embedded = embedding(step.ids)
    projected = model.multi_modal_projector(step.features)
    cells = cells_of(step.ids, image_id)
    embedded = embedded.index_put((cells[..., 0], cells[..., 1]), projected.to(embedded.dtype))
    states = model(embedded, step.positions, visible(step.branches))
    found = _answers(model, states[-1], step.labels)
    if len(step.targets):
        device = step.ids.device
        targets = {
            name: torch.tensor([getattr(target, name).tolist() for target in step.targets], device=device)
            for name in ("classes", "colours")
        }
        found |= _cells(helpers, projected, embedding.weight, targets)
        found |= _places(helpers, states[PLACE_LAYER][cells[..., 0], cells[..., 1]])
        summary = states[SUMMARY_LAYER][cells[:, -1, 0], cells[:, -1, 1]]
        found |= _summary(helpers, summary, embedding.weight, step.targets)
    return found


def total(found: dict[str, Tensor]) -> Tensor:
    return torch.stack([WEIGHTS[name] * loss for name, loss in found.items() if name in WEIGHTS]).sum()


def _answers(model: VisionLanguage, hidden: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Labels stand at the token itself, so each is predicted by the one before it."""
    wanted = labels[:, 1:]
    known = wanted != IGNORED
    logits = model.logits(hidden[:, :-1][known]).float()
    right = (logits.argmax(-1) == wanted[known]).float().mean()
    return {"answers": F.cross_entropy(logits, wanted[known]), "right_tokens": right}


def _cells(helpers: Helpers, projected: Tensor, embedding: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
    weight = torch.ones(len(CLASSES), device=projected.device)
    weight[CLASS_OF[BLANK]] = BLANK_WEIGHT
    known = targets["classes"] != UNKNOWN
    logits = helpers.classes(projected[known].float(), embedding).float()
    wanted = targets["classes"][known]
    coloured = targets["colours"] != UNKNOWN
    things = wanted != CLASS_OF[BLANK]
    return {
        "cells": F.cross_entropy(logits, wanted, weight),
        "colours": _known(helpers.colour(projected[coloured]), targets["colours"][coloured]),
        "right_cells": (logits.argmax(-1) == wanted)[things].float().mean(),
    }


def _places(helpers: Helpers, hidden: Tensor) -> dict[str, Tensor]:
    """Rows and columns of cells; `hidden` [pictures, cells, width]."""
    cell = torch.arange(hidden.shape[1], device=hidden.device).expand(len(hidden), -1).reshape(-1)
    flat = hidden.flatten(0, 1)
    return {"places": _known(helpers.row(flat), cell // GRID) + _known(helpers.column(flat), cell % GRID)}


def _summary(helpers: Helpers, hidden: Tensor, embedding: Tensor, targets: list[Targets]) -> dict[str, Tensor]:
    """What the last token of a picture knows: the one name in it, how many things, the background."""
    device = hidden.device
    only = torch.tensor([_only_class(target) for target in targets], device=device)
    named = only != UNKNOWN
    count = torch.tensor([target.count for target in targets], device=device)
    background = torch.tensor([target.background for target in targets], device=device)
    found = {
        "count": _known(helpers.count(hidden), count),
        "background": _known(helpers.background(hidden), background),
    }
    if named.any():
        logits = helpers.classes(hidden[named].float(), embedding).float()
        found["name"] = F.cross_entropy(logits, only[named])
        found["right_names"] = (logits.argmax(-1) == only[named]).float().mean()
    return found


def _only_class(target: Targets) -> int:
    """The class of the only kind of thing in a picture, where there is one."""
    shown = set(target.classes.tolist()) - {UNKNOWN, CLASS_OF[BLANK]}
    return shown.pop() if len(shown) == 1 else UNKNOWN


def _known(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over what is known; nothing when nothing is."""
    known = wanted != UNKNOWN
    return F.cross_entropy(logits[known].float(), wanted[known]) if known.any() else logits.sum() * 0
