"""Where tests of kernels run: on a GPU if there is one, in Triton's interpreter on the CPU otherwise."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
