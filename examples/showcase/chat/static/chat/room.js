// The chat page: shows what the room says, sends what you type.
//
// The room says it to everybody, so what you said is known to have arrived when you hear it; until then it is pale, and
// said again, with the same key, whenever the page is back: the room gets it once. One at a time, in your order.

import { clock, freshPage, live } from "../stage/live.js";

const log = document.querySelector("#log");
const empty = document.querySelector("#empty");
const here = document.querySelector("#here");
const typing = document.querySelector("#typing");
const composer = document.querySelector("#composer");
const me = document.querySelector("[data-user]").dataset.user;
const LOG_LIMIT = 200;
const TYPING_SAID_MS = 2_000;
const TYPING_SHOWN_MS = 4_000;

const outbox = new Map(); // key -> what was typed and not heard yet
const people = new Set(); // the names of who is here
const rendered = new Set(); // the keys of what came with the page
const typists = new Map(); // name -> the timer that forgets it
let typingSaid = -Infinity;

const connection = live({ onMessage: hear, onReady: speak, onReset: reload, onEnd: giveUp });

for (const item of log.querySelectorAll(".said")) rendered.add(item.dataset.key);
tellTimes(log);
log.scrollTop = log.scrollHeight;

function hear(frame) {
  if (frame.said) {
    forget(frame.said.sender);
    return place(frame.said);
  }
  if (frame.typing && frame.typing !== me) {
    clearTimeout(typists.get(frame.typing));
    typists.set(frame.typing, setTimeout(forget, TYPING_SHOWN_MS, frame.typing));
    tellTyping();
  } else {
    if (frame.here) people.clear();
    for (const name of frame.here ?? frame.came ?? []) people.add(name);
    for (const name of frame.left ?? []) people.delete(name);
    tellHere();
  }
}

// What is said

function speak() {
  const [next] = outbox;
  if (next) connection.send({ key: next[0], text: next[1] });
}

function place(said) {
  const shown = itemOf(said.key);
  const mine = outbox.delete(said.key);
  // Rendered with the page, and sent to it as well, once; false: it was heard before.
  if (shown && !mine) return rendered.delete(said.key);
  shown?.remove();
  show(said, { behind: ".pending" });
  if (mine) speak();
  return true;
}

function giveUp() {
  for (const key of outbox.keys()) {
    const item = itemOf(key);
    item.classList.replace("pending", "unsent");
    item.querySelector("time").textContent = "Not sent";
  }
  outbox.clear();
}

async function reload() {
  try {
    const page = await freshPage();
    for (const item of log.querySelectorAll(".said:not(.pending)")) item.remove();
    for (const item of page.querySelectorAll("#log .said")) rendered.add(item.dataset.key);
    const waiting = log.firstElementChild;
    for (const item of page.querySelectorAll("#log .said")) {
      if (!itemOf(item.dataset.key)) log.insertBefore(document.adoptNode(item), waiting);
    }
    tellTimes(log);
    empty.hidden = log.children.length > 0;
    log.scrollTop = log.scrollHeight;
  } catch {
    empty.textContent = "What was said could not be fetched: reload the page.";
    empty.hidden = false;
  }
}

function itemOf(key) {
  return log.querySelector(`[data-key="${CSS.escape(key)}"]`);
}

function show({ sender, text, key, at }, { pending = false, behind = "" } = {}) {
  const item = document.createElement("li");
  item.dataset.voice = sender;
  item.dataset.key = key;
  item.className = sender === me ? "said mine" : "said";
  item.classList.toggle("pending", pending);

  const name = document.createElement("span");
  name.className = "who";
  name.textContent = sender;
  const bubble = document.createElement("p");
  bubble.textContent = text;
  const time = document.createElement("time");
  time.dataset.at = at;
  item.append(name, bubble, time);
  tellTimes(item);

  // Someone who scrolled up to read is left where they are.
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  // What is still pale stays last: nobody knows its place yet.
  log.insertBefore(item, behind ? log.querySelector(behind) : null);
  for (const each of [item, item.nextElementSibling]) {
    each?.classList.toggle("continued", each.previousElementSibling?.dataset.voice === each.dataset.voice);
  }
  while (log.children.length > LOG_LIMIT) log.firstElementChild.remove();
  if (pinned || sender === me) log.scrollTop = log.scrollHeight;
  empty.hidden = true;
}

function tellTimes(within) {
  for (const time of within.querySelectorAll("time[data-at]")) time.textContent = clock(new Date(Number(time.dataset.at)));
}

// Who is here, and who is typing

function tellHere() {
  const others = [...people].filter((name) => name !== me);
  here.textContent = others.length ? `${list(others)} ${are(others)} here, too.` : "Nobody else is here.";
}

function list(names) {
  const capital = names.sort().map((name) => name[0].toUpperCase() + name.slice(1));
  return new Intl.ListFormat("en").format(capital);
}

function are(names) {
  return names.length > 1 ? "are" : "is";
}

function forget(name) {
  clearTimeout(typists.get(name));
  if (typists.delete(name)) tellTyping();
}

function tellTyping() {
  const names = [...typists.keys()];
  typing.textContent = names.length ? `${list(names)} ${are(names)} typing…` : "";
}

composer.addEventListener("input", () => {
  if (performance.now() - typingSaid < TYPING_SAID_MS || !composer.elements.text.value) return;
  if (connection.send({ typing: true })) typingSaid = performance.now();
});

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = composer.elements.text.value.trim();
  if (text) {
    const key = crypto.randomUUID();
    outbox.set(key, text);
    show({ sender: me, text, key, at: Date.now() }, { pending: true });
    if (outbox.size === 1) speak();
    composer.reset();
    typingSaid = -Infinity;
  }
  composer.elements.text.focus();
});
