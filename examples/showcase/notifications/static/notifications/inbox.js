// The notifications page: shows what arrives, and posts the form to an ordinary Django view. What arrived while the page
// was away is brought by its connection.

import { clock, csrfToken, freshPage, live } from "../stage/live.js";

const inbox = document.querySelector("#inbox");
const empty = document.querySelector("#empty");
const count = document.querySelector("#count");
const report = document.querySelector("#report");
const sender = document.querySelector("#sender");
const INBOX_LIMIT = 50;
const rendered = new Set(); // the ids of what came with the page
let fresh = 0;

live({
  onMessage(message) {
    if (message.type === "notification") return show(note(message));
    if (message.type === "report") report.textContent = message.text;
    return true;
  },
  async onReset() {
    try {
      const page = await freshPage();
      tellTime(page);
      for (const item of [...page.querySelectorAll("#inbox .note")].reverse()) {
        rendered.add(item.dataset.id);
        show(document.adoptNode(item));
      }
    } catch {
      report.textContent = "What arrived while you were away could not be fetched: reload the page.";
    }
  },
});

for (const item of inbox.querySelectorAll(".note")) rendered.add(item.dataset.id);
tellTime(document);

function tellTime(within) {
  for (const time of within.querySelectorAll("time[datetime]")) time.textContent = clock(new Date(time.dateTime));
}

function note(message) {
  const text = document.createElement("p");
  text.textContent = message.text;
  const who = document.createElement("span");
  who.className = "who";
  who.textContent = message.sender;
  const time = document.createElement("time");
  time.dateTime = message.at;
  time.textContent = clock(new Date(message.at));
  const origin = document.createElement("small");
  origin.append(who, message.source, time);

  const item = document.createElement("li");
  item.className = "note";
  item.dataset.voice = message.sender;
  item.dataset.id = message.id;
  item.append(text, origin);
  return item;
}

function show(item) {
  // Rendered with the page, and sent to it as well, once; false: it was shown before.
  if (inbox.querySelector(`[data-id="${item.dataset.id}"]`)) return rendered.delete(item.dataset.id);
  item.classList.add("fresh");
  inbox.prepend(item);
  while (inbox.children.length > INBOX_LIMIT) inbox.lastElementChild.remove();
  empty.hidden = true;

  fresh += 1;
  count.textContent = `${fresh} new`;
  count.hidden = false;
  return true;
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
