"""Sets of prompt templates: the words around a class's name.

bare        the name alone
photo       "a photo of a {}."
clip_80     the 80 templates of the CLIP paper for ImageNet (Radford et al. 2021), which it averages
synonyms    "a photo of a {}." with every name that the data set has for the class
a path      a file of your own, one template a line, {} where the name goes
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from cbir.artifacts.queries import PROMPT_SCHEMA
from cbir.core.errors import ConfigError

SYNONYMS: Final = "synonyms"
_FOLDER = Path(__file__).parent / "templates"
_PHOTO = "a photo of a {}."


def read_templates(name: str) -> list[str]:
    """The templates of a set of this package, or of a user's file.

    Raises ConfigError when there is no such set or file, or a line has not exactly one {}.
    """
    path = _of_package(name) or Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join([*sorted(file.stem for file in _FOLDER.glob("*.txt")), SYNONYMS])
        raise ConfigError(f"queries.prompt_sets: expected {known} or a text file, found {name!r}: {error}") from error
    templates = [line.strip() for line in lines if line.strip()]
    for number, template in enumerate(templates, start=1):
        if template.count("{}") != 1:
            raise ConfigError(
                f"{path} line {number}: expected exactly one {{}} where the class name goes, found {template!r}"
            )
    if not templates:
        raise ConfigError(f"{path}: expected a template a line, found none")
    return templates


def own_files(sets: Sequence[str]) -> list[str]:
    """Those of the sets that are no set of this package but a user's file.

    >>> own_files(["bare", "synonyms", "my/words.txt"])
    ['my/words.txt']
    """
    return [name for name in sets if name != SYNONYMS and _of_package(name) is None]


def _of_package(name: str) -> Path | None:
    path = _FOLDER / f"{name}.txt"
    return path if "/" not in name and path.exists() else None


def prompt_table(sets: Sequence[str], names: Mapping[str, Sequence[str]]) -> pa.Table:
    """Every wording of every class: rows of (prompt_set, label, wording, text), by PROMPT_SCHEMA.

    names : label -> its names, the usual one first.
    """
    rows: list[dict[str, Any]] = []
    for prompt_set in sets:
        templates = [_PHOTO] if prompt_set == SYNONYMS else read_templates(prompt_set)
        for label, of_label in names.items():
            chosen = of_label if prompt_set == SYNONYMS else of_label[:1]
            texts = [template.replace("{}", name) for name in chosen for template in templates]
            rows += [
                {"prompt_set": prompt_set, "label": label, "wording": number, "text": text}
                for number, text in enumerate(dict.fromkeys(texts))
            ]
    return pa.Table.from_pylist(rows, PROMPT_SCHEMA)
