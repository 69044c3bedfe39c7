"""Small tokenizers in the shapes that real models have, the same on every run.

Their merges come from a fixed list of words by a fixed rule, so nothing is trained or downloaded. Words and line breaks
merge, because in real vocabularies they do: whoever tokenises the text beside an image apart from it gets other ids.
Nothing here knows a model; families say which shape, special tokens and class theirs has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

Special = str | AddedToken

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

WORDS = (
    "the a of and to in is it this that what are there on with for as not how many do you can describe image images "
    "picture pictures photo color colour shape shapes red green blue yellow purple white black circle square triangle "
    "background same different second first two one three between before after left right above below inside outside "
    "show shows shown see look large small thing things answer question in detail please short words table chart text "
    "tile view col column end turn start be was has have from by or an at all but they their which when where who will "
    "would more some if no out so up about into than then them these its over only other new time people way use"
)
STARTS = "What How Describe Answer Is Are The This There Two In Now And A It Yes No Tell"
ROLES = "user User USER assistant Assistant ASSISTANT system System model human INST image row col global img"
MARKS = (
    "\n\n", "\n\n\n", "\n\n\n\n", ">\n", ">\n\n", ":\n", ":\n\n", ".\n", ".\n\n", "?\n", "?\n\n", "!\n", "]\n", "}\n",
    "><", "</", "...", "--", "==", "()", "::", "\r\n", "  ", "   ", "    ", "\n ", "\n  ", " \n", "\t\t",
)  # fmt: skip


@dataclass(frozen=True)
class TokenizerFiles:
    """`tokenizer.json` and `tokenizer_config.json`."""

    pipeline: Tokenizer
    config: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes both."""
        self.pipeline.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps(self.config, indent=1, ensure_ascii=False) + "\n")

    def id(self, token: str) -> int:
        """The id of a token, which must exist."""
        found = self.pipeline.token_to_id(token)
        if found is None:
            raise KeyError(f"the tokenizer has no {token!r}")
        return int(found)

    def __len__(self) -> int:
        return int(self.pipeline.get_vocab_size())


def byte_level(
    special: Sequence[Special],
    pattern: str,
    *,
    leading: Sequence[Special] = (),
    bos: str | None = None,
    nfc: bool = False,
    **config: Any,
) -> TokenizerFiles:
    """GPT-2's kind: bytes as characters, a regex that splits. `leading` tokens have the first ids, `special` the last.

    Texts begin with `bos`, if there is one; `config` is what `tokenizer_config.json` says besides.
    """
    alphabet = byte_alphabet()
    units = [_as_byte_chars(unit, alphabet) for unit in spaced_words(" ")]
    merges = prefix_merges(units)
    vocab = numbered([*(_content(token) for token in leading), *alphabet.values(), *map("".join, merges)])
    pipeline = Tokenizer(BPE(vocab=vocab, merges=merges))
    if nfc:
        pipeline.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pipeline.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    pipeline.decoder = decoders.ByteLevel()
    return _finished(pipeline, [*leading, *special], bos, config)


def metaspace(special: Sequence[Special], *, bos: str | None = "<s>", **config: Any) -> TokenizerFiles:
    """Llama 2's and Mistral's kind as their `tokenizer.json` has it: a blank before each text, bytes as a last resort.

    Line breaks are no pieces of their own there; they are always bytes.
    """
    units = [unit.replace(" ", "▁") for unit in spaced_words(" ") if "\n" not in unit and "\r" not in unit]
    vocab, merges = _piece_vocab(["<unk>", "<s>", "</s>"], units)
    pipeline = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pipeline.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(content=" ", left=1)
    pipeline.decoder = decoders.Sequence([*_piece_decoders(), strip])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _finished(pipeline, ["<unk>", "<s>", "</s>", *special], bos, named | config)


def gemma(special: Sequence[Special], *, bos: str | None = "<bos>", **config: Any) -> TokenizerFiles:
    """Gemma's kind: blanks as characters, nothing prepended, runs of line breaks as tokens of their own."""
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    runs = ["\n" * count for count in range(1, 9)]
    units = [unit.replace(" ", "▁") for unit in spaced_words(" ")]
    vocab, merges = _piece_vocab([*first, *runs], units)
    model = BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    pipeline = Tokenizer(model)
    pipeline.normalizer = normalizers.Replace(" ", "▁")
    pipeline.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    pipeline.decoder = decoders.Sequence(_piece_decoders())
    pipeline.add_tokens([AddedToken(run, normalized=False, special=False) for run in runs])
    named = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")}
    return _finished(pipeline, [*first, *special], bos, named | config)


def spaced_words(blank: str) -> list[str]:
    """What becomes a token: words behind a blank and without one, and marks."""
    bare = f"{ROLES} {STARTS}".split()
    return [*MARKS, *(blank + word for word in [*WORDS.split(), *bare]), *bare]


def prefix_merges(units: Iterable[str]) -> list[tuple[str, str]]:
    """Each unit grows from its left, a character at a time; what begins alike shares the merges."""
    pairs = ((unit[:length], unit[length]) for unit in units for length in range(1, len(unit)))
    return list(dict.fromkeys(pairs))


def numbered(tokens: Iterable[str]) -> dict[str, int]:
    """Ids in order of first appearance."""
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def byte_alphabet() -> dict[int, str]:
    """The character that stands for each byte: itself where it is printable in Latin-1, in GPT-2's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(hidden)}


def _as_byte_chars(text: str, alphabet: Mapping[int, str]) -> str:
    return "".join(alphabet[byte] for byte in text.encode())


def _piece_vocab(first: Sequence[str], units: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = prefix_merges(units)
    letters = sorted({*"".join(units), *map(chr, range(ord("!"), ord("~") + 1))})
    in_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    return numbered([*first, *in_bytes, *map("".join, merges), *letters]), merges


def _piece_decoders() -> list[Any]:
    return [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def _content(token: Special) -> str:
    return token if isinstance(token, str) else str(token.content)


def _finished(
    pipeline: Tokenizer, special: Sequence[Special], bos: str | None, config: Mapping[str, Any]
) -> TokenizerFiles:
    """Adds what is special, which has the next ids unless the vocabulary has it already."""
    plain = [
        AddedToken(token, normalized=False, special=True) if isinstance(token, str) else token for token in special
    ]
    for token in plain:
        (pipeline.add_special_tokens if token.special else pipeline.add_tokens)([token])
    if bos is not None:
        pipeline.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, pipeline.token_to_id(bos))],
        )
        config = {"bos_token": bos, "add_bos_token": True} | dict(config)
    extra = {"clean_up_tokenization_spaces": False, "model_max_length": 4096}
    return TokenizerFiles(pipeline, extra | dict(config))
