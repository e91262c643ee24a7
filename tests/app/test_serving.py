"""How `cbir app` starts the server, and when it refuses to."""

import socket
import sys
from pathlib import Path

import pytest

from cbir.app import serving
from cbir.cli import main as cli
from cbir.core.errors import ConfigError
from tests.support.imports import ROOT, imported_files


def test_the_server_is_local_and_limits_uploads() -> None:
    options = serving.options(8501, "127.0.0.1", browser=False)
    for expected in (
        "--server.address=127.0.0.1",
        "--server.maxUploadSize=20",
        "--server.enableXsrfProtection=true",
        "--browser.gatherUsageStats=false",
        "--server.fileWatcherType=none",
        "--server.headless=true",
        "--server.allowedHosts=localhost",
    ):
        assert expected in options
    assert "--server.allowedHosts=localhost" not in serving.options(8501, "0.0.0.0", browser=True)


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as ended:
        cli.main(["app", "--no-browser", "--port", str(other.getsockname()[1])])
    assert "is in use: choose another one" in str(ended.value)


@pytest.mark.parametrize(("port", "address"), [(0, "127.0.0.1"), (70_000, "127.0.0.1"), (8501, "no.such.invalid")])
def test_an_invalid_port_or_address_is_an_error(port: int, address: str) -> None:
    with pytest.raises(ConfigError, match=r"--port|--address"):
        serving.run(Path("data"), port, address, browser=False)


def test_without_streamlit_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "streamlit.web.cli", None)
    with pytest.raises(SystemExit, match=r"error: the page needs Streamlit: pip install \.\[app\]"):
        cli.main(["app"])


def test_no_stage_imports_the_page() -> None:
    for stage in (ROOT / "stages").glob("*.py"):
        assert not [file for file in imported_files(f"stages.{stage.stem}") if file.startswith("cbir/app/")]
