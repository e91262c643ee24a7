"""`cbir app`, watched from within: `python -m tests.support.watched_app EVENTS ARGUMENTS...`

Each line of EVENTS is "asks HOST", for a name that the process looks up or an address that it connects or sends to, or
"stores BYTES", the size of all files in Streamlit's store of uploads after a change of it.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cbir.cli.main import main
from tests.support.imports import ROOT

_ASKING = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
_THIS_MACHINE = {"127.0.0.1", "::1", "localhost", "0.0.0.0"}


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Run `cbir app` on a free port, over folder/data; yield its address.  Afterwards, it must have asked no other host."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log, events = folder / "server.log", _events_file(folder)
    command = [sys.executable, "-m", "tests.support.watched_app", str(events)]
    command += ["app", "--no-browser", "--port", str(port), *options]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("w") as sink, subprocess.Popen(command, cwd=folder, env=env, stdout=sink, stderr=sink) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(600)
    assert "Traceback" not in log.read_text(encoding="utf-8"), log.read_text(encoding="utf-8")
    assert {host for kind, host in _read(events) if kind == "asks"} <= _THIS_MACHINE


def stored_bytes(folder: Path) -> list[int]:
    """The size of the store of uploads after each change, for the server of this folder."""
    return [int(size) for kind, size in _read(_events_file(folder)) if kind == "stores"]


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 600
    while time.monotonic() < until and server.poll() is None:
        try:
            urlopen(url, timeout=600).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text(encoding='utf-8')}")


def _events_file(folder: Path) -> Path:
    return folder / "events.log"


def _read(events: Path) -> list[tuple[str, str]]:
    lines = events.read_text(encoding="utf-8").splitlines()
    return [(kind, value) for kind, _, value in (line.partition(" ") for line in lines)]


# ---- in the server


def watch(events: Path) -> None:
    """Write each event of this process to a file, from now on."""
    file = events.open("w", encoding="utf-8", buffering=1)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _ASKING:
            target = arguments[0] if event.startswith("socket.get") else arguments[1]
            file.write(f"asks {target[0] if isinstance(target, tuple) else target}\n")

    sys.addaudithook(audit)
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager as Store

    for name in ("add_file", "remove_file", "remove_session_files"):
        setattr(Store, name, _watched(getattr(Store, name), file.write))


def _watched(change: Callable[..., None], write: Callable[[str], object]) -> Callable[..., None]:
    def watched(store: Any, *arguments: Any, **named: Any) -> None:
        change(store, *arguments, **named)
        write(f"stores {sum(len(file.data) for files in store.file_storage.values() for file in files.values())}\n")

    return watched


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    main(sys.argv[2:])
