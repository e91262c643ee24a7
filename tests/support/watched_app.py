"""`cbir app`, watched from within: `python -m tests.support.watched_app LOG ARGUMENTS...`

Each line of LOG is one event: "asks ADDRESS" for each host whose name or address the process looks up, connects to or sends
to, and "stores BYTES", the size of all files in Streamlit's store of uploads, for each change of it.
"""

import sys
from pathlib import Path
from typing import Any

from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from cbir.cli.main import main

LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


def watch(log: Path) -> None:
    """Write each event of this process to `log`, from now on."""
    events = log.open("a", encoding="utf-8", buffering=1)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            events.write(f"asks {arguments[1][0]}\n")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            events.write(f"asks {arguments[0]}\n")

    sys.addaudithook(audit)
    for name in ("add_file", "remove_file", "remove_session_files"):
        _watch_store(name, lambda size: events.write(f"stores {size}\n"))


def _watch_store(name: str, write: Any) -> None:
    change = getattr(MemoryUploadedFileManager, name)

    def watched(store: MemoryUploadedFileManager, *arguments: Any, **named: Any) -> None:
        change(store, *arguments, **named)
        write(sum(len(file.data) for files in store.file_storage.values() for file in files.values()))

    setattr(MemoryUploadedFileManager, name, watched)


def asked_hosts(log: Path) -> set[str]:
    """The hosts other than this machine that the process asked."""
    return {host for kind, host in _events(log) if kind == "asks"} - {*LOOPBACK}


def stored_bytes(log: Path) -> list[int]:
    """The size of the store after each change."""
    return [int(size) for kind, size in _events(log) if kind == "stores"]


def _events(log: Path) -> list[tuple[str, str]]:
    lines = log.read_text(encoding="utf-8").splitlines()
    return [(kind, value) for kind, _, value in (line.partition(" ") for line in lines)]


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    main(sys.argv[2:])
