"""Writes the ready-made prepared file of the embedded model. Run it after changing that model or `model_facts.py`."""

from pathlib import Path

from text_generation_server.prepare import EMBEDDED_FILE, embedded, write_atomically


def refresh(path: Path = EMBEDDED_FILE) -> None:
    write_atomically(path, embedded())
    path.chmod(0o644)


if __name__ == "__main__":
    refresh()
