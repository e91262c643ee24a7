"""`passport.json` of an encoder's evaluation: the index and the vectors that were evaluated, and the hash of each file.

The files of an evaluation belong together: one of an earlier run, or of another encoder, is refused.
"""

from pathlib import Path
from typing import Any

from cbir.artifacts.paths import EvaluationPaths
from cbir.artifacts.vectors import read_passport, write_passport
from cbir.core.errors import REPAIR, DataError, PassportError
from cbir.core.files import read_json, unchanged_file_sha256


def write_evaluation_passport(evaluation: EvaluationPaths, index: Path) -> None:
    """Write the passport of the files that are there.  index : the folder of the index that was evaluated."""
    write_passport(evaluation.root, {"evaluated": _evaluated(index), "files": hashes_of_files(evaluation)})


def hashes_of_files(evaluation: EvaluationPaths) -> dict[str, str]:
    """The hash of each file of the evaluation, except of its passport, by its path below the folder."""
    files = sorted(path for path in evaluation.root.rglob("*") if path.is_file() and path != evaluation.passport)
    return {path.relative_to(evaluation.root).as_posix(): unchanged_file_sha256(path) for path in files}


def checked(evaluation: EvaluationPaths, path: Path) -> Path:
    """Return the path of a file of the evaluation, after checking that the file is the one that evaluate wrote.

    Raises DataError if there is no passport or it is damaged, or if the file is absent or not the one that it names.
    """
    if not path.is_file():
        raise DataError(f"{path} is not here: run `dvc repro`")
    expected = _listed(evaluation, path)
    if (actual := unchanged_file_sha256(path)) != expected:
        raise DataError(
            f"{path}: expected the file that evaluate wrote, whose sha256 is {expected}, found {actual}: {REPAIR}"
        )
    return path


def is_listed(evaluation: EvaluationPaths, path: Path) -> bool:
    """Whether the evaluation has this file.  Raises DataError if there is no passport or it is damaged."""
    return _listed(evaluation, path) is not None


def check_evaluated(evaluation: EvaluationPaths, index: Path) -> None:
    """Raise PassportError unless the evaluation is that of the index in this folder, and of its vectors."""
    if read_passport(evaluation.root).get("evaluated") != _evaluated(index):
        raise PassportError(
            f"{evaluation.root}: expected the evaluation of the index in {index}, found that of another: run `dvc repro`"
        )


def check_of(path: Path, expected: object) -> None:
    """Raise PassportError unless a JSON file is of what it should be.  expected : the hash that its writer put under `of`."""
    if (actual := read_json(path).get("of")) != expected:
        raise PassportError(f"{path}: expected the figures of {expected}, found those of {actual}: run `dvc repro`")


def _evaluated(index: Path) -> dict[str, Any]:
    """What identifies an index and its vectors, from the passport of the index."""
    passport = read_passport(index)
    vectors = passport.get("vectors", {})
    return {"encoder": vectors.get("encoder"), "index": passport.get("sha256"), "vectors": vectors.get("rows")}


def _listed(evaluation: EvaluationPaths, path: Path) -> str | None:
    """The hash of a file in the passport."""
    files = read_passport(evaluation.root).get("files")
    sha256 = files.get(path.relative_to(evaluation.root).as_posix()) if isinstance(files, dict) else None
    return None if sha256 is None else str(sha256)
