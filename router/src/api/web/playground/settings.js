// The settings panel: what it holds, whether it makes sense, and, where the window is narrow, its coming and going.

const form = document.getElementById("settings-form");
const panel = document.getElementById("settings");
const opener = document.getElementById("open-settings");
const KEY = "api-key";
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/** Makes the panel work. `onKey` is called when another key has been entered. */
export function startSettings(onKey) {
  form.key.value = sessionStorage.getItem(KEY) ?? "";
  form.key.addEventListener("change", () => {
    sessionStorage.setItem(KEY, apiKey());
    onKey();
  });
  form.schema.addEventListener("input", showSchemaFault);
  NUMBERS.forEach((name) => form[name].addEventListener("input", () => mark(form[name], !form[name].validity.valid)));
  form.addEventListener("submit", (event) => event.preventDefault());
  opener.addEventListener("click", () => show(true));
  document.getElementById("close-settings").addEventListener("click", () => show(false));
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && panel.classList.contains("open")) show(false);
  });
}

/** The key that was entered, or an empty string. */
export function apiKey() {
  return form.key.value.trim();
}

/**
 * Everything but the key.
 * @throws {SyntaxError} with a text for people, when a field holds what cannot be sent; the field has the focus then
 */
export function readSettings() {
  const sampling = {};
  for (const name of NUMBERS) {
    const input = form[name];
    if (!input.validity.valid) complain(input, `${input.labels[0].textContent}: ${input.validationMessage}`);
    if (input.value !== "") sampling[name] = Number(input.value);
  }
  const fault = schemaFault();
  if (fault) complain(form.schema, `JSON schema: ${fault}`);
  const schema = form.schema.value.trim() ? JSON.parse(form.schema.value) : null;
  return { system: form.system.value, sampling, schema };
}

/** Opens the panel at the field for the key. */
export function askForKey() {
  show(true);
  form.key.focus();
}

function complain(field, message) {
  show(true);
  mark(field, true);
  field.focus();
  throw new SyntaxError(message);
}

function schemaFault() {
  const text = form.schema.value.trim();
  if (!text) return "";
  try {
    const schema = JSON.parse(text);
    return schema !== null && typeof schema === "object" && !Array.isArray(schema) ? "" : "must be an object";
  } catch (error) {
    return error.message;
  }
}

function showSchemaFault() {
  const fault = schemaFault();
  const said = document.getElementById("schema-error");
  said.hidden = !fault;
  said.textContent = fault;
  mark(form.schema, Boolean(fault));
}

function mark(field, wrong) {
  if (wrong) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

/** On a wide window the panel is always there and nothing has to happen. */
function show(open) {
  if (getComputedStyle(opener).display === "none") return;
  panel.classList.toggle("open", open);
  opener.setAttribute("aria-expanded", String(open));
  // What the panel covers must not take the focus.
  for (const covered of [document.getElementById("chat"), document.querySelector("header")]) covered.inert = open;
  if (open) document.getElementById("close-settings").focus();
  else opener.focus();
}

// A window that was narrow when the panel opened may be wide by now.
matchMedia("(max-width: 52rem)").addEventListener("change", () => {
  panel.classList.remove("open");
  opener.setAttribute("aria-expanded", "false");
  for (const covered of [document.getElementById("chat"), document.querySelector("header")]) covered.inert = false;
});
