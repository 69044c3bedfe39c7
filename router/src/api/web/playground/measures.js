// Numbers about an answer, in words. Pure.

/** Stages of a `Server-Timing` header, in milliseconds, in the order of the header. */
export function stages(header) {
  const entries = header.split(",").map((entry) => entry.trim().match(/^([\w-]+);dur=([\d.]+)$/));
  return entries.filter(Boolean).map(([, name, duration]) => ({ name, milliseconds: Number(duration) }));
}

/** What is worth saying below an answer, as short texts. */
export function summary({ usage, finishReason, milliseconds }) {
  const said = [];
  if (usage) {
    said.push(`${usage.prompt_tokens} prompt tokens${details(usage.prompt_tokens_details)}`);
    said.push(`${usage.completion_tokens} generated`);
  }
  if (milliseconds.first !== null) said.push(`first token ${duration(milliseconds.first)}`);
  const speed = tokensPerSecond(usage, milliseconds);
  if (speed !== null) said.push(`${speed.toFixed(1)} tokens/s`);
  if (finishReason === "length") said.push("cut at the token limit");
  return said;
}

function details(prompt) {
  const parts = [
    [prompt?.image_tokens, "image"],
    [prompt?.cached_tokens, "cached"],
  ];
  const said = parts.filter(([count]) => count).map(([count, name]) => `${count} ${name}`);
  return said.length ? ` (${said.join(", ")})` : "";
}

/** The pace after the first token; one token has none. */
function tokensPerSecond(usage, { first, last }) {
  if (!usage || usage.completion_tokens < 2 || !(last > first)) return null;
  return ((usage.completion_tokens - 1) * 1000) / (last - first);
}

/** A time as people read it. */
export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return milliseconds >= 10 ? `${milliseconds.toFixed(0)} ms` : `${milliseconds.toFixed(2)} ms`;
}
