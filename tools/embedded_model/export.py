"""A run as a checkpoint of `transformers`: its classes write the files, so that they read them as well.

Also the proof: the same pictures and questions through `AutoModelForImageTextToText` and through the model that was
trained must give the same tokens.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from embedded_model import checkpoint, tokenizer
from embedded_model.answer import Answerer
from embedded_model.encoder import CELL, DEVIATION, MEAN, WIDTH
from embedded_model.model import Shape, VisionLanguage
from embedded_model.pictures import SIDE
from embedded_model.supervision import CELLS

MAX_BYTES = 16_000_000
# Longest answer when a client sets no limit of its own.
ANSWER_TOKENS = 96
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


class NotExported(Exception):
    """What was written is not what was trained, or too large to ship."""


def export(folder: Path, target: Path) -> None:
    """Writes the run in `folder` to `target` and proves it."""
    words = tokenizer.load(folder / "tokenizer.json")
    run = folder / "run" / "run.safetensors"
    parameters = checkpoint.parameters(run, "model.")
    shape = shape_of(parameters)
    write(target, parameters, load_file(folder / "encoder.safetensors"), words)
    model = VisionLanguage(shape)
    model.load_state_dict({name: tensor.half().float() for name, tensor in parameters.items()})
    prove(target, Answerer.of_export(model, target, words))
    weights = target / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    print(f"{weights}: {weights.stat().st_size} bytes, SHA-256 {digest}, step {checkpoint.saved_step(run)}")


def shape_of(parameters: dict[str, Tensor]) -> Shape:
    """Sizes, read off the tensors. The width of a head is the recipe's."""
    vocabulary, width = parameters["language_model.embed_tokens.weight"].shape
    head = Shape(vocabulary).head_width
    keys = parameters["language_model.layers.0.self_attn.k_proj.weight"].shape[0]
    inner = parameters["language_model.layers.0.mlp.gate_proj.weight"].shape[0]
    layers = len({name.split(".")[2] for name in parameters if name.startswith("language_model.layers.")})
    return Shape(vocabulary, width, layers, width // head, keys // head, inner)


def write(target: Path, parameters: dict[str, Tensor], encoder: dict[str, Tensor], words: Tokenizer) -> None:
    """Model, tokenizer and processor, in the layout of the hub."""
    from transformers import FastVlmForConditionalGeneration

    target.mkdir(parents=True, exist_ok=True)
    model = FastVlmForConditionalGeneration(config(shape_of(parameters), words))
    tower = {name: tensor for name, tensor in encoder.items() if not name.startswith("classifier.")}
    state = {f"model.{name}": tensor for name, tensor in parameters.items()}
    state |= {f"model.vision_tower.timm_model.{name}": tensor for name, tensor in tower.items()}
    _fill(model, state)
    model.generation_config = _generation(words)
    model.half().save_pretrained(target)
    processor(words).save_pretrained(target)
    if (target / "model.safetensors").stat().st_size > MAX_BYTES:
        raise NotExported(f"the weights are larger than {MAX_BYTES} bytes")


def config(shape: Shape, words: Tokenizer) -> Any:
    from transformers import FastVlmConfig, Qwen2Config
    from transformers.models.timm_wrapper.configuration_timm_wrapper import TimmWrapperConfig

    # The base class takes any setting by name.
    settings: dict[str, Any] = {"architecture": "tf_efficientnet_lite0", "hidden_size": WIDTH, "do_pooling": True}
    vision = TimmWrapperConfig(**settings, model_args={})
    text = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=shape.positions,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        tie_word_embeddings=True,
        use_sliding_window=False,
        pad_token_id=tokenizer.id_of(words, tokenizer.PAD),
        bos_token_id=tokenizer.id_of(words, tokenizer.START),
        eos_token_id=tokenizer.id_of(words, tokenizer.END),
    )
    return FastVlmConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.id_of(words, tokenizer.IMAGE),
        image_seq_length=CELLS,
        tie_word_embeddings=True,
    )


def processor(words: Tokenizer) -> Any:
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    template = TEMPLATE.read_text(encoding="utf-8").strip()
    text = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=tokenizer.PAD,
        bos_token=tokenizer.START,
        eos_token=tokenizer.END,
        padding_side="left",
        model_max_length=Shape(0).positions,
        extra_special_tokens={"image_token": tokenizer.IMAGE},
    )
    text.chat_template = template
    image = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[MEAN / 255] * 3,
        image_std=[DEVIATION / 255] * 3,
        resample=Image.Resampling.BICUBIC,
    )
    return LlavaProcessor(
        image,
        text,
        patch_size=CELL,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=tokenizer.IMAGE,
        chat_template=template,
    )


def prove(target: Path, ours: Answerer) -> None:
    """Raises `NotExported` where stock classes answer otherwise than the trained model."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    reader = AutoProcessor.from_pretrained(target)
    model = AutoModelForImageTextToText.from_pretrained(target, dtype=torch.float32).eval()
    for picture, question in samples():
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat = reader.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = reader(text=chat, images=[picture], return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**inputs, do_sample=False, max_new_tokens=24)
        theirs = made[0, inputs["input_ids"].shape[1] :].tolist()
        found = ours.ids(inputs["input_ids"][0].tolist(), picture, 24)
        if theirs != found:
            raise NotExported(f"{question}: transformers answers {theirs}, the trained model {found}")


def samples() -> list[tuple[Image.Image, str]]:
    """Pictures that need no files, and questions about them."""
    red = Image.new("RGB", (SIDE, SIDE), (220, 35, 35))
    split = Image.new("RGB", (300, 170), (248, 248, 248))
    split.paste((40, 80, 215), (0, 0, 150, 170))
    return [(red, "What is in this picture?"), (split, "Answer in JSON."), (red, "What color is the background?")]


def _fill(model: Any, state: dict[str, Tensor]) -> None:
    """Everything must be given; the output layer is the embedding again, counters of batch norms are not used."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    lacking = [name for name in missing if name != "lm_head.weight" and "num_batches_tracked" not in name]
    if lacking or unexpected:
        raise NotExported(f"missing {lacking}, unknown {unexpected}")
    model.tie_weights()


def _generation(words: Tokenizer) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=tokenizer.id_of(words, tokenizer.START),
        eos_token_id=tokenizer.id_of(words, tokenizer.END),
        pad_token_id=tokenizer.id_of(words, tokenizer.PAD),
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
    )
