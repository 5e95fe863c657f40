// The chat page: shows what the room says, sends what you type.
//
// The room says it to everybody, so what you said is known to have arrived when you hear it; until then it is pale. What
// is said while you are away nobody repeats to you, and the page says when that was.

import { clock, live } from "../stage/live.js";

const log = document.querySelector("#log");
const empty = document.querySelector("#empty");
const composer = document.querySelector("#composer");
const me = document.querySelector("[data-user]").dataset.user;
const LOG_LIMIT = 200;

const socket = live({ onMessage: hear, onLoss: doubt, onReturn: tellGap });

function hear({ sender, text }) {
  const waiting = [...log.querySelectorAll(".pending")].find((item) => item.querySelector("p").textContent === text);
  if (sender === me && waiting && waiting === log.lastElementChild) {
    waiting.classList.remove("pending");
    return;
  }
  // Others were heard before it: it takes its place behind them.
  if (sender === me) waiting?.remove();
  show({ sender, text });
}

function doubt() {
  for (const item of log.querySelectorAll(".pending")) {
    item.classList.replace("pending", "unsent");
    item.querySelector("time").textContent = "Perhaps not sent";
  }
}

function tellGap(since) {
  const item = document.createElement("li");
  item.className = "gap";
  const [from, to] = [since, new Date()].map((date) => clock(date, { seconds: true }));
  const when = from === to ? `at ${to}` : `from ${from} to ${to}`;
  item.textContent = `You were away ${when}. What was said then is not here.`;
  append(item, false);
}

function append(item, mine) {
  // Someone who scrolled up to read is left where they are.
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(item);
  while (log.children.length > LOG_LIMIT) log.firstElementChild.remove();
  if (pinned || mine) log.scrollTop = log.scrollHeight;
  empty.hidden = true;
}

function show({ sender, text }, { pending = false } = {}) {
  const previous = log.lastElementChild?.dataset.voice;
  const item = document.createElement("li");
  item.dataset.voice = sender;
  item.className = sender === me ? "said mine" : "said";
  item.classList.toggle("continued", previous === sender);
  item.classList.toggle("pending", pending);

  const name = document.createElement("span");
  name.className = "who";
  name.textContent = sender;
  const bubble = document.createElement("p");
  bubble.textContent = text;
  const time = document.createElement("time");
  time.textContent = clock(new Date());

  item.append(name, bubble, time);
  append(item, sender === me);
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = composer.elements.text.value.trim();
  // What could not be sent stays in the field.
  if (text && socket.send({ text })) {
    show({ sender: me, text }, { pending: true });
    composer.reset();
  }
  composer.elements.text.focus();
});
