// Runs one call of one JavaScript client and prints what it brought as JSON: node client.mjs CALL URL [ARGUMENT]
// Not a test: test_javascript.py says what must come out.

import { HfInferenceEndpoint } from "inference-2";
import { InferenceClient } from "inference-4";

async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const prompt = (image) => ({ inputs: `![](${image})What is this a picture of?\n\n`, parameters: { max_new_tokens: 16 } });

const messages = (image) => [
  {
    role: "user",
    content: [
      { type: "image_url", image_url: { url: image } },
      { type: "text", text: "What is this?" },
    ],
  },
];

const chat = (image) => ({ messages: messages(image), max_tokens: 24, temperature: 0 });

const version4 = (url) => new InferenceClient(undefined, { endpointUrl: url });

async function refusal(call) {
  try {
    return { answered: await call() };
  } catch (error) {
    return { message: error.message };
  }
}

async function aborted(url) {
  const stop = new AbortController();
  const parameters = { max_new_tokens: 1500, temperature: 100, seed: 3 };
  const stream = new HfInferenceEndpoint(url).textGenerationStream({ inputs: "x", parameters }, { signal: stop.signal });
  let events = 0;
  try {
    for await (const _ of stream) if (++events === 3) stop.abort();
  } catch (error) {
    return { events, name: error.name };
  }
  return { events, name: null };
}

const calls = {
  "2-stream": (url, image) => collected(new HfInferenceEndpoint(url).textGenerationStream(prompt(image))),
  "2-whole": (url, image) => new HfInferenceEndpoint(url).textGeneration(prompt(image)),
  "2-refused": (url) => refusal(() => collected(new HfInferenceEndpoint(url).textGenerationStream(prompt("file:///etc/passwd")))),
  "2-aborted": aborted,
  "4-stream": (url, image) => collected(version4(url).textGenerationStream(prompt(image))),
  "4-whole": (url, image) => version4(url).textGeneration(prompt(image)),
  "4-chat": (url, image) => version4(url).chatCompletion(chat(image)),
  "4-chat-stream": (url, image) => collected(version4(url).chatCompletionStream(chat(image))),
};

const [name, url, argument] = process.argv.slice(2);
console.log(JSON.stringify(await calls[name](url, argument)));
