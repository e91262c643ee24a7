"""Fetch an encoder's weights once, with all settings that they imply, so that no later stage needs a network.

`encoders.<name>.weights` is one of
    torchvision:IMAGENET1K_V2      a tag of torchvision
    timm:a1_in1k                   a tag of timm for the architecture, which timm writes as resnet50.a1_in1k
    openai, laion2b_s34b_b79k      a tag of open_clip for the architecture
    pretrained                     those in the architecture's own folder, here or on the hub (transformers, open_clip)
    /path, file:/path, http(s)://  a file: safetensors, or a torch file, read with weights_only=True
    demo:<file>                    weights in this package, trained by `python -m cbir.demo.train` on drawn shapes only
    random:<seed>                  no training at all, for trials
    /path/to/folder                of vectors that another tool made, for the family `vectors` (see its module)

A tag implies QuickGELU, mean and std, interpolation and size, not only the numbers.  A file does not record them, so
`weights_tag` must name the tag whose settings it needs (open_clip#771: losing them lowers quality silently).
"""

from pathlib import Path

from cbir.core.errors import ConfigError
from cbir.encoders.families import load_family
from cbir.encoders.options import has_no_tag
from cbir.encoders.params import EncoderParams


def fetch_encoder(group: str, params: EncoderParams, out: Path) -> None:
    """Write the encoder's folder (see `cbir.encoders.base`) to `out`; the towers are exported later.

    group : the encoder's name in params.yaml, for messages.
    Raises ConfigError for an architecture, tag or seed that does not exist, or a size that demo weights do not take;
    FetchError when the weights cannot be fetched or are damaged; WeightsError when they are of another architecture.
    """
    if has_no_tag(params) and (params.weights_sha256, params.weights_tag) != (None, None):
        raise ConfigError(
            f"{group}.weights: {params.weights} has no hash and no tag; set weights_sha256 and weights_tag to null"
        )
    out.mkdir(parents=True, exist_ok=True)
    load_family(params.family).fetch_weights(group, params, out).write(out)
