"""The list of an export's files, beside them: the next export of that kind deletes these files and no others."""

from collections.abc import Sequence
from pathlib import Path

from cbir.core.errors import DataError
from cbir.core.files import read_json, write_json


def replace_earlier(out: Path, kind: str, files: Sequence[str]) -> None:
    """Delete the files of an earlier export of this kind to `out`, and list those that follow.

    The list is complete before the first file is written, so a killed export is deleted as well.
    Raises DataError when the list is damaged.
    """
    manifest = out / f"cbir_export_{kind}.json"
    if manifest.is_file():
        for name in _listed(manifest):
            (out / Path(name).name).unlink(missing_ok=True)
    write_json(manifest, {"files": list(files)}, sealed=False)


def _listed(manifest: Path) -> list[str]:
    try:
        names = read_json(manifest, sealed=False).get("files")
    except DataError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(
            f"{manifest}: expected the list of an earlier export's files, found something else: delete it, and those files "
            "that are no longer needed"
        )
    return names
