// What is sent: one place makes the body of a request from what was said and what was set. Pure.

/** Where chats are answered, as seen from this page. */
export const CHAT_ROUTE = "v1/chat/completions";

/**
 * The body of a chat request.
 * @param {{role: string, text: string, pictures?: {url: string}[]}[]} turns what was said, oldest first
 * @param settings what `readSettings` gives
 */
export function chatBody(turns, settings) {
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  return {
    model: settings.model,
    messages: [...system, ...turns.map(message)],
    stream: true,
    stream_options: { include_usage: true },
    ...settings.sampling,
    ...(settings.schema ? { response_format: jsonSchema(settings.schema) } : {}),
  };
}

function message({ role, text, pictures = [] }) {
  if (pictures.length === 0) return { role, content: text };
  const images = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role, content: [...images, ...(text ? [{ type: "text", text }] : [])] };
}

function jsonSchema(schema) {
  return { type: "json_schema", json_schema: { name: "answer", schema } };
}
