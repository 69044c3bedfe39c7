// A request as a command and as a program. The key is not written into either: both read it from the environment.

/**
 * A shell command that sends exactly this body. The body goes through a here-document, because a picture does not fit
 * into an argument; JSON escapes line breaks, so no line of it can end the document early.
 */
export function asCurl(url, body, keyed) {
  const lines = [
    `curl -N ${quoted(url)} \\`,
    "  -H 'content-type: application/json' \\",
    ...(keyed ? ['  -H "authorization: Bearer $API_KEY" \\'] : []),
    "  --data-binary @- <<'BODY'",
    JSON.stringify(body, null, 2),
    "BODY",
  ];
  return lines.join("\n") + "\n";
}

/** A Python program that sends exactly this body with the `openai` package and prints the answer as it comes. */
export function asPython(base, body, keyed) {
  const fields = Object.entries(body).map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
  const lines = [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(base)}, api_key=${keyed ? 'os.environ["API_KEY"]' : '"-"'})`,
    "stream = client.chat.completions.create(",
    ...fields,
    ")",
    "for chunk in stream:",
    "    for choice in chunk.choices:",
    '        print(choice.delta.content or "", end="", flush=True)',
    "print()",
  ];
  return lines.join("\n") + "\n";
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON as Python writes it. Strings of JSON are strings of Python. */
function literal(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `;
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, deeper))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, deeper)}`);
  if (items.length === 0) return open + close;
  return `${open}\n${items.map((item) => `${deeper}${item},\n`).join("")}${indent}${close}`;
}
