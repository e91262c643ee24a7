"""Folders of a data set whose images are left out: as `data/images/summary.json` lists them, and in words."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Reason = Literal["hidden", "made by software", "read elsewhere", "link to nothing", "unreadable", "outside"]

# Folders that software writes beside a user's photos: thumbnails, deleted files, snapshots, metadata.  In small letters.
SOFTWARE_FOLDERS: Final = {
    "@eadir": "Synology",
    "@tmp": "Synology",
    "#recycle": "Synology",
    "#snapshot": "Synology",
    "@recycle": "QNAP",
    "@recently-snapshot": "QNAP",
    "$recycle.bin": "Windows",
    "system volume information": "Windows",
    "__macosx": "macOS",
    "lost+found": "Linux",
}
_SENTENCES: Final[dict[Reason, tuple[str, str]]] = {
    "hidden": ("{n} hidden folder", "{n} hidden folders"),
    "made by software": ("{n} folder that software makes", "{n} folders that software makes, such as `@eaDir`"),
    "read elsewhere": ("{n} link to a folder that is read already", "{n} links to folders that are read already"),
    "link to nothing": ("{n} link that leads nowhere", "{n} links that lead nowhere"),
    "unreadable": ("{n} folder that cannot be read", "{n} folders that cannot be read"),
    "outside": (
        "{n} folder outside `dataset.gallery_folder` and `dataset.query_folder`",
        "{n} folders outside `dataset.gallery_folder` and `dataset.query_folder`",
    ),
}


@dataclass(frozen=True)
class LeftOut:
    """A folder that is left out.  images : number of image files in it, None where it is unknown."""

    folder: str
    reason: Reason
    images: int | None = None


def reason_of(name: str) -> Reason | None:
    """Return why a folder of this name is left out, None if it is read.

    >>> reason_of("cats"), reason_of(".git"), reason_of("@eaDir")
    (None, 'hidden', 'made by software')
    """
    if name.startswith("."):
        return "hidden"
    return "made by software" if name.lower() in SOFTWARE_FOLDERS else None


def describe(left_out: Iterable[LeftOut]) -> Iterator[str]:
    """Yield a sentence for each reason; without names from the data, so that it is safe in a report.

    >>> list(describe([LeftOut("cats/@eaDir", "made by software", 24)]))
    ['Left out: 1 folder that software makes (24 images).']
    """
    folders = list(left_out)
    for reason, (singular, plural) in _SENTENCES.items():
        counts = [folder.images for folder in folders if folder.reason == reason]
        if not counts:
            continue
        words = (singular if len(counts) == 1 else plural).format(n=f"{len(counts):,}")
        known = [count for count in counts if count is not None]
        images = f" ({sum(known):,} image{'' if sum(known) == 1 else 's'})" if known else ""
        yield f"Left out: {words}{images}."
