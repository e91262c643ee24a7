"""`reports/verification/<encoder>.json`, typed: whether stored vectors are those of the encoder's library."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cbir.core.errors import REPAIR, DataError
from cbir.core.files import read_json, write_json


@dataclass(frozen=True)
class Agreement:
    """How stored vectors agree with those of the library, for images or texts.

    count : size of the sample.  least_cosine : the smallest cosine of a stored vector and the library's.  bound : the least
    cosine that passes.  cause : of a disagreement, in words; None when the sample passes.
    """

    count: int
    least_cosine: float
    bound: float
    cause: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every cosine reaches the bound."""
        return self.least_cosine >= self.bound


@dataclass(frozen=True)
class Verification:
    """The comparison of an encoder's stored vectors with those that its library computes.

    library : name and version; None for vectors made elsewhere, which nothing can verify.  images, texts : None where there
    are none.  top10_overlap : mean share of the ten exact neighbours of an image that both vectors have.
    precision_change : precision@10 with the library's vectors minus that with the stored ones; None without labels.
    """

    library: str | None
    images: Agreement | None = None
    texts: Agreement | None = None
    top10_overlap: float | None = None
    precision_change: float | None = None

    @property
    def passed(self) -> bool:
        """Whether images and texts agree."""
        return all(part.passed for part in (self.images, self.texts) if part is not None)

    def describe(self) -> str:
        """The result in a sentence.

        >>> Verification("open_clip 3.3.0", Agreement(64, 0.99998, 0.9999)).describe()
        'verified against open_clip 3.3.0 on 64 images: least cosine 0.99998'
        """
        if self.library is None:
            return "not verified: the vectors were made elsewhere"
        parts = {"images": self.images, "texts": self.texts}
        present = {kind: part for kind, part in parts.items() if part is not None}
        failed = [
            f"{kind}, least cosine {part.least_cosine:.5f}, expected at least {part.bound:g}: {part.cause}"
            for kind, part in present.items()
            if not part.passed
        ]
        if failed:
            return f"differs from {self.library} ({'; '.join(failed)})"
        counts = " and ".join(f"{part.count} {kind}" for kind, part in present.items())
        least = min((part.least_cosine for part in present.values()), default=1.0)
        return f"verified against {self.library} on {counts}: least cosine {least:.5f}"


def write_verification(path: Path, verification: Verification, of: str | None = None) -> None:
    """Write the comparison.  of : the hash of the gallery's vectors, from their passport."""
    write_json(path, asdict(verification) | {"of": of})


def read_verification(path: Path) -> Verification:
    """Read the comparison.  Raises DataError if it is absent, damaged or of another version."""
    return _from_json(Verification, read_json(path), path)


def _from_json(cls: type[Verification], value: dict[str, Any], path: Path) -> Verification:
    try:
        parts = {kind: None if value[kind] is None else Agreement(**value[kind]) for kind in ("images", "texts")}
        others = {name: entry for name, entry in value.items() if name != "of"}
        return cls(**{**others, **parts})
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the comparison that verify writes, found something else ({error!r}): {REPAIR}"
        ) from error
