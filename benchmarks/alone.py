"""This pipeline's embedding and nothing else, in a process that imports no more than the stage embed does.

    python -m benchmarks.alone clip FOLDER cpu fp32

FOLDER holds shards/ and the encoder's folder; prints the most memory held, in MB.
"""

import sys
import tempfile
from pathlib import Path

from cbir.core.device import DeviceName, DeviceParams
from cbir.core.machine import peak_bytes
from cbir.encoders.base import Encoder, EncoderCard
from cbir.encoders.embedding import embed_shards, vector_settings
from cbir.encoders.opening import open_encoder
from cbir.encoders.params import Backend, Family, Precision
from cbir.encoders.vector_cache import VectorCache


def open_for(folder: Path, device: str, precision: str) -> tuple[Encoder, int]:
    """The encoder in `folder` and the number of images in a batch, as the stage embed opens it."""
    family, where = Family(EncoderCard.read(folder).family), DeviceParams(DeviceName(device), None, None, None)
    return open_encoder(folder, family, Precision(precision), Backend.auto, where)


def main() -> None:
    """Embed once."""
    name, work, device, precision = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:5]
    encoder, batch = open_for(work / name, device, precision)
    with tempfile.TemporaryDirectory() as cache:
        kept = VectorCache(Path(cache), vector_settings(encoder))
        embed_shards(work / "shards", work / "out", encoder, batch, kept, name)
    print(peak_bytes() / 1e6)


if __name__ == "__main__":
    main()
