"""What a sequence may ask of the sampler. The router checked it before; a shard checks again."""

from __future__ import annotations

import math
from collections.abc import Iterator

from text_generation_server.plan import NewSequence, Sampling

MAX_TOP_TOKENS = 64
MAX_PENALTY = 1e4
MAX_BANNED_TOKENS = 4096
MAX_BIASED_TOKENS = 4096
MAX_BIAS = 1e4


def check_sequence(new: NewSequence, vocab_size: int) -> str | None:
    """What is wrong with it, or None."""
    ids = new.prompt_token_ids
    if (new.prompt_num_top or 0) > MAX_TOP_TOKENS:
        return f"at most {MAX_TOP_TOKENS} top tokens are reported"
    if ((ids < 0) | (ids >= vocab_size)).any():
        return "a prompt token id is out of range"
    for holds, message in _conditions(new.sampling, vocab_size):
        if not holds:
            return message
    return None


def _conditions(sampling: Sampling, vocab_size: int) -> Iterator[tuple[bool, str]]:
    yield 0.0 < sampling.temperature < math.inf, "temperature is out of range"
    yield 0.0 < sampling.top_p <= 1.0, "top_p is out of range"
    yield 0.0 < sampling.typical_p <= 1.0, "typical_p is out of range"
    yield 0.0 < sampling.repetition_penalty <= MAX_PENALTY, "repetition_penalty is out of range"
    yield abs(sampling.frequency_penalty) <= MAX_PENALTY, "frequency_penalty is out of range"
    yield abs(sampling.presence_penalty) <= MAX_PENALTY, "presence_penalty is out of range"
    yield sampling.num_top_tokens <= MAX_TOP_TOKENS, f"at most {MAX_TOP_TOKENS} top tokens are reported"
    yield len(sampling.banned_token_ids) <= MAX_BANNED_TOKENS, f"at most {MAX_BANNED_TOKENS} tokens can be banned"
    yield all(0 <= token < vocab_size for token in sampling.banned_token_ids), "a banned token id is out of range"
    yield len(set(sampling.banned_token_ids)) < vocab_size, "every token is banned"
    yield len(sampling.logit_bias) <= MAX_BIASED_TOKENS, f"at most {MAX_BIASED_TOKENS} tokens can have a bias"
    yield all(0 <= token < vocab_size for token, _ in sampling.logit_bias), "a token id of logit_bias is out of range"
    yield all(abs(bias) <= MAX_BIAS for _, bias in sampling.logit_bias), "a logit_bias is out of range"
