"""The page under load: many users who search and click at the same time for a minute, over the loopback interface.

    python -m benchmarks.app_load [--users 20] [--seconds 60] [--think 2]

Run it in the root of a repository whose pipeline has run.  It starts `cbir app`.  Each user is a client that talks to the
server as Streamlit's page does: by websocket, in the messages of streamlit.proto; it keeps the states of its widgets and its
address as a browser does.  (Twenty real browsers would load the machine more than the server does;
tests/app/test_app_browser.py drives a real one.)  A time is measured from Enter, or the click, until the last message of the
new results.
"""

import argparse
import asyncio
import itertools
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

import numpy as np
import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.embedding import machine

WORDS = ("star", "circle", "heart", "ring", "arrow", "cross", "square", "bolt")
COLOURS = ("red", "blue", "green", "yellow", "pink", "purple", "cyan", "orange")
RESULTS = 20
_MB = 1e6
_TIMEOUT_S = 60.0


@dataclass
class Log:
    """What the users measured: seconds of each search by kind ("text" or "click"), and errors."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"text": [], "click": []})
    errors: list[str] = field(default_factory=list)


@dataclass
class User:
    """A browser as the server sees it.  line : the websocket.  elements : of the last run of the script, by type."""

    line: ClientConnection
    address: str = f"k={RESULTS}"
    elements: dict[str, list[Any]] = field(default_factory=dict)

    async def run(self, **pressed: str) -> None:
        """Run the script, and wait for its end.

        pressed : "button", the id of the button that is pressed; "text", the content of the text box.
        """
        message = BackMsg()
        message.rerun_script.query_string = self.address
        states = message.rerun_script.widget_states.widgets
        for box in self.elements.get("text_input", []):
            states.add(id=box.id, string_value=pressed.get("text", box.value))
        for box in self.elements.get("number_input", []):
            states.add(id=box.id, int_value=RESULTS)
        for box in self.elements.get("checkbox", []):
            states.add(id=box.id, bool_value=False)
        for group in self.elements.get("button_group", []):
            state = states.add(id=group.id)
            state.string_array_value.data.append(group.options[0].content)
        if "button" in pressed:
            states.add(id=pressed["button"], trigger_value=True)
        await self.line.send(message.SerializeToString())
        await self._listen()

    async def _listen(self) -> None:
        self.elements = {}
        while True:
            message = ForwardMsg()
            data = await asyncio.wait_for(self.line.recv(), _TIMEOUT_S)
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            match message.WhichOneof("type"):
                case "page_info_changed":
                    self.address = message.page_info_changed.query_string
                case "delta" if kind := message.delta.new_element.WhichOneof("type"):
                    self.elements.setdefault(kind, []).append(getattr(message.delta.new_element, kind))
                case "script_finished" if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                    return

    @property
    def results(self) -> int:
        return sum(element.body.count("Result ") for element in self.elements.get("html", []))

    def buttons(self, label: str) -> list[str]:
        return [element.id for element in self.elements.get("button", []) if element.label == label]

    def error(self, query: str) -> str:
        """What is wrong with the page; empty if nothing is.  query : the parameter that its address must have."""
        if "exception" in self.elements or "alert" in self.elements:
            return str(self.elements.get("exception") or self.elements["alert"])
        if self.results != RESULTS or query not in parse_qs(self.address):
            return f"expected {RESULTS} results of {query}, found {self.results} at ?{self.address}"
        return ""


async def use(port: int, number: int, until: float, think_s: float, log: Log) -> None:
    """One user: search for a new text, click on one of its results, and so on."""
    url = f"ws://127.0.0.1:{port}/_stcore/stream"
    try:
        async with connect(url, subprotocols=["streamlit"], max_size=None, origin=f"http://127.0.0.1:{port}") as line:  # type: ignore[list-item,arg-type]
            user = User(line)
            await user.run()
            for turn in itertools.count():
                for kind in ("text", "click"):
                    await asyncio.sleep(think_s)
                    if monotonic() > until:
                        return
                    begun = perf_counter()
                    if kind == "text":
                        text = f"a {COLOURS[turn % 8]} {WORDS[number % 8]} {number}-{turn}"
                        await user.run(button=user.buttons("Search")[0], text=text)
                    else:
                        await user.run(button=user.buttons("More like this")[(number + turn) % 10])
                    log.seconds[kind].append(perf_counter() - begun)
                    if error := user.error("q" if kind == "text" else "like"):
                        log.errors.append(f"{kind}: {error}")
    except Exception as error:  # whatever it is, it counts as an error of the page
        log.errors.append(f"{type(error).__name__}: {error}")


async def load(
    port: int, users: int, seconds: float, think_s: float, server: psutil.Process
) -> tuple[Log, dict[str, int]]:
    """Run all users at once; return their log, and the resident bytes of the server at several times."""
    log, resident = Log(), {"at the start": server.memory_info().rss}
    begun = monotonic()
    tasks = [asyncio.create_task(use(port, n, begun + seconds, think_s, log)) for n in range(users)]
    for after_s in (10.0, seconds / 2):
        await asyncio.sleep(max(0.0, begun + after_s - monotonic()))
        resident[f"after {after_s:.0f} s"] = server.memory_info().rss
    await asyncio.gather(*tasks)
    resident["at the end"] = server.memory_info().rss
    return log, resident


def start(port: int) -> "subprocess.Popen[bytes]":
    """Start `cbir app`, and wait until it responds."""
    command = [sys.executable, "-m", "cbir", "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = monotonic() + _TIMEOUT_S
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
    parser.add_argument("--think", type=float, default=2.0, help="seconds between a user's results and the next query")
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = start(port)
    try:
        process = psutil.Process(server.pid)
        log, resident = asyncio.run(load(port, options.users, options.seconds, options.think, process))
    finally:
        server.terminate()
        server.wait()
    print(
        f"{machine()}; {options.users} users, {options.seconds:.0f} s, {options.think:g} s between results and the next query"
    )
    by_kind = {**log.seconds, "all": list(itertools.chain(*log.seconds.values()))}
    for kind, seconds in by_kind.items():
        if seconds:
            p50, p95, worst = np.percentile(seconds, [50, 95, 100])
            print(f"{kind:6} {len(seconds):5,} searches  p50 {p50:.2f} s  p95 {p95:.2f} s  worst {worst:.2f} s")
    print("server's memory: " + ", ".join(f"{size / _MB:,.0f} MB {when}" for when, size in resident.items()))
    print(f"errors: {len(log.errors)}", *sorted(set(log.errors))[:10], sep="\n  ")


if __name__ == "__main__":
    main()
