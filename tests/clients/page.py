"""The official client in a page of a headless Chromium: orders come in lines, answers and events go out in lines."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from playwright.async_api import Page, async_playwright

SWITCHES = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
START = """async () => {
  const { driving } = await import("/files/driving.mjs");
  window.order = driving(globalThis.Centrifuge, {}, (event) => window.say(event));
}"""


def say(line: Any) -> None:
    """Tell the test."""
    print(json.dumps(line), flush=True)


async def main(executable: str) -> None:
    """Do what the lines say. An order "visit" opens a page; the others go to the page of that name."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=SWITCHES)
        pages: dict[str, Page] = {}

        async def visit(url: str) -> None:
            page = await browser.new_page()
            page.on("pageerror", lambda error: say({"who": None, "event": "page_error", "error": str(error)}))
            await page.expose_function("say", say)
            await page.goto(url)
            await page.evaluate(START)
            pages[url] = page

        async def carry_out(order: Any) -> None:
            url = order.pop("page")
            try:
                if url not in pages:
                    await visit(url)
                say(await pages[url].evaluate("(order) => window.order(order)", order))
            except Exception as exc:  # the test is told, and fails
                say({"number": order["number"], "error": {"code": None, "message": repr(exc), "temporary": False}})

        tasks: set[asyncio.Task[None]] = set()
        while line := await reader.readline():
            order = json.loads(line)
            if order["page"] not in pages:
                await carry_out(order)
                continue
            task = asyncio.create_task(carry_out(order))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
