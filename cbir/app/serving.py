"""Start the server of the page: Streamlit in this process, by default for users of this machine only."""

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from cbir.app.settings import DATA_VARIABLE, MAX_UPLOAD_MB
from cbir.core.errors import ConfigError
from cbir.core.text import listed

_SCRIPT = Path(__file__).with_name("main.py")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with what the user typed


def run(data: Path, port: int, address: str, hosts: Sequence[str], browser: bool) -> None:
    """Serve the page until interrupted.

    data : the folder of the artifacts; reports/ is next to it.  hosts : names under which users reach the server, besides
    localhost and its addresses.  browser : open a browser if there is a screen.
    Raises ConfigError if Streamlit is not installed, if the server cannot listen at this address and port, or if one of the
    hosts is no name.
    """
    try:
        import streamlit as st
        from starlette.middleware import Middleware
    except ImportError as error:
        raise ConfigError("the page needs Streamlit: pip install .[app]") from error
    from cbir.app import map_page, report_page, search_page  # noqa: F401 - now, so that the first user does not wait
    from cbir.app.guard import Guard, checked_host

    hosts = [checked_host(host) for host in hosts]
    _check_free(address, port)
    os.environ[DATA_VARIABLE] = str(data.absolute())
    urls = addresses_of(address, port, hosts)

    @asynccontextmanager
    async def announced(_: Any) -> AsyncIterator[None]:
        print(f"the page is at {listed(urls)}; Ctrl-C stops the server", flush=True)
        if not st.get_option("server.headless"):
            open_page = partial(webbrowser.open, urls[0])
            Thread(target=open_page, daemon=True).start()  # some browsers return when they are closed
        yield

    app = st.App(_SCRIPT, lifespan=announced, middleware=[Middleware(Guard, hosts=hosts)])
    sys.argv = [str(_SCRIPT)]  # Streamlit adds the folder of this file to sys.path
    with suppress(KeyboardInterrupt):
        app.run(config=options(port, address, browser))


def options(port: int, address: str, browser: bool) -> dict[str, Any]:
    """Streamlit's options, which override the user's configuration files."""
    values: dict[str, Any] = {
        "server.address": address,
        "server.port": port,
        "server.maxUploadSize": MAX_UPLOAD_MB,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": False,
        # a full garbage collection after each interaction blocks all users: with 20 of them, 90 % of the time they waited
        "runner.postScriptGC": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorLinks": False,
        "client.showErrorDetails": "none",  # tracebacks go to the log of the server, not to the user
        "logger.hideWelcomeMessage": True,  # which names this machine's address in the internet, for which it asks another host
    }
    return values if browser else values | {"server.headless": True}


def addresses_of(address: str, port: int, hosts: Sequence[str]) -> list[str]:
    """The addresses that users open, the first on this machine.

    >>> addresses_of("0.0.0.0", 8501, ["nas.local"]), addresses_of("::1", 8501, ["photos.example"])
    (['http://localhost:8501', 'http://nas.local:8501'], ['http://[::1]:8501'])
    """
    own = f"[{address}]" if ":" in address else address
    names = ["localhost", *hosts] if address in _WILDCARDS else [own]  # a proxy in front has an address of its own
    return [f"http://{name}:{port}" for name in names]


def _check_free(address: str, port: int) -> None:
    """Raise ConfigError if no server can listen at this address and port."""
    if not 1 <= port <= 65_535:
        raise ConfigError(f"--port: expected a number from 1 to 65535, found {port}")
    try:
        family, kind, protocol, _, endpoint = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just released counts as free
            trial.bind(endpoint)
    except socket.gaierror as error:
        raise ConfigError(
            f"--address: expected an address of this machine, found {address!r}: {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use: choose another one, `cbir app --port {port % 65_535 + 1}`"
            ) from error
        raise ConfigError(
            f"cannot listen at {address}, port {port}: {error.strerror}; choose another --address or --port"
        ) from error
