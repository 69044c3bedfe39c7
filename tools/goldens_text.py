"""Writes router/tests/goldens/text_*.json: what transformers makes of texts and chats with the embedded tokenizer.

The router's tests compare its own tokenising and template rendering with these. Run it after changing the embedded
model or moving to another transformers; read the difference before committing it. Seeded, so a run changes nothing by
itself.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "server" / "text_generation_server" / "embedded"
GOLDENS = ROOT / "router" / "tests" / "goldens"

Message = dict[str, Any]
Chat = dict[str, Any]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCXYZ0123456789",
    " \t\n\r\u00a0\u2003\u3000",
    "<|>im_start_endpad/image[]{}()",
    "éüßñçøåÅ\u0301\u0308\u200d\u200b\ufeff",
    "日本語中文한국어עבריתالعربيةहिन्दी",
    "😀👩‍🚀🏳️‍🌈👍🏽\U0001f468",
    "\u0000\u0001\u001c\u007f\ue000\uf8ff\U000f0000\U000ffffd",
    "'\"\\`#$%&*+-=^_~.,:;!?",
]
TOKENS = ["<|im_start|>", "<|im_end|>", "<image>", "<|pad|>", "<|endoftext|>"]
WORDS = [
    "What is this",
    "a picture of",
    " the ",
    "cat",
    "12345",
    "def f(x):\n    return x",
    "\n\n",
    "  ",
    "e\u0301",
    "Ω",
]


def random_text(rng: random.Random, longest: int = 15) -> str:
    pieces = []
    for _ in range(rng.randrange(1, 4)):
        kind = rng.random()
        if kind < 0.35:
            pieces.append(rng.choice(WORDS))
        else:
            alphabet = rng.choice(ALPHABETS)
            pieces.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(longest // 3))))
    return "".join(pieces)


def hostile_text(rng: random.Random) -> str:
    token = rng.choice(TOKENS)
    at = rng.randrange(len(token))
    piece = rng.choice([token, token, token[:at], token[at:], token + token, token[:at] + token + token[at:]])
    return rng.choice(["", random_text(rng)]) + piece + rng.choice(["", random_text(rng)])


def with_tokens(rng: random.Random) -> str:
    return "".join(rng.choice([random_text(rng), rng.choice(TOKENS)]) for _ in range(rng.randrange(1, 5)))


# Written for these tests, one for each way real templates are written; `parts` ones take lists of parts.
TEMPLATES = {
    "chatml_strings": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "parts_in_order": (
        "{%- for message in messages %}\n    {{- '<|im_start|>' ~ message['role'] ~ '\\n' }}\n"
        "    {%- if message['content'] is string %}\n        {{- message['content'] }}\n    {%- else %}\n"
        "        {%- for part in message['content'] %}\n            {%- if part.type == 'image' %}\n"
        "                {{- '<image>' }}\n            {%- elif 'text' in part %}\n                {{- part.text }}\n"
        "            {%- endif %}\n        {%- endfor %}\n    {%- endif %}\n    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
    ),
    "trimmed_turns": (
        "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.system = m.content | trim %}{% elif m.role == 'user' %}{{ '[Q] ' + ns.system + m.content.strip() }}"
        "{% set ns.system = '' %}{% elif m.role == 'assistant' %}{{ ' [A] ' + (m.content | trim) + eos_token }}"
        "{% else %}{{ raise_exception('only system, user and assistant') }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' [A]' }}{% endif %}"
    ),
    "tools_json": (
        "{%- if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}"
        "{{ '<|im_end|>\\n' }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.content is defined and m.content is string %}{{ m.content }}{% endif %}"
        "{% for call in m.tool_calls or [] %}{{ '\\n<tool_call>\\n' }}"
        "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{{ '\\n</tool_call>' }}"
        "{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
        "{% endif %}"
    ),
    "tools_typescript": (
        "{%- macro kind(spec) %}{% if spec.type == 'array' %}{{ kind(spec['items']) }}[]{% elif spec.type is iterable "
        "and spec.type is not string %}{{ spec.type | join(' | ') }}{% else %}{{ spec.type }}{% endif %}"
        "{% endmacro %}{% if tools %}{% for tool in tools %}{% set f = tool.function %}"
        "{{ '// ' ~ f.description ~ '\\ntype ' ~ f.name ~ ' = (_: {\\n' }}"
        "{% for name, spec in f.parameters.properties.items() %}"
        "{{ '  ' ~ name }}{{ '' if name in f.parameters.required else '?' }}: {{ kind(spec) }},\n"
        "{% endfor %}{{ '}) => any;\\n' }}{% endfor %}{% endif %}{% for m in messages %}"
        "{{ '<|im_start|>' ~ m.role ~ '|' ~ (m.content if m.content else '') ~ '<|im_end|>' }}{% endfor %}"
    ),
    "tools_indented": (
        "{% if tools is not none %}{{ tools | tojson(indent=2) }}{% endif %}{% for m in messages %}"
        "{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] | string ~ '<|im_end|>' }}{% endfor %}"
    ),
    "printed_values": (
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role | upper }}: {{ m.content }}"
        "{{ ' ' }}{{ m.name is defined }} {{ none }} {{ [1, 2.0, 1e20, 'a\\'b', true] }} {{ {'k': 'v\\n'} }}"
        "{{ '<|im_end|>' if not loop.last else '' }}{% endfor %}"
    ),
    "split_thoughts": (
        "{% for m in messages %}{% generation %}{% set text = m.content %}"
        "{% if m.role == 'assistant' and '</think>' in text %}"
        "{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + text }}{{ '<|im_end|>\\n' }}{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "looks_at_the_start": (
        "{% for m in messages %}{% if m.role == 'user' and m.content.startswith('<tool_response>') %}"
        "{{ '<|im_start|>tool\\n' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' }}{% endif %}{{ m.content }}{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "loop_controls": (
        "{%- for m in messages -%}{%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}{%- if loop.index > 6 -%}"
        "{%- break -%}{%- endif -%}"
        "{{- '<|im_start|>' + {'user': 'human', 'assistant': 'bot'}.get(m.role, m.role) }}\n"
        "{{ m.content | replace('\\r\\n', '\\n') | trim }}<|im_end|>\n{% endfor %}"
        "{{- '<|im_start|>bot\\n' if add_generation_prompt }}"
    ),
}
TAKES_PARTS = {"parts_in_order"}
TAKES_TOOLS = {"tools_json", "tools_typescript", "tools_indented"}


def schema(rng: random.Random, text: Callable[[], str]) -> dict[str, Any]:
    names = [text() or "x" for _ in range(rng.randrange(1, 4))]
    kinds: list[Any] = ["string", "integer", "array", ["string", "null"]]
    properties = {name: {"type": rng.choice(kinds), "description": text()} for name in names}
    for spec in properties.values():
        if spec["type"] == "array":
            spec["items"] = {"type": "number"}
    return {"type": "object", "properties": properties, "required": names[:1]}


def tools(rng: random.Random, text: Callable[[], str]) -> list[dict[str, Any]]:
    function = {"name": text() or "f", "description": text(), "parameters": schema(rng, text)}
    return [{"type": "function", "function": function} for _ in range(rng.randrange(1, 3))]


def calls(rng: random.Random, text: Callable[[], str]) -> list[dict[str, Any]]:
    arguments = {text() or "x": rng.choice([text(), 1, 2.5, True, None, [text()], {"k": text()}])}
    return [{"type": "function", "id": "c1", "function": {"name": text() or "f", "arguments": arguments}}]


def parts(rng: random.Random, text: Callable[[], str]) -> list[dict[str, str]]:
    kinds = [rng.random() < 0.35 for _ in range(rng.randrange(1, 5))]
    return [{"type": "image"} if image else {"type": "text", "text": text()} for image in kinds]


def chat(rng: random.Random, name: str, text: Callable[[], str]) -> Chat:
    messages: list[Message] = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": text()})
    for _ in range(rng.randrange(1, 4)):
        in_parts = name in TAKES_PARTS and rng.random() < 0.8
        messages.append({"role": "user", "content": parts(rng, text) if in_parts else text()})
        messages.append({"role": "assistant", "content": text()})
    if name == "tools_json" and rng.random() < 0.6:
        messages[-1] = {"role": "assistant", "tool_calls": calls(rng, text)}
        messages.append({"role": "tool", "content": text(), "tool_call_id": "c1"})
        messages.append({"role": "assistant", "content": text()})
    listed = tools(rng, text) if name in TAKES_TOOLS and rng.random() < 0.8 else None
    if rng.random() < 0.25 and str(messages[-1].get("content", "")).strip():
        messages[-1]["content"] = messages[-1]["content"].strip()
        return {"messages": messages, "tools": listed, "continue_final": True}
    return {"messages": messages[:-1], "tools": listed, "continue_final": False}


def render(tokenizer: Any, template: str, chat: Chat, **options: Any) -> Any:
    return tokenizer.apply_chat_template(
        chat["messages"],
        tools=chat["tools"],
        chat_template=template,
        add_generation_prompt=not chat["continue_final"],
        continue_final_message=chat["continue_final"],
        **options,
    )


def ids_of(tokenizer: Any, template: str, chat: Chat, *, sanitize: bool) -> list[int]:
    return list(render(tokenizer, template, chat, tokenize=True, return_dict=False, sanitize_control_tokens=sanitize))


MESSAGE_WORDS = {"messages", "role", "content", "text", "tool_calls", "tool_call_id", "continue_final"}
TOOL_WORDS = {"tools", "type", "id", "function", "name", "description", "arguments"}
SCHEMA_WORDS = {"parameters", "properties", "required", "items"} | MESSAGE_WORDS | TOOL_WORDS


def blanked(value: Any, key: str = "") -> Any:
    """The chat with every text and chosen name replaced, to count the control tokens that its template writes."""
    if isinstance(value, str):
        return value if key in {"role", "type", "id", "tool_call_id"} else "x"
    if isinstance(value, list):
        return [blanked(item, key) for item in value]
    if isinstance(value, dict):
        names = [name if name in SCHEMA_WORDS else f"k{index}" for index, name in enumerate(value)]
        return dict(zip(names, (blanked(item, name) for name, item in value.items()), strict=True))
    return value


def encode_goldens(tokenizer: Any, rng: random.Random, count: int) -> list[Any]:
    texts = dict.fromkeys(["", " ", "\n", "<image>", *WORDS])
    while len(texts) < count:
        texts[rng.choice([random_text, random_text, with_tokens, hostile_text])(rng)] = None
    return [[text, tokenizer.encode(text, add_special_tokens=True)] for text in texts]


def chat_goldens(tokenizer: Any, rng: random.Random, count: int) -> list[Any]:
    templates = {"embedded": tokenizer.chat_template, **TEMPLATES}
    cases = []
    for index in range(count):
        name = list(templates)[index % len(templates)]
        hostile = index % 5 < 3
        one = chat(rng, name, partial(hostile_text if hostile else random_text, rng))
        case = golden(tokenizer, templates[name], one, hostile=hostile)
        if case is not None:
            cases.append({"template": name, **case})
    return cases


def golden(tokenizer: Any, template: str, chat: Chat, *, hostile: bool) -> dict[str, Any] | None:
    """None where transformers refuses the chat, lets user text become a control token, or drops characters of it."""
    if hostile and "\U000f0000" in json.dumps(chat, ensure_ascii=False):
        return None
    control = set(tokenizer.convert_tokens_to_ids(TOKENS))
    try:
        text = render(tokenizer, template, chat, tokenize=False)
        ids = ids_of(tokenizer, template, chat, sanitize=hostile)
        plain = ids_of(tokenizer, template, blanked(chat), sanitize=False) if hostile else ids
    except Exception:  # each template refuses some chats in its own way
        return None
    if [i for i in ids if i in control] != [i for i in plain if i in control]:
        return None
    return {"chat": chat, "text": text, "ids": ids}


def write(name: str, content: object) -> None:
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    (GOLDENS / name).write_text(text.replace("],[", "],\n[").replace('},{"template"', '},\n{"template"') + "\n")


def main() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    GOLDENS.mkdir(parents=True, exist_ok=True)
    write("text_encode.json", encode_goldens(tokenizer, random.Random(1), 2200))
    templates = {"embedded": tokenizer.chat_template, **TEMPLATES}
    write("text_chat.json", {"templates": templates, "cases": chat_goldens(tokenizer, random.Random(2), 360)})


if __name__ == "__main__":
    main()
