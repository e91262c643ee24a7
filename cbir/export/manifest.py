"""The list of an export's files, beside them: the next export deletes these files and no others."""

from collections.abc import Sequence
from pathlib import Path

from cbir.core.files import read_json, write_json

_MANIFEST = "cbir_export.json"


def replace_earlier(out: Path, files: Sequence[str]) -> None:
    """Delete the files of an earlier export to `out`, and list those that follow.

    The list is complete before the first file is written, so a killed export is deleted as well.
    """
    manifest = out / _MANIFEST
    if manifest.is_file():
        for name in read_json(manifest).get("files", ()):
            (out / Path(str(name)).name).unlink(missing_ok=True)
    write_json(manifest, {"files": list(files)})
