"""Asks `transformers` for the answers that the launched server must give, and writes them to `answers.json`.

    python integration-tests/goldens/make.py [MODEL_FOLDER]

Needs `timm` and `torchvision`, which the product and its tests do not: `transformers` builds the vision encoder of the
embedded model from them. The answers are greedy, in float32, with pictures resized by Pillow. A question whose answer
hangs on a logit difference that another summation order could turn around is replaced by the next one: such an answer
would test luck.
"""

import io
import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import goldens, pictures  # noqa: E402 - the path comes first

MIN_MARGIN = 5e-3
PROCESSOR: Any = AutoProcessor  # without types of their own
MODEL: Any = AutoModelForImageTextToText
log = logging.getLogger("goldens")


class Reference:
    """The model as `transformers` runs it."""

    def __init__(self, folder: Path) -> None:
        self.processor = PROCESSOR.from_pretrained(folder, backend="pil")
        self.model = MODEL.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, text: str, files: list[bytes]) -> dict[str, Any]:
        """Greedy tokens for a rendered prompt, and how close the closest decision was."""
        images = [_opened(file) for file in files]
        inputs = self.processor(text=text, images=images or None, return_tensors="pt")
        limits = {"max_new_tokens": goldens.MAX_NEW_TOKENS, "do_sample": False}
        with torch.inference_mode():
            out = self.model.generate(**inputs, **limits, output_logits=True, return_dict_in_generate=True)
        prompt_tokens = inputs["input_ids"].shape[1]
        ids = out.sequences[0, prompt_tokens:].tolist()
        logits = torch.stack(out.logits)[:, 0]
        best, chosen = logits.topk(2).values, logits.log_softmax(-1).max(-1).values
        return {
            "prompt_tokens": prompt_tokens,
            "token_ids": ids,
            "logprobs": [round(value, 4) for value in chosen.tolist()],
            "text": self.processor.tokenizer.decode(ids, skip_special_tokens=True),
            "margin": round(float((best[:, 0] - best[:, 1]).min()), 4),
        }

    def render(self, case: goldens.ChatCase) -> str:
        """The conversation through the chat template."""
        messages = [{"role": role, "content": [_part(part) for part in parts]} for role, parts in case.messages]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True))


def _opened(file: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")


def _part(part: bytes | str) -> dict[str, str]:
    return {"type": "image"} if isinstance(part, bytes) else {"type": "text", "text": part}


def _asked(reference: Reference, question: str, file: bytes) -> dict[str, Any]:
    one_turn = goldens.ChatCase("", [("user", [file, question])])
    return reference.answer(reference.render(one_turn), [file])


def _about_picture(reference: Reference, case: goldens.PictureCase, number: int) -> dict[str, Any]:
    for turn in range(len(goldens.QUESTIONS)):
        question = goldens.QUESTIONS[(number + turn) % len(goldens.QUESTIONS)]
        found = _asked(reference, question, case.file)
        if found["margin"] >= MIN_MARGIN:
            return {"sha256": pictures.sha256(case.file), "question": question, **found}
    raise SystemExit(f"{case.name}: every question hangs on a hair")


def _about_chat(reference: Reference, case: goldens.ChatCase) -> dict[str, Any]:
    found = reference.answer(reference.render(case), case.pictures())
    if found["margin"] < MIN_MARGIN:
        raise SystemExit(f"{case.name}: the answer hangs on a hair ({found['margin']}); change the case")
    return {"sha256": [pictures.sha256(file) for file in case.pictures()], **found}


def main() -> None:
    """Writes the file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else goldens.embedded_model()
    reference = Reference(folder)
    about_pictures = {case.name: _about_picture(reference, case, i) for i, case in enumerate(goldens.picture_cases())}
    about_chats = {case.name: _about_chat(reference, case) for case in goldens.chat_cases()}
    answers = {"model_sha256": goldens.model_sha256(folder), "pictures": about_pictures, "chats": about_chats}
    goldens.FILE.write_text(json.dumps(answers, indent=1) + "\n")
    log.info("%d pictures and %d chats in %s", len(about_pictures), len(about_chats), goldens.FILE)


if __name__ == "__main__":
    main()
