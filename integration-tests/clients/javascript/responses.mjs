// The AI SDK over @ai-sdk/huggingface, which speaks OpenAI's Responses API.

import { createHuggingFace } from "@ai-sdk/huggingface";
import { Output, generateText, jsonSchema, streamText, tool } from "ai";
import { MAX_JSON_TOKENS, MAX_TOKENS, QUESTION, SCHEMA, TOOL, collected, main, refusal } from "./shared.mjs";

function asked(url, image, options) {
  const model = createHuggingFace({ baseURL: `${url}/v1`, apiKey: "-" }).responses("tgi");
  const text = { type: "text", text: QUESTION };
  const messages = [{ role: "user", content: image ? [{ type: "file", mediaType: "image/png", data: image }, text] : [text] }];
  return { model, messages, maxOutputTokens: MAX_TOKENS, temperature: 0, maxRetries: 0, ...options };
}

async function tools(url, image) {
  const report = tool({ description: TOOL.description, inputSchema: jsonSchema(SCHEMA) });
  const options = { tools: { report }, toolChoice: "required", maxOutputTokens: MAX_JSON_TOKENS };
  const call = (await generateText(asked(url, image, options))).toolCalls[0];
  return { name: call.toolName, arguments: call.input };
}

await main({
  sync: async (url) => ({ text: (await generateText(asked(url))).text }),
  image: async (url, image) => ({ text: (await generateText(asked(url, image))).text }),
  stream: async (url, image) => ({ pieces: await collected(streamText(asked(url, image)).textStream) }),
  json: async (url, image) => {
    const options = { output: Output.object({ schema: jsonSchema(SCHEMA) }), maxOutputTokens: MAX_JSON_TOKENS };
    return { value: (await generateText(asked(url, image, options))).output };
  },
  tools,
  error: (url, image) => refusal(() => generateText(asked(url, image, { temperature: -1 }))),
});
