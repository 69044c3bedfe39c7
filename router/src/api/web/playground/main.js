// The playground: takes a message, sends the conversation, shows the answer as it comes. What it knows is here; how it
// looks is in the other files. Nothing leaves for anywhere but the server that the page came from.

import { clearConversation, showAnswer, showUser } from "./conversation.js";
import { asCurl, asPython } from "./copy.js";
import { hasPictures, putBack, startPictures, takePictures } from "./pictures.js";
import { CHAT_ROUTE, chatBody } from "./request.js";
import { askInfo, Refused, streamChat } from "./server.js";
import { apiKey, askForKey, readSettings, startSettings } from "./settings.js";

const byId = (id) => document.getElementById(id);
const prompt = byId("prompt");

let info = null;
/** What was said and answered, oldest first. */
let turns = [];
/** Set while an answer is on its way. */
let running = null;

async function meetServer() {
  try {
    info = await askInfo(apiKey());
  } catch (error) {
    byId("model").textContent = error.title ?? "The server does not answer";
    if (error.status === 401) askForKey();
    return;
  }
  byId("model").textContent = info.model_id;
  document.title = `${info.model_id} · Playground`;
  byId("add-pictures").disabled = !info.takes_images;
  byId("add-pictures").title = info.takes_images ? "" : "This model takes no images";
  showLimits();
}

function showLimits() {
  const number = (value) => value.toLocaleString("en");
  const rows = {
    Model: info.model_id,
    "Input tokens": number(info.max_input_tokens),
    "Input and answer": number(info.max_total_tokens),
    "Request size": `${number(Math.round(info.payload_limit / 2 ** 20))} MiB`,
    Runs: [info.model_dtype, info.model_device_type].filter(Boolean).join(" on "),
    Version: info.version,
  };
  byId("limits").replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(([name, value]) => {
    const title = document.createElement("dt");
    const text = document.createElement("dd");
    [title.textContent, text.textContent] = [name, value];
    return [title, text];
  }));
}

async function submit() {
  if (running || (!prompt.value.trim() && !hasPictures())) return;
  const settings = validSettings();
  if (!settings) return;
  const said = { role: "user", text: prompt.value, pictures: takePictures() };
  const body = chatBody([...turns, said], settings);
  if (!fits(body)) {
    putBack(said.pictures);
    return;
  }
  prompt.value = "";
  complain("");
  await answer(said, body);
}

function validSettings() {
  try {
    return { model: info?.model_id ?? "default", ...readSettings() };
  } catch (error) {
    complain(error.message);
    return null;
  }
}

/** A body over the limit is refused by cutting the connection short, which says less than this. */
function fits(body) {
  const bytes = new Blob([JSON.stringify(body)]).size;
  if (!info || bytes <= info.payload_limit) return true;
  complain(`This is ${(bytes / 2 ** 20).toFixed(1)} MiB; the server takes ${info.payload_limit / 2 ** 20} MiB at once.`);
  return false;
}

async function answer(said, body) {
  const shownQuestion = showUser(said);
  const shown = showAnswer();
  const url = new URL(CHAT_ROUTE, document.baseURI).href;
  const key = apiKey();
  const actions = copies(url, body, Boolean(key));
  let text = "";
  const onText = (piece) => {
    text += piece;
    shown.add(piece);
  };
  // A new chat may begin while this one is still being stopped.
  const conversation = turns;
  const remember = () => conversation.push(said, { role: "assistant", text });
  setRunning(new AbortController());
  try {
    const outcome = await streamChat({ url, body, key, signal: running.signal, onText });
    remember();
    shown.finish(outcome, [{ name: "Copy answer", run: () => copy(text, "Answer") }, ...actions]);
    announce("The answer is complete");
  } catch (error) {
    if (error.name === "AbortError") {
      shown.stop(actions);
      announce("Stopped");
      if (text) remember();
      else if (conversation === turns) takeBack(said, shownQuestion);
    } else {
      shown.fail(described(error), actions);
      takeBack(said, shownQuestion);
      if (error.status === 401) askForKey();
    }
  } finally {
    setRunning(null);
  }
}

function described(error) {
  return error instanceof Refused ? error : { title: "This page failed", message: String(error) };
}

/** A message without an answer is no part of the conversation: it can be mended and sent again. */
function takeBack(said, shownQuestion) {
  shownQuestion.classList.add("unanswered");
  putBack(said.pictures);
  if (!prompt.value) prompt.value = said.text;
}

function copies(url, body, keyed) {
  const base = new URL("v1", document.baseURI).href;
  return [
    { name: "Copy as curl", run: () => copy(asCurl(url, body, keyed), "Command") },
    { name: "Copy as Python", run: () => copy(asPython(base, body, keyed), "Program") },
  ];
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
  } catch {
    byId("copy-text").value = text;
    byId("copy-dialog").showModal();
    byId("copy-text").select();
  }
}

function setRunning(controller) {
  // The focus must not fall off a button that goes away.
  const moves = document.activeElement === byId("stop");
  running = controller;
  byId("stop").hidden = controller === null;
  byId("send").hidden = controller !== null;
  if (moves) prompt.focus();
}

function newChat() {
  running?.abort();
  turns = [];
  clearConversation();
  complain("");
  prompt.focus();
}

function announce(text) {
  byId("status").textContent = text;
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

startSettings(meetServer);
startPictures((message, isWrong) => (isWrong ? complain(message) : announce(message)));
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
prompt.addEventListener("keydown", (event) => {
  // An input method uses Enter to choose a character.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("new-chat").addEventListener("click", newChat);
meetServer();
