// One WebSocket that comes back by itself, and the status line that says how it is.
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

/**
 * Keep a WebSocket open to the address in the page's `data-socket`, and show its state in `[data-status]`.
 *
 * `onMessage` gets each message, decoded from JSON; `onLoss` is called when the connection is lost, `onReturn` with the
 * date of that when there is one again. Returns `send(value)`, which is false when nothing was sent because the socket is
 * not open, and `close()`, after which it stays closed.
 */
export function live({ onMessage, onLoss = () => {}, onReturn = () => {} }) {
  const address = new URL(document.querySelector("[data-socket]").dataset.socket, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const status = document.querySelector("[data-status]");
  let socket = null;
  let timer = null;
  let attempts = 0;
  let openedAt = 0;
  let finished = false;
  let lost = null;

  function show(state, text) {
    status.dataset.status = state;
    // Written only when it changes: it is a live region, and each write may be read aloud.
    if (status.textContent !== text) status.textContent = text;
  }

  // In this demo the first frame of a connection names the process behind it.
  function name(process) {
    show("open", `Connected to process ${process}`);
    if (lost) onReturn(lost);
    lost = null;
  }

  function connect() {
    clearTimeout(timer);
    timer = null;
    const current = new WebSocket(address);
    socket = current;
    current.onopen = () => {
      openedAt = performance.now();
    };
    current.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.process) name(message.process);
      else onMessage(message);
    };
    current.onclose = ({ code }) => {
      if (openedAt && performance.now() - openedAt > LASTED_MS) attempts = 0;
      if (status.dataset.status === "open") {
        lost ??= new Date();
        onLoss();
      }
      openedAt = 0;
      if (finished) return;
      if (isFinal(code)) {
        finished = true;
        show("closed", REASONS[code] ?? `Closed (${code}).`);
        return;
      }
      show("waiting", "Reconnecting…");
      const bound = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** attempts);
      attempts += 1;
      timer = setTimeout(connect, Math.random() * bound);
    };
  }

  // Back online, back in front, or back from the browser's page cache: no reason to sit out the wait.
  function hurry() {
    if (timer !== null && !document.hidden) connect();
  }
  addEventListener("online", hurry);
  addEventListener("pageshow", hurry);
  document.addEventListener("visibilitychange", hurry);

  show("connecting", "Connecting…");
  connect();

  return {
    send(value) {
      if (socket.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(value));
      return true;
    },
    close() {
      finished = true;
      clearTimeout(timer);
      socket.close(1000);
      show("closed", "Closed");
    },
  };
}

/** Return a date's time of day as its reader writes it: 14:05, or 14:05:33 with seconds. */
export function clock(date, { seconds = false } = {}) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined });
}

/** Return the token Django wants with a POST; read anew each time, because signing in changes it. */
export function csrfToken() {
  return document.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/)?.[1] ?? "";
}
