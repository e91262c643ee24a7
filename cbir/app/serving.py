"""Start the page's server: Streamlit, in this process, closed towards everybody but this machine's users."""

import errno
import os
import socket
from ipaddress import ip_address
from pathlib import Path

from cbir.core.errors import ConfigError

MAX_UPLOAD_MB = 20
DATA, REPORTS, URLS = "CBIR_APP_DATA", "CBIR_APP_REPORTS", "CBIR_APP_URLS"  # how the script is told its settings
_SCRIPT = Path(__file__).with_name("main.py")
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def run(data: Path, port: int, address: str, allow_urls: bool, browser: bool) -> None:
    """Serve the page until interrupted.

    data : the artifacts' folder; reports/ lies beside it.  allow_urls : whether users may have the server fetch images.
    browser : open one where there is a screen.  Raises ConfigError where Streamlit is missing, or the port is not to be had.
    """
    try:
        from streamlit.web.cli import main as streamlit
    except ImportError as error:
        raise ConfigError("the page needs Streamlit: pip install .[app]") from error
    from cbir.app import map_page, report_page, search_page  # noqa: F401 - the first user need not wait for them

    _check_free(address, port)
    os.environ |= {DATA: str(data.absolute()), URLS: str(int(allow_urls))}
    streamlit(["run", str(_SCRIPT), *options(port, address, browser)], prog_name="cbir app")


def options(port: int, address: str, browser: bool) -> list[str]:
    """Streamlit's options; on the command line they go before the user's own configuration files."""
    chosen = {
        "server.address": address,
        "server.port": port,
        "server.maxUploadSize": MAX_UPLOAD_MB,
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": False,
        # a whole collection after every click holds all users up: nine tenths of the time that 20 of them waited
        "runner.postScriptGC": False,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorLinks": False,
        "client.showErrorDetails": "none",  # a bug's traceback is the server's, not the user's
    }
    if not browser:
        chosen["server.headless"] = True
    # A web site that points its own name at 127.0.0.1 could else read the page through the user's browser.
    hosts = _LOOPBACK_HOSTS if _is_loopback(address) else ()
    written = [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in chosen.items()]
    return written + [f"--server.allowedHosts={host}" for host in hosts]


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _check_free(address: str, port: int) -> None:
    """Raise ConfigError where nothing can listen at address and port."""
    if not 1 <= port <= 65_535:
        raise ConfigError(f"--port: expected a number from 1 to 65535, found {port}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left is free
            trial.bind(place)
    except socket.gaierror as error:
        raise ConfigError(
            f"--address: expected an address of this machine, found {address!r}: {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is taken: give another, `cbir app --port {port % 65_535 + 1}`") from error
        raise ConfigError(f"cannot listen at {address}, port {port}: {error.strerror}; give others") from error
