// The npm package openai.

import OpenAI from "openai";
import { MAX_JSON_TOKENS, MAX_TOKENS, SCHEMA, TOOL, collected, main, messages, refusal } from "./shared.mjs";

const chat = (url, image, options) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries: 0 }).chat.completions.create({
    model: "tgi",
    messages: messages(image),
    max_tokens: MAX_TOKENS,
    temperature: 0,
    ...options,
  });

const text = (answer) => ({ text: answer.choices[0].message.content });

const responseFormat = { type: "json_schema", json_schema: { name: "picture", schema: SCHEMA, strict: true } };

async function tools(url, image) {
  const options = { tools: [{ type: "function", function: TOOL }], tool_choice: "required", max_tokens: MAX_JSON_TOKENS };
  const call = (await chat(url, image, options)).choices[0].message.tool_calls[0].function;
  return { name: call.name, arguments: JSON.parse(call.arguments) };
}

await main({
  sync: async (url) => text(await chat(url)),
  image: async (url, image) => text(await chat(url, image)),
  stream: async (url, image) => {
    const chunks = await collected(await chat(url, image, { stream: true }));
    return { pieces: chunks.map((chunk) => chunk.choices[0].delta.content ?? "") };
  },
  json: async (url, image) => {
    const answer = await chat(url, image, { response_format: responseFormat, max_tokens: MAX_JSON_TOKENS });
    return { value: JSON.parse(answer.choices[0].message.content) };
  },
  tools,
  error: (url, image) => refusal(() => chat(url, image, { temperature: -1 })),
});
