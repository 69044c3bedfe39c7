"""The DejaVu fonts, from where Debian's `fonts-dejavu` puts them. Serif faces are kept out of training."""

from pathlib import Path

FOLDER = Path("/usr/share/fonts/truetype/dejavu")
UNSEEN = "Serif"
# Has no letters of its own.
NOT_FOR_WORDS = "Math"


def training_fonts(folder: Path = FOLDER) -> list[Path]:
    return [path for path in _fonts(folder) if UNSEEN not in path.stem]


def unseen_fonts(folder: Path = FOLDER) -> list[Path]:
    return [path for path in _fonts(folder) if UNSEEN in path.stem]


def _fonts(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.glob("*.ttf")) if NOT_FOR_WORDS not in path.stem]
    if not found:
        raise FileNotFoundError(f"no fonts in {folder}: install fonts-dejavu")
    return found
