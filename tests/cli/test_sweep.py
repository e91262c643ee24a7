"""`cbir sweep`: whether its files can be written."""

from pathlib import Path

import pytest

from cbir.cli.sweep import check_writable
from cbir.core.errors import ConfigError


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ("sweeps", r"^sweeps: expected a folder to write the table into: File exists; move it away"),
        ("sweeps/index", r"^sweeps: expected a folder .*, found a file at sweeps/index: move it away, or .* --name$"),
        ("sweeps/index.md/", r"^sweeps: expected a folder .*, found a folder at sweeps/index\.md: move it away"),
    ],
)
def test_a_table_that_cannot_be_written_is_refused(
    blocked: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(blocked)
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if blocked.endswith("/") else path.write_text("")
    with pytest.raises(ConfigError, match=message):
        check_writable(Path("sweeps/index"))
