"""Commands: `prepare` fetches and draws, `train` runs, `export` writes the checkpoint, `evaluate` asks the server,
`album` shows answers in the README, `keep` stores a run as the beginning of later ones.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from embedded_model import checkpoint, tokenizer
from embedded_model.art import Art, rasterise
from embedded_model.encoder import convert
from embedded_model.fetch import fetch
from embedded_model.scenes import Stock
from embedded_model.sources import TRAINING_STYLES
from embedded_model.train import Recipe, train


def prepare(folder: Path, seed: int) -> None:
    """Everything that a run needs, where it is not there yet."""
    fetch(folder / "downloads")
    rasterise(folder / "downloads", folder / "art")
    if not (folder / "encoder.safetensors").is_file():
        convert(folder / "downloads", folder / "encoder.safetensors")
    if not (folder / "tokenizer.json").is_file():
        stock = Stock(Art(folder / "art", TRAINING_STYLES).counts(), 1)
        tokenizer.save(tokenizer.train(stock, seed), folder / "tokenizer.json")


def run_training(arguments: argparse.Namespace) -> None:
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps, rows=arguments.rows, fresh=arguments.fresh)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepare(arguments.folder, recipe.seed)
    train(arguments.folder, recipe, arguments.workers, device)


def run_export(arguments: argparse.Namespace) -> None:
    # Only this command needs transformers.
    from embedded_model.export import export

    export(arguments.folder, arguments.target or arguments.folder / "checkpoint")


def run_album(arguments: argparse.Namespace) -> None:
    # As for `run_evaluation`.
    from embedded_model import album

    prepare(arguments.folder, arguments.seed)
    album.refresh(arguments.folder)


def run_evaluation(arguments: argparse.Namespace) -> None:
    # Only this command needs the launcher and the clients of the integration tests.
    from embedded_model import report
    from embedded_model.evaluate import evaluate, write

    prepare(arguments.folder, arguments.seed)
    results = evaluate(arguments.folder, arguments.model, arguments.count, arguments.only)
    write(results, report.SCORES / f"{arguments.name}.json")
    report.refresh()


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "prepare": lambda arguments: prepare(arguments.folder, arguments.seed),
    "train": run_training,
    "keep": lambda arguments: checkpoint.keep(arguments.folder),
    "export": run_export,
    "evaluate": run_evaluation,
    "album": run_album,
}


def parsed() -> argparse.Namespace:
    defaults = Recipe()
    parser = argparse.ArgumentParser("embedded_model", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, default=Path(".build/embedded"), help="where everything is kept")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--steps", type=int, default=defaults.steps, help="may be changed when a run goes on")
    parser.add_argument("--rows", type=int, default=defaults.rows, help="rows of questions a step")
    parser.add_argument("--fresh", type=int, default=defaults.fresh, help="new pictures a step")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute")
    parser.add_argument("--target", type=Path, help="where `export` writes; FOLDER/checkpoint if not given")
    parser.add_argument("--model", help="checkpoint to evaluate; the shipped one if not given")
    parser.add_argument("--name", default="shipped", help="what its scores are filed under")
    parser.add_argument("--count", type=int, default=300, help="cases a measure")
    parser.add_argument("--only", default="", help="measures whose names contain this")
    return parser.parse_args()


if __name__ == "__main__":
    given = parsed()
    torch.set_num_threads(given.threads)
    COMMANDS[given.command](given)
