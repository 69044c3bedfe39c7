// The Responses API by the npm package openai.

import OpenAI from "openai";
import { MAX_JSON_TOKENS, MAX_TOKENS, QUESTION, SCHEMA, TOOL, collected, main, refusal } from "./shared.mjs";

function respond(url, image, options) {
  const text = { type: "input_text", text: QUESTION };
  const content = image ? [{ type: "input_image", image_url: image, detail: "auto" }, text] : [text];
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 }).responses.create({
    model: "tgi",
    input: [{ role: "user", content }],
    max_output_tokens: MAX_TOKENS,
    temperature: 0,
    ...options,
  });
}

const format = { type: "json_schema", name: "picture", schema: SCHEMA, strict: true };

async function tools(url, image) {
  const options = {
    tools: [{ type: "function", ...TOOL, strict: true }],
    tool_choice: "required",
    max_output_tokens: MAX_JSON_TOKENS,
  };
  const call = (await respond(url, image, options)).output.find((item) => item.type === "function_call");
  return { name: call.name, arguments: JSON.parse(call.arguments) };
}

await main({
  sync: async (url) => ({ text: (await respond(url)).output_text }),
  image: async (url, image) => ({ text: (await respond(url, image)).output_text }),
  stream: async (url, image) => {
    const events = await collected(await respond(url, image, { stream: true }));
    return { pieces: events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta) };
  },
  json: async (url, image) => {
    const response = await respond(url, image, { text: { format }, max_output_tokens: MAX_JSON_TOKENS });
    return { value: JSON.parse(response.output_text) };
  },
  tools,
  error: (url, image) => refusal(() => respond(url, image, { temperature: -1 })),
});
