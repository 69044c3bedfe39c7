"""Packages that a GPU machine may lack, and what stands for them: nothing that can be used, but what can be imported.

Only grammars need llguidance, and no part looks at grammars. Importing this module puts the stand-ins in place.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class Absent:
    """Can be named and called; asking anything of it fails."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes whatever it is given."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"llguidance is not installed here; {name} was asked of it")


def stand_in() -> ModuleType:
    """A module with the names that the server imports."""
    module = ModuleType("llguidance")
    for name in ("LLMatcher", "LLParserLimits", "LLTokenizer"):
        setattr(module, name, Absent)
    return module


if "llguidance" not in sys.modules and find_spec("llguidance") is None:
    sys.modules["llguidance"] = stand_in()
MISSING = getattr(sys.modules.get("llguidance"), "LLMatcher", None) is Absent
"""Whether grammars cannot be used here."""
