// The conversation on the page. Whatever a model says is set as text and never read as HTML.

import { duration, stages, summary } from "./measures.js";
import { preview } from "./pictures.js";

const log = document.getElementById("log");
const welcome = document.getElementById("welcome");

/** Empties the page. */
export function clearConversation() {
  log.replaceChildren(welcome);
}

/** Shows what the user said. */
export function showUser({ text, pictures }) {
  welcome.remove();
  const turn = article("user", "You");
  if (pictures.length) turn.append(gallery(pictures));
  turn.append(paragraph(text));
  append(turn);
  return turn;
}

/** An answer that is on its way. Screen readers wait for a busy region to come to rest. */
export function showAnswer() {
  const turn = article("assistant", "Model");
  turn.setAttribute("aria-busy", "true");
  const text = paragraph("");
  turn.append(text);
  append(turn);
  return {
    add(piece) {
      const follows = isAtEnd();
      text.append(piece);
      if (follows) scrollToEnd();
    },
    finish: (answer, actions) => close(turn, measures(answer), row(actions)),
    stop: (actions) => close(turn, words(["stopped"]), row(actions)),
    fail(error, actions) {
      if (!text.textContent) text.remove();
      close(turn, failure(error), row(actions));
    },
  };
}

function close(turn, ...below) {
  const follows = isAtEnd();
  turn.removeAttribute("aria-busy");
  turn.append(...below);
  if (follows) scrollToEnd();
}

function article(kind, title) {
  const turn = document.createElement("article");
  turn.className = `turn ${kind}`;
  const heading = document.createElement("h2");
  heading.textContent = title;
  turn.append(heading);
  return turn;
}

function paragraph(text) {
  const said = document.createElement("div");
  said.className = "text";
  said.textContent = text;
  return said;
}

function gallery(pictures) {
  const list = document.createElement("ul");
  list.className = "pictures";
  list.append(...pictures.map((picture) => {
    const entry = document.createElement("li");
    entry.append(preview(picture));
    return entry;
  }));
  return list;
}

function measures(answer) {
  const all = document.createElement("div");
  all.append(words(summary(answer)), timings(answer));
  return all;
}

function words(texts) {
  const line = document.createElement("p");
  line.className = "measures";
  line.append(...texts.map((text) => {
    const part = document.createElement("span");
    part.textContent = text;
    return part;
  }));
  return line;
}

/** Where the time went: the server's stages up to the first token, then the whole as this page saw it. */
function timings({ serverTiming, milliseconds }) {
  const rows = stages(serverTiming).filter(({ name }) => name !== "total");
  if (milliseconds.first !== null) rows.push({ name: "first token", milliseconds: milliseconds.first });
  rows.push({ name: "whole answer", milliseconds: milliseconds.total });
  const box = document.createElement("details");
  box.className = "stages";
  const title = document.createElement("summary");
  title.textContent = "Timings";
  const table = document.createElement("table");
  table.append(...rows.map((stage) => timingRow(stage, milliseconds.total)));
  box.append(title, table);
  box.addEventListener("toggle", () => box.scrollIntoView({ block: "nearest" }));
  return box;
}

function timingRow({ name, milliseconds }, whole) {
  const row = document.createElement("tr");
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = name;
  const number = document.createElement("td");
  number.className = "number";
  number.textContent = duration(milliseconds);
  const cell = document.createElement("td");
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.style.width = `${Math.min(100, (milliseconds / whole) * 100)}%`;
  cell.append(bar);
  row.append(title, number, cell);
  return row;
}

function failure({ title, message }) {
  const box = document.createElement("div");
  box.className = "failure";
  box.setAttribute("role", "alert");
  const strong = document.createElement("strong");
  strong.textContent = title;
  box.append(strong, message);
  return box;
}

/** Buttons below an answer. */
function row(actions) {
  const line = document.createElement("div");
  line.className = "after";
  line.append(...actions.map(({ name, run }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = name;
    button.addEventListener("click", run);
    return button;
  }));
  return line;
}

function append(turn) {
  log.append(turn);
  scrollToEnd();
}

function isAtEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}
