// A connection that comes back by itself, and that misses nothing: over a WebSocket or an EventSource.
//
// Each message of a group with a history carries its position there, {epoch, offset}. The page begins with the one it was
// rendered at, keeps the newest it has seen, and presents it when it comes back, to whichever process: what it missed
// comes first. Where the server cannot bring that back it says so, and the page loads its state anew.
//
// Waits are random between zero and a bound that doubles (full jitter): after a restart the clients of a busy server must
// not all return at once. The bound falls back only after a connection that lasted. A close code that says "do not
// come back" is obeyed.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const LASTED_MS = 3_000;

const REASONS = {
  1000: "The server said goodbye.",
  1007: "The server did not understand this page.",
  1008: "Too many messages in too short a time.",
  1009: "A message was too large.",
  4401: "You are signed out.",
  4403: "Your access was withdrawn.",
  4430: "Too many windows are open.",
};

function isFinal(code) {
  return code in REASONS || (code >= 4400 && code < 4500);
}

// The position of no history.
const NOWHERE = { epoch: "", offset: 0 };

/** What the page has seen of one group: how far it has come, and what the badge counts. */
export class Seen {
  recovered = 0;
  duplicated = 0;
  lost = 0;
  missedUpTo = 0;

  constructor(position) {
    this.position = position;
  }

  /** Note a message's position; false: it was seen before. */
  take(position) {
    const { epoch, offset } = this.position;
    // By the offset alone: an engine that was restarted goes on counting, under another epoch. One that lost its log says
    // so first, see `lose`.
    if (epoch && position.offset <= offset) {
      this.duplicated += 1;
      return false;
    }
    if (epoch) this.lost += Math.max(0, position.offset - offset - 1);
    if (position.offset <= this.missedUpTo) this.recovered += 1;
    this.position = position;
    return true;
  }

  /** Give up what the server cannot bring back; `top`: where it goes on, if it says so. */
  lose(top) {
    const { epoch, offset } = this.position;
    if (epoch) this.lost += Math.max(1, epoch === top?.epoch ? top.offset - offset : 1);
    this.position = top ?? NOWHERE;
  }
}

// The two ways. Each calls `on.frame` with what arrives, decoded, and `on.end` with a close code.

function overSocket(address, seen, on) {
  const url = new URL(address);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  socket.onopen = () => socket.send(JSON.stringify({ since: seen.position }));
  socket.onmessage = (event) => on.frame(JSON.parse(event.data));
  socket.onclose = ({ code }) => on.end(code);
  return {
    send: (value) => socket.send(JSON.stringify(value)),
    close: () => socket.close(),
  };
}

function overEvents(address, seen, on) {
  const url = new URL(address);
  url.searchParams.set("since", seen.token);
  const source = new EventSource(url);
  source.onmessage = (event) => {
    // The id of an event is a signed text for its position.
    if (event.lastEventId) seen.token = event.lastEventId;
    on.frame(JSON.parse(event.data));
  };
  source.addEventListener("reset", () => on.frame({ reset: true }));
  source.onerror = async () => {
    // It would come back by itself, but not after a refusal, and it does not say why. The page's own address does:
    // whoever is signed out is sent elsewhere.
    source.close();
    const page = await fetch(location.href, { method: "HEAD", redirect: "manual" }).catch(() => null);
    on.end(page?.type === "opaqueredirect" ? 4401 : 1006);
  };
  return { close: () => source.close() };
}

/**
 * Keep a connection open to the address in the page's `data-socket` or `data-events`; show its state in `[data-status]`
 * and its counts in `[data-count]`.
 *
 * `onMessage` gets each message once, in order, and returns false for what it knows already; `onReady` is called when the page has joined, each time; `onReset` when
 * it must load its state anew; `onEnd` when the connection is closed for good. Returns `send(value)`, which is false when
 * nothing was sent because the page is not connected.
 */
export function live({ onMessage, onReady = () => {}, onReset = () => {}, onEnd = () => {} }) {
  const { socket, events, position, since } = document.querySelector("[data-position]").dataset;
  const address = new URL(socket ?? events, location.href);
  const status = document.querySelector("[data-status]");
  const seen = new Seen(JSON.parse(position));
  seen.token = since;
  let connection = null;
  let ready = false;
  let timer = null;
  let attempts = 0;
  let readyAt = 0;
  let refusedUntil = 0;
  let finished = false;

  function show(state, text) {
    status.dataset.status = state;
    // Written only when it changes: it is a live region, and each write may be read aloud.
    if (status.textContent !== text) status.textContent = text;
  }

  function count() {
    for (const place of document.querySelectorAll("[data-count]")) {
      const number = seen[place.dataset.count];
      place.textContent = number;
      place.classList.toggle("some", number > 0);
    }
  }

  function hear(frame) {
    // In this demo the first frame of a connection names the process behind it.
    if (frame.process) status.dataset.process = frame.process;
    else if (frame.joined) join(frame.joined);
    else if (frame.lost) lose(frame.lost.top);
    else if (frame.reset) lose();
    else if (!frame.position || seen.take(frame.position)) {
      // One thing at two positions: published twice.
      if (onMessage(frame) === false) seen.duplicated += 1;
    }
    count();
  }

  function join({ recovered, position }) {
    seen.missedUpTo = position.offset;
    if (recovered === false) lose(position);
    ready = true;
    readyAt = performance.now();
    show("open", `Connected to process ${status.dataset.process}`);
    onReady();
  }

  function lose(top) {
    seen.lose(top);
    onReset();
  }

  function connect() {
    clearTimeout(timer);
    timer = null;
    const on = {
      frame: (frame) => current === connection && hear(frame),
      end: (code) => current === connection && leave(code),
    };
    const current = (socket ? overSocket : overEvents)(address, seen, on);
    connection = current;
  }

  function leave(code) {
    if (ready && performance.now() - readyAt > LASTED_MS) attempts = 0;
    connection = null;
    ready = false;
    if (isFinal(code)) {
      finished = true;
      show("closed", REASONS[code] ?? `Closed (${code}).`);
      onEnd();
      return;
    }
    show("waiting", "Reconnecting…");
    const bound = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** attempts);
    attempts += 1;
    timer = setTimeout(connect, Math.random() * bound);
  }

  // Back online, back in front, or back from the browser's page cache: no reason to sit out the wait.
  function hurry() {
    if (timer !== null && !document.hidden && performance.now() >= refusedUntil) connect();
  }
  addEventListener("online", hurry);
  addEventListener("pageshow", hurry);
  document.addEventListener("visibilitychange", hurry);

  // A button of this demo: no network for so many milliseconds.
  document.addEventListener("live:drop", ({ detail }) => {
    if (finished) return;
    connection?.close();
    connection = null;
    ready = false;
    clearTimeout(timer);
    refusedUntil = performance.now() + detail;
    show("waiting", `No network for ${Math.round(detail / 1000)} s`);
    timer = setTimeout(connect, detail);
  });

  show("connecting", "Connecting…");
  count();
  connect();

  return {
    send(value) {
      if (ready) connection.send(value);
      return ready;
    },
  };
}

/** Fetch the page once more and return its document: its state, rendered now. Rejects when it cannot be had. */
export async function freshPage() {
  const response = await fetch(location.href);
  if (!response.ok) throw new Error(`${response.status}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

/** Return a date's time of day as its reader writes it: 14:05. */
export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** Return the token Django wants with a POST; read anew each time, because signing in changes it. */
export function csrfToken() {
  return document.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/)?.[1] ?? "";
}
