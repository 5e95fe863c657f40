// The chat page: shows what the room says, sends what you type.

import { clock, live } from "../stage/live.js";

const log = document.querySelector("#log");
const empty = document.querySelector("#empty");
const composer = document.querySelector("#composer");
const me = document.querySelector("[data-user]").dataset.user;
const LOG_LIMIT = 200;

const socket = live({ onMessage: show });

function show({ sender, text }) {
  const pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const previous = log.lastElementChild?.dataset.voice;
  const item = document.createElement("li");
  item.dataset.voice = sender;
  item.className = sender === me ? "said mine" : "said";
  item.classList.toggle("continued", previous === sender);

  const name = document.createElement("span");
  name.className = "who";
  name.textContent = sender;
  const bubble = document.createElement("p");
  bubble.textContent = text;
  const time = document.createElement("time");
  time.textContent = clock(new Date());

  item.append(name, bubble, time);
  log.append(item);
  while (log.children.length > LOG_LIMIT) log.firstElementChild.remove();
  empty.hidden = true;
  // Someone who scrolled up to read is left where they are.
  if (pinned || sender === me) log.scrollTop = log.scrollHeight;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = composer.elements.text.value.trim();
  // What could not be sent stays in the field.
  if (text && socket.send({ text })) composer.reset();
  composer.elements.text.focus();
});
