"""What transformers would do with a model's text and images, asked once and written down as plain JSON.

The only module that asks the tokenizer and processor classes. It imports transformers inside functions, so that a
model that is already prepared starts without it. Weights are not looked at.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

FORMAT = 1
Json: TypeAlias = dict[str, object]
Item = TypeVar("Item")

_MEDIA = ("image", "video", "audio")
# What every config class holds and no model is built from.
_NOT_ABOUT_THE_MODEL = {
    "_name_or_path",
    "architectures",
    "chunk_size_feed_forward",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "transformers_version",
}
CANNOT_BE_BUILT = (ImportError, ValueError, OSError, AttributeError, TypeError)
"""What loading a class of transformers raises where a checkpoint or a package lacks something."""
PREPARED_NAME = "prepared.json"


class ProcessorSettings(Protocol):
    """What we ask of a processor class of transformers."""

    def to_dict(self) -> Json: ...


def model_facts(model_dir: Path) -> Json:
    """Everything about the model in `model_dir` except where it lies and what it is called."""
    # Our own reading comes first: its errors name the file.
    config = filled_config(model_dir)
    generation = read_json(model_dir / "generation_config.json")
    processor = processor_settings(model_dir)
    marks = ask_image_marks(model_dir, config)
    tokenizer = load_tokenizer(model_dir, of_processor=bool(processor))
    processor = processor and named_tokens(tokenizer) | processor
    template = chat_template(model_dir)
    media = media_tokens(tokenizer, config, processor)
    return {
        "model_type": config.get("model_type"),
        "config": config,
        "processor": processor,
        "image_marks": None if marks is None else asdict(marks),
        "tokenizer": tokenizer_pipeline(tokenizer),
        "special_tokens": dict(tokenizer.special_tokens_map),
        "control_tokens": control_tokens(tokenizer, template, media),
        "media_tokens": media,
        "chat_template": template,
        "eos_token_ids": eos_token_ids(tokenizer, generation),
        "generation": generation,
    }


def filled_config(model_dir: Path) -> Json:
    """The model's config.json with what it leaves to the defaults of its class, here and in the configs inside it."""
    written = read_json(model_dir / "config.json")
    return cast(Json, merged(written, ask_config(model_dir)))


def ask_config(model_dir: Path) -> Json:
    """The settings of the config class. Empty when transformers has none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_dir)
    except (ImportError, ValueError, OSError, AttributeError, TypeError, KeyError) as error:
        logger.warning("no config class could be asked (%s); config.json is used as written", error)
        return {}
    return cast(Json, plain(config.to_dict()))


def merged(written: object, asked: object) -> object:
    """Settings of both; where they differ, those asked for, which have today's names and values."""
    if not isinstance(written, dict) or not isinstance(asked, dict):
        return asked
    kept = {key: value for key, value in asked.items() if key not in _NOT_ABOUT_THE_MODEL}
    return written | {key: merged(written.get(key), value) for key, value in kept.items()}


def load_tokenizer(model_dir: Path, *, of_processor: bool) -> PreTrainedTokenizerBase:
    """The tokenizer, as the outer processor leaves it where there is one: PaliGemma's keeps it from adding tokens."""
    from transformers import AutoTokenizer

    processor = load_processor(model_dir) if of_processor else None
    if processor is not None:
        return cast("PreTrainedTokenizerBase", processor.tokenizer)
    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(model_dir))


def tokenizer_pipeline(tokenizer: PreTrainedTokenizerBase) -> Json:
    """The tokenizer as transformers runs it, which is not always what tokenizer.json says."""
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no tokenizers pipeline; this model cannot be served")
    pipeline = cast(Json, json.loads(backend.to_str()))
    # Left over from how the checkpoint was last used; a prompt is never cut or filled up by the tokenizer.
    return {**pipeline, "truncation": None, "padding": None}


def control_tokens(tokenizer: PreTrainedTokenizerBase, template: str | None, media: list[str]) -> list[str]:
    """The tokens that user text must never become.

    Special tokens, what the checkpoint declares as control tokens (or else what its chat template writes), and the
    placeholders of media whatever their flag.
    """
    declared = getattr(tokenizer, "chat_control_tokens", None)
    literals = template_literals(template) if declared is None and template is not None else ""
    found = []
    for token in tokenizer.added_tokens_decoder.values():
        written = token.content in declared if declared is not None else token.content in literals
        if token.special or token.content in media or (written and not token.content.isspace()):
            found.append(token.content)
    return found


def template_literals(template: str) -> str:
    """The text a chat template can write by itself, pieces joined by NUL so that no token is found across two."""
    import jinja2.ext
    import jinja2.nodes

    # `generation` is an extension of transformers that only marks a region.
    plain = re.sub(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})", _as_if_block, template)
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=[jinja2.ext.loopcontrols],
    )
    tree = environment.parse(plain)
    literals = {node.data for node in tree.find_all(jinja2.nodes.TemplateData)}
    literals |= {node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)}
    return "\0".join(sorted(literals))


def _as_if_block(tag: re.Match[str]) -> str:
    opening, end, closing = tag.groups()
    return f"{opening}{'endif' if end else 'if true'}{closing}"


def media_tokens(tokenizer: PreTrainedTokenizerBase, config: Json, processor: Json) -> list[str]:
    """Tokens that stand for an image, a video or a sound, from the config's ids and the processor's names."""
    by_id = {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}
    indices = [config.get(f"{kind}_token_{suffix}") for kind in _MEDIA for suffix in ("id", "index")]
    names = [processor.get(f"{kind}_token") for kind in _MEDIA]
    names += [tokenizer.special_tokens_map.get(f"{kind}_token") for kind in _MEDIA]
    found = [by_id.get(index) for index in indices if isinstance(index, int)]
    found += [name for name in names if isinstance(name, str) and name in by_id.values()]
    return unique(token for token in found if token is not None)


def unique(items: Iterable[Item]) -> list[Item]:
    return list(dict.fromkeys(items))


def eos_token_ids(tokenizer: PreTrainedTokenizerBase, generation: Json) -> list[int]:
    """Ids that end an answer: those of the generation config, and the tokenizer's own."""
    configured = generation.get("eos_token_id")
    listed = configured if isinstance(configured, list) else [configured]
    return unique(index for index in [*listed, tokenizer.eos_token_id] if isinstance(index, int))


def chat_template(model_dir: Path) -> str | None:
    """The default chat template, from the places transformers reads, in its order."""
    legacy = read_json(model_dir / "chat_template.json").get("chat_template")
    jinja = model_dir / "chat_template.jinja"
    found = [
        default_template(legacy),
        jinja.read_text(encoding="utf-8") if jinja.is_file() else None,
        default_template(read_json(model_dir / "tokenizer_config.json").get("chat_template")),
        default_template(read_json(model_dir / "processor_config.json").get("chat_template")),
    ]
    return next((template for template in found if template is not None), None)


def default_template(declared: object) -> str | None:
    """One template out of a string, a map by name, or a list of named templates."""
    if isinstance(declared, list):
        declared = {entry.get("name"): entry.get("template") for entry in declared if isinstance(entry, dict)}
    if isinstance(declared, dict):
        declared = declared.get("default")
    return declared if isinstance(declared, str) else None


def processor_settings(model_dir: Path) -> Json:
    """Image processor settings with their defaults filled in, and the outer processor's keys beside them.

    Where both have a key (Pixtral's `patch_size`) the image processor's stays and the outer one is `processor_<key>`.
    Empty for a model without vision.
    """
    outer = dict(read_json(model_dir / "processor_config.json"))
    image = outer.pop("image_processor", None) or read_json(model_dir / "preprocessor_config.json")
    if not image:
        return {}
    outer |= ask_processor(model_dir)
    image = ask_image_processor(model_dir) or image
    return merge_settings(outer, cast(Json, plain(image)))


def merge_settings(outer: Json, image: Json) -> Json:
    nested = {"image_processor", "video_processor", "feature_extractor", "tokenizer", "chat_template"}
    kept = {key: plain(value) for key, value in outer.items() if key not in nested}
    return {(f"processor_{key}" if key in image else key): value for key, value in kept.items()} | image


def ask_image_processor(model_dir: Path) -> Json | None:
    from transformers import AutoImageProcessor

    load: Callable[..., ProcessorSettings] = AutoImageProcessor.from_pretrained
    try:
        # The Pillow classes: the ones we match bit for bit, and the ones that run without torchvision.
        processor = load(model_dir, backend="pil")
    except CANNOT_BE_BUILT as error:
        logger.warning("no image processor class could be asked (%s); its settings are used as written", error)
        return None
    return processor.to_dict()


def ask_processor(model_dir: Path) -> Json:
    """The outer processor's settings. Empty when it cannot be built, as when its video half needs torchvision."""
    from transformers import AutoProcessor

    load: Callable[..., Any] = AutoProcessor.from_pretrained
    try:
        processor = load(model_dir, backend="pil")
    except CANNOT_BE_BUILT as error:
        logger.info("the processor class could not be asked (%s); processor_config.json is used as written", error)
        return {}
    # For a model without a processor class, transformers answers with its tokenizer.
    return cast(Json, processor.to_dict()) if hasattr(processor, "image_processor") else {}


def load_processor(model_dir: Path) -> Any:
    """The outer processor itself with its Pillow image processor, or None.

    Its two halves are loaded apart: asked for Pillow as a whole, one with a half for videos refuses, which has none.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    load_whole: Callable[..., Any] = AutoProcessor.from_pretrained
    load_images: Callable[..., Any] = AutoImageProcessor.from_pretrained
    try:
        processor = load_whole(model_dir)
        if not hasattr(processor, "image_processor"):
            return None
        processor.image_processor = load_images(model_dir, backend="pil")
    except CANNOT_BE_BUILT as error:
        logger.info("the model has no processor that can be run here: %s", error)
        return None
    return processor


@dataclass(frozen=True)
class ImageMarks:
    """What a chat template writes once an image, and the id that the processor puts there once an embedding."""

    anchor: str
    token_id: int


def ask_image_marks(model_dir: Path, config: Json) -> ImageMarks | None:
    """The marks of a model that transformers knows as an image-text model; None for every other."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if config.get("model_type") not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return None
    processor = load_processor(model_dir)
    return None if processor is None else image_marks(processor, config)


def image_marks(processor: Any, config: Mapping[str, object]) -> ImageMarks | None:
    """The anchor that the processor looks for, and the id that the model looks for, if they name them."""
    anchor = getattr(processor, "image_token", None)
    names = (config.get("image_token_id"), config.get("image_token_index"), getattr(processor, "image_token_id", None))
    token_id = next((name for name in names if isinstance(name, int)), None)
    return None if anchor is None or token_id is None else ImageMarks(str(anchor), token_id)


def named_tokens(tokenizer: PreTrainedTokenizerBase) -> Json:
    """What a tokenizer calls by a name of its model, as InternVL's `start_image_token`: its processor writes them."""
    usual = type(tokenizer).SPECIAL_TOKENS_ATTRIBUTES
    return {name: token for name, token in tokenizer.special_tokens_map.items() if name not in usual}


def plain(value: object) -> object:
    """Settings as JSON has them: tuples as lists, other objects (sizes, enums) as what they hold."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return float(value) if isinstance(value, float) else int(value)
    inner = getattr(value, "value", None)
    return plain(inner if inner is not None else dict(getattr(value, "__dict__", {})))


def read_json(path: Path) -> Json:
    """The object in a JSON file; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} does not hold a JSON object")
    return value


def small_files(model_dir: Path) -> list[Path]:
    """The files the facts depend on: everything at the top of the folder that is not weights, nor our answer."""
    suffixes = {".json", ".jinja", ".txt", ".model", ".tiktoken"}
    files = (path for path in model_dir.iterdir() if path.suffix in suffixes and path.name != PREPARED_NAME)
    return sorted(path for path in files if path.is_file())


def content_hash(model_dir: Path) -> str:
    """Names and contents of the small files, hashed."""
    digest = hashlib.sha256()
    for path in small_files(model_dir):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
