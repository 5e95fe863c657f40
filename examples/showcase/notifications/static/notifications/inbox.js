// The notifications page: shows what arrives, and posts the form to an ordinary Django view.

import { clock, csrfToken, live } from "../stage/live.js";

const inbox = document.querySelector("#inbox");
const empty = document.querySelector("#empty");
const count = document.querySelector("#count");
const report = document.querySelector("#report");
const sender = document.querySelector("#sender");
const INBOX_LIMIT = 50;
let fresh = 0;

live({
  onMessage(message) {
    if (message.type === "notification") show(message);
    else if (message.type === "report") report.textContent = message.text;
  },
});

for (const time of document.querySelectorAll("time[datetime]")) time.textContent = clock(new Date(time.dateTime));

function show(message) {
  const text = document.createElement("p");
  text.textContent = message.text;
  const who = document.createElement("span");
  who.className = "who";
  who.textContent = message.sender;
  const time = document.createElement("time");
  time.textContent = clock(new Date());
  const origin = document.createElement("small");
  origin.append(who, message.source, time);

  const item = document.createElement("li");
  item.className = "note fresh";
  item.dataset.voice = message.sender;
  item.append(text, origin);
  inbox.prepend(item);
  while (inbox.children.length > INBOX_LIMIT) inbox.lastElementChild.remove();
  empty.hidden = true;

  fresh += 1;
  count.textContent = `${fresh} new`;
  count.hidden = false;
}

sender.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new FormData(sender, event.submitter);
  report.textContent = "Sending…";
  try {
    const response = await fetch(sender.action, { method: "POST", headers: { "X-CSRFToken": csrfToken() }, body });
    report.textContent = (await response.json()).report;
  } catch {
    report.textContent = "The server did not answer.";
  }
});
