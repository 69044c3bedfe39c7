// @huggingface/inference, the newest: text generation goes to /v1/completions.

import { InferenceClient } from "@huggingface/inference";
import { MAX_JSON_TOKENS, MAX_TOKENS, PROMPT, SCHEMA, TOOL, collected, main, messages, refusal } from "./shared.mjs";

const client = (url) => new InferenceClient(undefined, { endpointUrl: url });

const asked = (image, options) => ({ messages: messages(image), max_tokens: MAX_TOKENS, temperature: 0, ...options });

const prompt = (image) => ({
  inputs: `![](${image})${PROMPT}`,
  // The route that the client takes draws tokens unless it is told not to.
  parameters: { max_new_tokens: MAX_TOKENS, do_sample: false },
});

const responseFormat = { type: "json_schema", json_schema: { name: "picture", schema: SCHEMA, strict: true } };

async function tools(url, image) {
  const options = { tools: [{ type: "function", function: TOOL }], tool_choice: "required", max_tokens: MAX_JSON_TOKENS };
  const call = (await client(url).chatCompletion(asked(image, options))).choices[0].message.tool_calls[0].function;
  return { name: call.name, arguments: JSON.parse(call.arguments) };
}

await main({
  native: async (url, image) => ({ text: (await client(url).textGeneration(prompt(image))).generated_text }),
  native_stream: async (url, image) => {
    const events = await collected(client(url).textGenerationStream(prompt(image)));
    const pieces = events.filter((event) => event.token && !event.token.special).map((event) => event.token.text);
    return { pieces };
  },
  sync: async (url) => ({ text: (await client(url).chatCompletion(asked())).choices[0].message.content }),
  image: async (url, image) => ({ text: (await client(url).chatCompletion(asked(image))).choices[0].message.content }),
  stream: async (url, image) => {
    const chunks = await collected(client(url).chatCompletionStream(asked(image)));
    return { pieces: chunks.map((chunk) => chunk.choices[0].delta.content ?? "") };
  },
  json: async (url, image) => {
    const options = { response_format: responseFormat, max_tokens: MAX_JSON_TOKENS };
    const answer = await client(url).chatCompletion(asked(image, options));
    return { value: JSON.parse(answer.choices[0].message.content) };
  },
  tools,
  error: (url, image) => refusal(() => client(url).chatCompletion(asked(image, { temperature: -1 }))),
});
