"""Start the server of the page: Streamlit in this process, by default for users of this machine only."""

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from cbir.app.settings import DATA_VARIABLE, MAX_UPLOAD_MB
from cbir.core.errors import ConfigError

_SCRIPT = Path(__file__).with_name("main.py")
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def run(data: Path, port: int, address: str, browser: bool) -> None:
    """Serve the page until interrupted.

    data : the folder of the artifacts; reports/ is next to it.  browser : open a browser if there is a screen.
    Raises ConfigError if Streamlit is not installed, or if the server cannot listen at this address and port.
    """
    try:
        from streamlit.web.cli import main as streamlit
    except ImportError as error:
        raise ConfigError("the page needs Streamlit: pip install .[app]") from error
    from cbir.app import map_page, report_page, search_page  # noqa: F401 - now, so that the first user does not wait

    _check_free(address, port)
    os.environ[DATA_VARIABLE] = str(data.absolute())
    streamlit(["run", str(_SCRIPT), *options(port, address, browser)], prog_name="cbir app")


def options(port: int, address: str, browser: bool) -> list[str]:
    """Streamlit's options; on the command line they override the user's configuration files."""
    values = {
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
    }
    if not browser:
        values["server.headless"] = True
    # otherwise a web site whose name resolves to 127.0.0.1 could read the page through the user's browser
    hosts = _LOOPBACK_HOSTS if _is_loopback(address) else ()
    arguments = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    ]
    return arguments + [f"--server.allowedHosts={host}" for host in hosts]


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


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
