"""The parameters of an encoder: an entry of the group `encoders`."""

from dataclasses import dataclass
from enum import Enum

from cbir.core.params import Parameters, at_least


class Family(Enum):
    """The library that builds the encoder: an entry of `cbir.encoders.families`."""

    torchvision = "torchvision"
    timm = "timm"
    open_clip = "open_clip"
    transformers = "transformers"
    vectors = "vectors"


class Pooling(Enum):
    """How a transformer's tokens become one vector.

    token : the class token.  avg : the mean of the patch tokens.  default : as the model's own card says.
    """

    default = "default"
    token = "token"  # noqa: S105  (no password)
    avg = "avg"


class Precision(Enum):
    """Arithmetic of the forward pass; it changes the vectors, so it is part of the passport."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Backend(Enum):
    """What runs the towers; `auto` takes the fastest that has the precision on the device."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


@dataclass
class EncoderParams(Parameters):
    """An encoder; see the comments in `conf/encoders/`.

    weights : see `cbir.encoders.weights`.  weights_sha256 : of the file, needed when it comes from the network.
    weights_tag : the tag whose settings a file of weights needs, or "none".  tokenizer : a folder or a name on the hub, in
    place of the architecture's.  image_px : side of the input, in place of the tag's; null where the architecture fixes it.
    pooling : default where the family has no other.
    """

    family: Family
    architecture: str
    weights: str
    weights_sha256: str | None = None
    weights_tag: str | None = None
    tokenizer: str | None = None
    image_px: int | None = None
    pooling: Pooling = Pooling.default
    precision: Precision = Precision.fp32
    backend: Backend = Backend.auto

    def __post_init__(self) -> None:
        at_least(8, self, "image_px")
