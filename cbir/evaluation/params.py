"""The group `evaluate`."""

from dataclasses import dataclass, field

from cbir.core.errors import ConfigError
from cbir.core.params import at_least
from cbir.index.params import LatencyParams


@dataclass(kw_only=True)
class EvaluateParams(LatencyParams):
    """Group `evaluate`; see the comments in `conf/evaluate/`."""

    ks: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50])
    ann_ks: list[int] = field(default_factory=lambda: [10, 50])
    run_depth: int | None = None
    duplicate_cosine: float = 0.999
    resamples: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "run_depth")
        at_least(100, self, "resamples")
        if not 0.0 < self.duplicate_cosine <= 1.0:
            raise ConfigError(f"duplicate_cosine: expected a cosine in (0, 1], found {self.duplicate_cosine}")
        for name in ("ks", "ann_ks"):
            ks = getattr(self, name)
            if not ks or min(ks) < 1 or sorted(set(ks)) != ks:
                raise ConfigError(f"{name}: expected ascending numbers >= 1, found {ks}")
        if self.run_depth is not None and self.run_depth < self.ks[-1]:
            raise ConfigError(
                f"run_depth: expected null, or at least the largest of evaluate.ks, {self.ks[-1]}, found {self.run_depth}"
            )
