// What the client scripts have in common: node NAME.mjs CALL URL IMAGE prints the outcome of one call as JSON.
// Scripts are not tests: test_client_matrix.py says what must come out.

export const QUESTION = "What is this?";
export const PROMPT = "What is this a picture of?\n\n";
export const MAX_TOKENS = 24;
// Enough for any answer that the schema allows.
export const MAX_JSON_TOKENS = 200;
export const SCHEMA = {
  type: "object",
  properties: {
    shape: { type: "string", enum: ["square", "circle", "triangle"] },
    count: { type: "integer", minimum: 1, maximum: 5 },
  },
  required: ["shape", "count"],
  additionalProperties: false,
};
export const TOOL = { name: "report", description: "Reports what is in a picture.", parameters: SCHEMA };

export function messages(image) {
  if (!image) return [{ role: "user", content: QUESTION }];
  const parts = [
    { type: "image_url", image_url: { url: image } },
    { type: "text", text: QUESTION },
  ];
  return [{ role: "user", content: parts }];
}

export async function collected(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

// What the user is told when a call is refused.
export async function refusal(call) {
  try {
    return { answered: await call() };
  } catch (error) {
    return { type: error.name, message: error.message };
  }
}

export async function main(calls) {
  const [name, url, image] = process.argv.slice(2);
  console.log(JSON.stringify(await calls[name](url, image)));
}
