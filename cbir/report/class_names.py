"""Human-readable names of classes."""

from collections.abc import Mapping

from cbir.artifacts.evaluations import read_all_confusions, read_classes
from cbir.artifacts.paths import ReportPaths


def read_class_names(reports: ReportPaths) -> dict[str, str]:
    """Return label -> name, for each class that was queried or retrieved.

    Where a class has several names, separated by commas, the first is used.
    """
    classes, confusions = read_classes(reports), read_all_confusions(reports)
    if "name" not in classes.column_names:
        return {}
    names = dict(zip(confusions["found"].to_pylist(), confusions["found_name"].to_pylist(), strict=True))
    names |= dict(zip(classes["label"].to_pylist(), classes["name"].to_pylist(), strict=True))
    return {label: name.split(", ")[0] for label, name in names.items()}


def full_name(label: str | None, names: Mapping[str, str]) -> str:
    """Return the name of a class, followed by its label if that differs.

    >>> full_name("n01443537", {"n01443537": "goldfish"}), full_name("cat", {}), full_name(None, {})
    ('goldfish (n01443537)', 'cat', '-')
    """
    if label is None:
        return "-"
    name = short_name(label, names)
    return name if names.get(label, label) == label else f"{name} ({label})"


def short_name(label: str, names: Mapping[str, str]) -> str:
    """Return the name of a class without its label.

    >>> short_name("n01443537", {"n01443537": "goldfish"}), short_name(" ", {})
    ('goldfish', '(blank)')
    """
    name = names.get(label, label)
    return name if name.strip() else "(blank)"
