// Pictures on their way: picked, pasted or dropped, shown small, removed again, given as data URIs.

const list = document.getElementById("attached");
const hint = document.getElementById("drop-hint");
const files = document.getElementById("files");
const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];

let attached = [];
let tell = () => {};

/** Makes all three ways work. `onChange(message)` is told what happened, in words. */
export function startPictures(onChange) {
  tell = onChange;
  document.getElementById("add-pictures").addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    await add([...files.files]);
    files.value = "";
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length === 0) return;
    event.preventDefault();
    add(pasted);
  });
  startDropping();
}

/** The pictures, which are no longer attached then. */
export function takePictures() {
  const taken = attached;
  attached = [];
  draw();
  return taken;
}

/** Attaches pictures that were taken before. */
export function putBack(pictures) {
  attached = [...pictures, ...attached];
  draw();
}

/** Whether there is any. */
export function hasPictures() {
  return attached.length > 0;
}

function startDropping() {
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    hint.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
}

async function add(chosen) {
  const usable = chosen.filter((file) => TYPES.includes(file.type));
  const pictures = await Promise.all(usable.map(async (file) => ({ name: file.name, url: await dataUri(file) })));
  attached = [...attached, ...pictures];
  draw();
  const refused = chosen.filter((file) => !TYPES.includes(file.type)).map((file) => file.name);
  if (refused.length) tell(`Not a PNG, JPEG, WebP, GIF or BMP picture: ${refused.join(", ")}`, true);
  else tell(`${count(attached.length)} attached`, false);
}

function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function draw() {
  list.replaceChildren(...attached.map(item));
  list.hidden = attached.length === 0;
}

function item(picture, index) {
  const entry = document.createElement("li");
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "×";
  remove.setAttribute("aria-label", `Remove ${picture.name}`);
  remove.addEventListener("click", () => drop(index));
  entry.append(preview(picture), remove);
  return entry;
}

/** A picture as the page shows it. */
export function preview(picture) {
  const image = document.createElement("img");
  image.src = picture.url;
  image.alt = picture.name;
  return image;
}

function drop(index) {
  const [gone] = attached.splice(index, 1);
  draw();
  // The button that had the focus is gone: on to the next one, or back to the message.
  const next = list.querySelectorAll("button")[Math.min(index, attached.length - 1)];
  (next ?? document.getElementById("prompt")).focus();
  tell(`${gone.name} removed`, false);
}

function count(number) {
  return number === 1 ? "1 picture" : `${number} pictures`;
}
