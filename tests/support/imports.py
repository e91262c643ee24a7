"""Which of our own modules a module imports, directly or through others, read from the source without running it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported_files(module: str, root: Path = ROOT) -> set[str]:
    """The files under cbir/ that importing `module` may run, packages' __init__ included, as paths from the root."""
    files: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        for parent in _with_parents(name):
            file = _file_of(parent, root)
            if file is None or file in files:
                continue
            files.add(file)
            waiting += _names_imported(root / file)
    return {file for file in files if file.startswith("cbir/")}


def _names_imported(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in ("cbir", "stages")]


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _file_of(name: str, root: Path) -> str | None:
    base = name.replace(".", "/")
    return next((file for file in (f"{base}.py", f"{base}/__init__.py") if (root / file).is_file()), None)
