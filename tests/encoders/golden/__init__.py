"""Golden values: what the demo encoders compute for a few images and texts, committed, so that a change cannot go unnoticed.

    images/       JPEG and PNG files: square, grey, tall, wide, larger than the largest packed image, with an EXIF orientation
                  (encoders ignore it: packing has applied it), with transparency, with noise, and 77 times as tall as wide
    golden.json   the version, the settings of the vectors, the sha256 of each prepared image, and the tokens
    vectors.npz   the vectors of each encoder, by backend and precision

`python -m tests.encoders.golden` writes the last two anew.  Pixels and tokens are the same on all machines.  Processors round
differently, so vectors are compared with a tolerance.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cbir.encoders.embedding import vector_settings
from cbir.encoders.exporting import export_towers
from cbir.encoders.opening import load_encoder
from cbir.encoders.runtime import Runtime, offers
from cbir.encoders.version import VECTORS_VERSION
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import demo_params

FOLDER = Path(__file__).parent
ENCODERS = ("mobilenet", "clip")
TEXTS = (
    "a photo of a red star.",
    "",
    "A Photo  of\tthe DOG'S café, 1,234 times!",
    "they're &amp;quot;here&amp;quot; \u2014 it\u2019s \u00c3\u00a9t\u00c3\u00a9",
    "\u732b \u0444\u043e\u0442\u043e \U0001f431 \u00bd \u0130",
    "many " * 100,
)
# The largest allowed difference of a component, by precision.  Measured: the number of threads, batches, oneDNN on or off, and
# openvino instead of torch change fp32 by at most 3e-7; a half precision is at most 2e-4 (fp16) or 2.3e-3 (bf16) from fp32 and
# from the same half of the other backend.  A mean or std that is wrong by 1 % changes a component by 2e-3 or more, the wrong
# GELU by 2e-3, the wrong filter by 3e-2: test_golden.py proves that these faults exceed the tolerances.
TOLERANCES = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 5e-3}

REMEDY = "if the change is meant, raise VECTORS_VERSION in cbir/encoders/version.py and run `python -m tests.encoders.golden`"

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """pixels : sha256 by "<encoder>/<image>".  tokens : of each text.  vectors : (n, dim) by "<encoder>/<backend>/<precision>",
    one row for each image, then, where the encoder reads text, one for each text.  settings : of the vectors by encoder.
    """

    version: int
    settings: dict[str, Any]
    pixels: dict[str, str]
    tokens: list[list[int]]
    vectors: dict[str, Vectors]


def read_golden() -> Golden:
    """Read the committed values."""
    with np.load(FOLDER / "vectors.npz", allow_pickle=False) as vectors:
        values = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))
        return Golden(**values, vectors=dict(vectors))


def write_golden(golden: Golden) -> None:
    """Write the values to be committed."""
    values = {name: value for name, value in golden.__dict__.items() if name != "vectors"}
    (FOLDER / "golden.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    np.savez_compressed(FOLDER / "vectors.npz", **golden.vectors)


def export_demo(folder: Path) -> None:
    """Write the demo encoders with their towers, as the stage weights does."""
    for name in ENCODERS:
        params = demo_params(name)
        fetch_encoder(name, params, folder / name)
        export_towers(folder / name, params.family)


def ways() -> list[str]:
    """The backends and precisions of this machine's CPU, as in "openvino/fp32"."""
    return [f"{backend}/{precision}" for backend, precisions in offers("cpu").items() for precision in precisions]


def compute_golden(folder: Path, names: list[str] | None = None) -> Golden:
    """Compute the values with the encoders in `folder`.  names : of vectors; all that this machine can compute by default."""
    paths = sorted((FOLDER / "images").iterdir())
    settings: dict[str, Any] = {}
    pixels: dict[str, str] = {}
    tokens: list[list[int]] = []
    vectors: dict[str, Vectors] = {}
    for key in names or [f"{name}/{way}" for name in ENCODERS for way in ways()]:
        name, backend, precision = key.split("/")
        encoder = load_encoder(folder / name, demo_params(name).family, Runtime("cpu", backend, precision))
        prepared = [encoder.card.preprocessing.prepare_packed(path.read_bytes()) for path in paths]
        for path, array in zip(paths, prepared, strict=True):
            pixels[f"{name}/{path.name}"] = hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()
        rows = [encoder.embed_images(np.stack(prepared))]
        if encoder.reads_text:
            tokens = encoder._tokenize(TEXTS).tolist()
            rows.append(encoder.embed_texts(TEXTS))
        vectors[key] = np.concatenate(rows)
        values = {
            name: value for name, value in vector_settings(encoder).items() if name not in ("backend", "precision")
        }
        settings[name] = {key: value for key, value in values.items() if key not in ("origin", "architecture")}
    return Golden(VECTORS_VERSION, settings, pixels, tokens, vectors)


def differences(golden: Golden, computed: Golden) -> list[str]:
    """Name the computed values that differ from the golden ones.  Values that were not computed are not compared."""
    names = [f"pixels of {name}" for name, sha256 in computed.pixels.items() if golden.pixels.get(name) != sha256]
    if computed.tokens and computed.tokens != golden.tokens:
        names.append("tokens")
    for name, vectors in computed.vectors.items():
        expected = golden.vectors.get(name)
        if expected is None or expected.shape != vectors.shape:
            names.append(f"vectors of {name}: no golden vectors of shape {vectors.shape}")
            continue
        largest = float(np.abs(vectors - expected).max())
        if not largest <= TOLERANCES[name.rpartition("/")[2]]:
            names.append(f"vectors of {name}: a component differs by {largest:.1e}")
    return names


def needs_new_version(golden: Golden, computed: Golden) -> bool:
    """Whether values changed although the settings and the version, which are all of a cache key, did not."""
    same_key = (golden.version, golden.settings) == (computed.version, computed.settings)
    return same_key and bool(differences(golden, computed))
