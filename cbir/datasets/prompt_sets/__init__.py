"""Sets of prompt templates: texts with {} in place of a class name.

bare        the name alone
photo       "a photo of a {}."
clip_80     the 80 templates that the CLIP paper averages for ImageNet (Radford et al. 2021)
synonyms    "a photo of a {}." with each name that the data set has for the class
a path      your own text file, one template per line
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
    """Read the templates of a prompt set of this package, or of a user's file.

    Raises ConfigError when there is no such set or file, or when a line does not contain exactly one {}.
    """
    path = _packaged_file(name) or Path(name).expanduser()
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
        raise ConfigError(f"{path}: expected one template per line, found none")
    return templates


def user_files(prompt_sets: Sequence[str]) -> list[str]:
    """The prompt sets that are a user's file rather than a set of this package.

    >>> user_files(["bare", "synonyms", "my/prompts.txt"])
    ['my/prompts.txt']
    """
    return [name for name in prompt_sets if name != SYNONYMS and _packaged_file(name) is None]


def prompt_table(prompt_sets: Sequence[str], class_names: Mapping[str, Sequence[str]]) -> pa.Table:
    """Return each prompt of each class as a row of PROMPT_SCHEMA; its column `wording` numbers the prompts of a class.

    class_names : label -> the names of the class, the usual one first.
    """
    rows: list[dict[str, Any]] = []
    for prompt_set in prompt_sets:
        templates = [_PHOTO] if prompt_set == SYNONYMS else read_templates(prompt_set)
        for label, names in class_names.items():
            used_names = names if prompt_set == SYNONYMS else names[:1]
            prompts = [template.replace("{}", name) for name in used_names for template in templates]
            rows += [
                {"prompt_set": prompt_set, "label": label, "wording": number, "text": prompt}
                for number, prompt in enumerate(dict.fromkeys(prompts))
            ]
    return pa.Table.from_pylist(rows, PROMPT_SCHEMA)


def _packaged_file(name: str) -> Path | None:
    path = _FOLDER / f"{name}.txt"
    return path if "/" not in name and path.exists() else None
