"""Many users of the page at once: browsers on this machine search, click through and upload for a minute.

    python -m benchmarks.app_load [--users 20] [--seconds 60] [--think 1.0]

Run it in the root of a repository whose pipeline has run.  It starts `cbir app` on the loopback, and one headless Chromium with
a context of its own for each user.  A time is from Enter, or the click, until the results of this very query are on the screen;
so it holds the browsers' own work, too, which shares the machine's cores with the server.
"""

import argparse
import asyncio
import itertools
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from io import BytesIO
from time import monotonic, perf_counter
from urllib.request import urlopen

import numpy as np
import psutil
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.embedding import machine

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WORDS = ("star", "circle", "heart", "ring", "arrow", "cross", "square", "bolt")
COLOURS = ("red", "blue", "green", "yellow", "pink", "purple", "cyan", "orange")
_MB = 1e6
_PATIENCE_S = 60.0


@dataclass
class Seen:
    """What the users saw: seconds of each search by kind, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"text": [], "click": [], "upload": []})
    errors: list[str] = field(default_factory=list)


async def user(browser: Browser, url: str, number: int, until: float, think_s: float, seen: Seen) -> None:
    """One user: a text, a click, an upload, and from the beginning."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(1000 * _PATIENCE_S)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    try:
        await page.goto(url)
        await page.get_by_label("Search by text").wait_for()
        for turn in itertools.count():
            for act in (_text, _click, _upload):
                if monotonic() > until:
                    return
                begun = perf_counter()
                kind = await act(page, number, turn)
                seen.seconds[kind].append(perf_counter() - begun)
                if await page.locator("[data-testid=stException], [data-testid=stAlertContainer]").count():
                    seen.errors.append(f"{kind}: {await page.locator('[role=alert]').first.inner_text()}")
                await asyncio.sleep(think_s)
    except Exception as error:  # it counts as one, whatever it was
        seen.errors.append(f"{type(error).__name__}: {error}")
    finally:
        await context.close()


async def _text(page: Page, number: int, turn: int) -> str:
    """A text that nobody has searched for before."""
    text = f"a {COLOURS[turn % len(COLOURS)]} {WORDS[number % len(WORDS)]} {number}-{turn}"
    box = page.get_by_label("Search by text")
    await box.fill(text)
    before = await _first(page)
    await box.press("Enter")
    await page.wait_for_function("text => new URLSearchParams(location.search).get('q') === text", arg=text)
    await _settled(page, before)
    return "text"


async def _click(page: Page, number: int, turn: int) -> str:
    """The button under one of the results; a result is never among its own."""
    place = (number + turn) % 10
    wanted = await page.locator(".cbir-card .id").nth(place).inner_text()
    before = await _first(page)
    await page.get_by_role("button", name="More like this").nth(place).click()
    await page.wait_for_function("id => new URLSearchParams(location.search).get('like') === id", arg=wanted)
    await _settled(page, before)
    return "click"


async def _upload(page: Page, number: int, turn: int) -> str:
    name = f"{number}-{turn}.png"
    before = await _first(page)
    file = {"name": name, "mimeType": "image/png", "buffer": _picture(1000 * number + turn)}
    await page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    await page.get_by_text(f"Images like {name}").wait_for()
    await _settled(page, before)
    return "upload"


async def _first(page: Page) -> str:
    """What tells one list of results from another: the line above it, with its times, and the first score."""
    told = await page.locator("[data-testid=stCaptionContainer]").all_inner_texts()
    return "".join(told[:1])


async def _settled(page: Page, before: str) -> None:
    """Until the line above the results is a new one, and the script has run to its end."""
    await page.wait_for_function(
        """before => {
            const line = document.querySelector('[data-testid=stCaptionContainer]')?.innerText;
            const running = document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'running';
            return line && line !== before && !running && !document.querySelector('[data-stale=true]')
                && document.querySelectorAll('.cbir-card .id').length >= 10;
        }""",
        arg=before,
    )


def _picture(seed: int) -> bytes:
    """A PNG of 300 x 300 pixels that nobody has seen before."""
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).resize((300, 300), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


async def load(
    url: str, users: int, seconds: float, think_s: float, server: psutil.Process
) -> tuple[Seen, dict[str, int]]:
    """All users at once for so many seconds; what they saw, and the server's resident bytes as time went by."""
    seen, resident = Seen(), {"at the start": server.memory_info().rss}
    async with async_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        until = monotonic() + seconds
        tasks = [asyncio.create_task(user(browser, url, n, until, think_s, seen)) for n in range(users)]
        for after_s in (10.0, seconds / 2):
            await asyncio.sleep(max(0.0, after_s - (seconds - (until - monotonic()))))
            resident[f"after {after_s:.0f} s"] = server.memory_info().rss
        await asyncio.gather(*tasks)
        resident["at the end"] = server.memory_info().rss
        await browser.close()
    return seen, resident


def start(port: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cbir", "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = monotonic() + _PATIENCE_S
    while monotonic() < until and server.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
        except OSError:
            continue
        return server
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--think", type=float, default=1.0, help="seconds between a user's results and the next query")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(port)
    try:
        told = load(
            f"http://127.0.0.1:{port}", options.users, options.seconds, options.think, psutil.Process(server.pid)
        )
        seen, resident = asyncio.run(told)
    finally:
        server.terminate()
        server.wait()
    print(f"{machine()}; {options.users} users, {options.seconds:.0f} s, {options.think:g} s of thought")
    every = {**seen.seconds, "all": list(itertools.chain(*seen.seconds.values()))}
    for kind, seconds in every.items():
        if seconds:
            p50, p95, worst = np.percentile(seconds, [50, 95, 100])
            print(f"{kind:7} {len(seconds):5,} searches  p50 {p50:.2f} s  p95 {p95:.2f} s  worst {worst:.2f} s")
    print("server's memory: " + ", ".join(f"{size / _MB:,.0f} MB {when}" for when, size in resident.items()))
    print(f"errors: {len(seen.errors)}", *sorted(set(seen.errors))[:10], sep="\n  ")


if __name__ == "__main__":
    main()
