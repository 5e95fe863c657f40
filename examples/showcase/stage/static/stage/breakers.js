// The buttons that break something under the page, so that one sees it come back. For this demo only.

import { csrfToken } from "./live.js";

const DROP_MS = 5_000;
const breakers = document.querySelector("#breakers");
const report = breakers.querySelector("[role=status]");

breakers.addEventListener("click", async ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  if (button.dataset.breaks === "network") {
    document.dispatchEvent(new CustomEvent("live:drop", { detail: DROP_MS }));
    return;
  }
  const body = new FormData();
  body.set("process", document.querySelector("[data-status]").dataset.process ?? "");
  report.textContent = "";
  try {
    const headers = { "X-CSRFToken": csrfToken() };
    const response = await fetch(button.dataset.address, { method: "POST", headers, body });
    report.textContent = (await response.json()).report;
  } catch {
    report.textContent = "The server did not answer.";
  }
});
