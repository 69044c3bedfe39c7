"""What tests know of the embedded model, from the file that it ships with."""

import json
from pathlib import Path

import text_generation_server

FOLDER = Path(text_generation_server.__file__).parent / "embedded"
PREPARED = json.loads((FOLDER / "prepared.json").read_text(encoding="utf-8"))
CONFIG = PREPARED["config"]
IMAGE_TOKENS: int = CONFIG["image_seq_length"]
IMAGE_TOKEN: int = CONFIG["image_token_index"]
(END_TOKEN,) = PREPARED["eos_token_ids"]
MAX_POSITIONS: int = CONFIG["text_config"]["max_position_embeddings"]
NO_END = {str(END_TOKEN): -100}
"""A `logit_bias` that keeps it from ending."""

ANSWER = "This is a picture of a red square."
"""What it says of the red square that tests show it."""
