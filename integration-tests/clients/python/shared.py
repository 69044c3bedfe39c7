"""What all client scripts have in common: one call of one client, its outcome printed as JSON.

    python NAME.py CALL URL IMAGE

Scripts are not tests: test_client_matrix.py says what must come out. They run in the environment of their client, so
nothing but the client and the standard library may be imported here.
"""

import json
import sys

QUESTION = "What is this?"
PROMPT = "What is this a picture of?\n\n"
MAX_TOKENS = 24
# Enough for any answer that the schema allows.
MAX_JSON_TOKENS = 200
SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"type": "string", "enum": ["square", "circle", "triangle"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["shape", "count"],
    "additionalProperties": False,
}
TOOL = {"name": "report", "description": "Reports what is in a picture.", "parameters": SCHEMA}


def markdown(image):
    """TGI's prompt about a picture."""
    return f"![]({image}){PROMPT}"


def messages(image=None):
    """OpenAI's messages, about a picture or without one."""
    if image is None:
        return [{"role": "user", "content": QUESTION}]
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": parts}]


def refusal(call):
    """What the user is told when a call is refused."""
    try:
        return {"answered": repr(call())}
    except Exception as error:  # noqa: BLE001 - any exception is an outcome
        return {"type": type(error).__name__, "message": str(error)}


def main(calls):
    """Runs the call that the command line names."""
    name, url, image = sys.argv[1:]
    json.dump(calls[name](url, image), sys.stdout)
