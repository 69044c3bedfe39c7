// The server as this page sees it: what it says about itself, and an answer as it streams.

/** Why there is no answer: a title, the server's own words, and the status if there was one. */
export class Refused extends Error {
  constructor(title, message, status = null) {
    super(message);
    this.title = title;
    this.status = status;
  }
}

/** `/info`. */
export async function askInfo(key) {
  const response = await fetch("info", { headers: authorization(key) });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/**
 * Sends a chat and calls `onText(text)` for each piece of the answer.
 * @returns {{usage, finishReason, serverTiming, milliseconds: {first, last, total}}}
 */
export async function streamChat({ url, body, key, signal, onText }) {
  const started = performance.now();
  const since = () => performance.now() - started;
  const response = await send(url, body, key, signal);
  const answer = {
    usage: null,
    finishReason: null,
    serverTiming: response.headers.get("server-timing") ?? "",
    milliseconds: { first: null, last: null, total: null },
  };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") break;
    take(JSON.parse(data), answer, since, onText);
  }
  answer.milliseconds.total = since();
  if (answer.finishReason === null) throw new Refused("The answer broke off", "The stream ended before its last token.");
  return answer;
}

function take(chunk, answer, since, onText) {
  if (chunk.error) throw new Refused("The answer broke off", messageOf(chunk));
  answer.usage = chunk.usage ?? answer.usage;
  for (const choice of chunk.choices) {
    answer.milliseconds.first ??= since();
    answer.milliseconds.last = since();
    answer.finishReason = choice.finish_reason ?? answer.finishReason;
    if (choice.delta.content) onText(choice.delta.content);
  }
}

async function send(url, body, key, signal) {
  const headers = { "content-type": "application/json", ...authorization(key) };
  let response;
  try {
    response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached", "The connection failed. Is it still running?");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The data of each server-sent event. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await read(reader);
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      // Comments keep the connection alive and say nothing.
      if (block.startsWith("data:")) yield block.slice("data:".length).trim();
    }
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The answer broke off", "The connection was lost.");
  }
}

async function refusal(response) {
  const titles = { 401: "A key is needed", 429: "The server is busy", 503: "The server is not ready" };
  const text = await response.text();
  let message = text || response.statusText;
  try {
    message = messageOf(JSON.parse(text));
  } catch {
    // Not JSON: a proxy answered; its words are shown as they are.
  }
  return new Refused(titles[response.status] ?? `Refused with status ${response.status}`, message, response.status);
}

/** The words of an error, in either form that this server has. */
function messageOf(body) {
  return typeof body.error === "string" ? body.error : body.error.message;
}

function authorization(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}
