"""How `cbir app` starts the server, what the server asks and refuses, and when it does not start."""

import http.client
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cbir.app import serving
from cbir.cli import main as cli
from cbir.core.errors import ConfigError
from tests.support import watched_app
from tests.support.imports import ROOT, imported_files

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "streamlit",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for other machines, known as photos.example; its fixture checks that it asked no other host."""
    folder = tmp_path_factory.mktemp("served")
    with watched_app.serving(folder, "--address", "0.0.0.0", "--host", "photos.example") as address:
        yield urlsplit(address).netloc


def status(server: str, path: str, host: str, **headers: str) -> int:
    """The status of the answer to a request; 101 for a WebSocket that opens."""
    connection = http.client.HTTPConnection(server, timeout=600)
    upgrade = UPGRADE if path == "/_stcore/stream" else {}
    connection.request("GET", path, headers={"Host": host, **upgrade, **headers})
    answer = connection.getresponse()
    connection.close()
    return answer.status


@pytest.mark.parametrize("path", ["/", "/map", "/media/x.png", "/_stcore/health", "/_stcore/stream", "/static/x.js"])
def test_no_path_is_served_under_another_name(server: str, path: str) -> None:
    for host in ("photos.example", server, "192.168.1.5"):
        assert status(server, path, host) in (101, 200, 404)
    assert status(server, path, "evil.example") == 403
    assert status(server, path, server, Origin="http://evil.example") == 403


def test_the_server_is_local_and_limits_uploads() -> None:
    options = serving.options(8501, "127.0.0.1", browser=False)
    expected = {
        "server.address": "127.0.0.1",
        "server.maxUploadSize": 20,
        "server.enableXsrfProtection": True,
        "browser.gatherUsageStats": False,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "client.showErrorDetails": "none",
    }
    assert {name: options[name] for name in expected} == expected
    assert "server.headless" not in serving.options(8501, "0.0.0.0", browser=True)


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as ended:
        cli.main(["app", "--no-browser", "--port", str(other.getsockname()[1])])
    assert "is in use: choose another one" in str(ended.value)


@pytest.mark.parametrize(("port", "address"), [(0, "127.0.0.1"), (70_000, "127.0.0.1"), (8501, "no.such.invalid")])
def test_an_invalid_port_or_address_is_an_error(port: int, address: str) -> None:
    with pytest.raises(ConfigError, match=r"--port|--address"):
        serving.run(Path("data"), port, address, [], browser=False)


def test_without_streamlit_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamlit", None)
    with pytest.raises(SystemExit, match=r"error: the page needs Streamlit: pip install \.\[app\]"):
        cli.main(["app"])


def test_no_stage_imports_the_page() -> None:
    for stage in (ROOT / "stages").glob("*.py"):
        assert not [file for file in imported_files(f"stages.{stage.stem}") if file.startswith("cbir/app/")]
