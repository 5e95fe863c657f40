// The notifications page: shows what arrives, and posts the form to an ordinary Django view. What arrived while the page
// was away is in the database: it is fetched on return.

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
    if (message.type === "notification") show(note(message));
    else if (message.type === "report") report.textContent = message.text;
  },
  async onReturn() {
    try {
      const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
      tellTime(page);
      for (const item of [...page.querySelectorAll("#inbox .note")].reverse()) show(document.adoptNode(item));
    } catch {
      report.textContent = "What arrived while you were away could not be fetched: reload the page.";
    }
  },
});

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
  time.textContent = clock(new Date());
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
  if (inbox.querySelector(`[data-id="${item.dataset.id}"]`)) return;
  item.classList.add("fresh");
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
