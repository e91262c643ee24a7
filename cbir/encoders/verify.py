"""Compare stored vectors with those that the encoder's library computes from the original bytes (`cbir verify`).

A sample of the gallery and of the text queries, chosen by seed, is embedded by the library's own calls (see
`cbir.encoders.references`) and compared by cosine.  Where a vector differs, each step is exchanged for the library's in
turn, to tell which one is the cause.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from PIL import Image

from cbir.artifacts.images import read_columns, read_shards
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_query_list
from cbir.artifacts.vectors import Vectors, VectorSet, open_vectors, positions_of
from cbir.artifacts.verification import Agreement, Verification
from cbir.datasets.base import Dataset
from cbir.datasets.decoding import decode
from cbir.encoders.base import EncoderCard
from cbir.encoders.neighbours import TOP, neighbours_in, overlap, precision_at_top, sample_ids
from cbir.encoders.opening import load_encoder, not_exported
from cbir.encoders.params import EncoderParams, Precision
from cbir.encoders.preprocessing import Preprocessing, decode_packed
from cbir.encoders.references import Reference, load_reference
from cbir.encoders.runtime import Runtime

SAMPLE = 64
# measured on the encoders of conf/: fp32 agrees to 1e-5 on images that are packed as they are
BOUNDS = {Precision.fp32: 0.9999, Precision.fp16: 0.999, Precision.bf16: 0.99}
_BATCH = 16
_UNEXPLAINED = 0.1  # share of a difference that a linear function may leave
_PIXEL_TOLERANCE = 1.5 / 255  # mean difference of prepared values, as a share of their range


def verify(
    data: DataPaths, dataset: Dataset, name: str, params: EncoderParams, max_pixels: int, seed: int
) -> Verification:
    """Compare a sample of an encoder's stored vectors with the library's.

    dataset : whose gallery has the original bytes.  max_pixels : limit of an image that is decoded.
    Raises DataError when nothing has been embedded.
    """
    folder = data.weights(name)
    reference = load_reference(folder, params)
    if reference is None:
        return Verification(None)
    card, bound = EncoderCard.read(folder), BOUNDS[params.precision]
    gallery = open_vectors(data.embeddings(name), name, "gallery")
    ids = sample_ids(gallery.ids.to_pylist(), SAMPLE, seed)
    originals = _original_images(dataset, ids, max_pixels)
    ids = list(originals)
    stored = gallery.rows(ids, f"{name} gallery")
    pixels = [reference.prepare(image) for image in originals.values()]
    expected = _embed(reference, pixels)
    images = Agreement(len(ids), _least_cosine(stored, expected), bound)
    if not images.passed:
        packed = _packed_images(data, ids)
        images = replace(images, cause=_cause_of_images(reference, card.preprocessing, packed, pixels, stored, bound))
    overlapping, change = _neighbourhood(data, gallery, ids, stored, expected)
    return Verification(
        reference.library, images, _verify_texts(data, name, params, reference, seed, bound), overlapping, change
    )


def _original_images(dataset: Dataset, ids: Sequence[str], max_pixels: int) -> dict[str, Image.Image]:
    """image_id -> the image as it is decoded from its original bytes, upright and RGB, in its own size."""
    wanted = set(ids)
    return {image.image_id: decode(image.read(), max_pixels) for image in dataset.gallery() if image.image_id in wanted}


def _packed_images(data: DataPaths, ids: Sequence[str]) -> list[bytes]:
    wanted, packed = set(ids), {}
    for _, table in read_shards(data.images("gallery"), ["image_id", "image"]):
        for image_id, image in zip(table["image_id"].to_pylist(), table["image"], strict=True):
            if image_id in wanted:
                packed[image_id] = image.as_py()
    return [packed[image_id] for image_id in ids]


@torch.inference_mode()
def _embed(reference: Reference, pixels: Sequence[torch.Tensor]) -> Vectors:
    batches = [
        reference.embed_images(torch.stack(list(pixels[start : start + _BATCH])))
        for start in range(0, len(pixels), _BATCH)
    ]
    return _unit(torch.cat(batches))


def _unit(vectors: torch.Tensor) -> Vectors:
    rows: Vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).numpy()
    return rows


def _least_cosine(stored: Vectors, expected: Vectors) -> float:
    if stored.shape != expected.shape:
        return 0.0
    return float((stored.astype(np.float64) * expected).sum(1).min())


# ---- the cause of a difference


def _cause_of_images(
    reference: Reference,
    preprocessing: Preprocessing,
    packed: Sequence[bytes],
    pixels: Sequence[torch.Tensor],
    stored: Vectors,
    bound: float,
) -> str:
    images = [decode_packed(data) for data in packed]
    of_packed = [reference.prepare(image) for image in images]
    if _least_cosine(stored, _embed(reference, of_packed)) >= bound:
        return "packing: the packed images are smaller than the originals; raise dataset.max_side_px, or set it to null"
    own = [_normalised(preprocessing, image) for image in images]
    if own[0].shape == pixels[0].shape and _least_cosine(stored, _embed(reference, own)) >= bound:
        return f"preparation: {_differing_step(preprocessing, images, own, of_packed)}"
    for cause, alternative in reference.alternatives():
        if _least_cosine(stored, _embed(alternative, own)) >= bound:
            return cause
    if own[0].shape != pixels[0].shape:
        return f"size: the stored vectors are of {own[0].shape[-1]} px, the library prepares {pixels[0].shape[-1]} px"
    return "the model: neither packing nor preparation explains it; `dvc repro --force weights` builds it again"


def _normalised(preprocessing: Preprocessing, image: Image.Image) -> torch.Tensor:
    """As the encoder prepares an image: float32 (3, crop_px, crop_px)."""
    values = torch.from_numpy(preprocessing.prepare(image).copy()).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values_).view(3, 1, 1) for values_ in (preprocessing.mean, preprocessing.std))
    return (values - mean) / std


def _differing_step(
    preprocessing: Preprocessing,
    images: Sequence[Image.Image],
    own: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
) -> str:
    """Name the fields of the preprocessing that, changed, give the library's pixels."""
    if _is_linear_map(torch.stack(list(own)), torch.stack(list(expected))):
        return "normalisation: mean and std differ from the library's"
    for candidate in _candidates(preprocessing):
        changed = {
            field: (getattr(preprocessing, field), getattr(candidate, field))
            for field in ("resize_px", "resize_mode", "interpolation")
            if getattr(preprocessing, field) != getattr(candidate, field)
        }
        prepared = [_normalised(candidate, image) for image in images]
        differences = [float((pair[0] - pair[1]).abs().mean()) for pair in zip(prepared, expected, strict=True)]
        if max(differences) < _PIXEL_TOLERANCE / min(preprocessing.std):
            return "resize: " + ", ".join(
                f"{name} is {stored}, the library has {expected_value}"
                for name, (stored, expected_value) in changed.items()
            )
    return "resize or crop differ from the library's"


def _candidates(preprocessing: Preprocessing) -> Iterator[Preprocessing]:
    """The preprocessing with one or more fields of its resize changed, the fewest changes first."""
    sides = {
        preprocessing.resize_px,
        preprocessing.crop_px,
        *(round(preprocessing.crop_px / share) for share in (0.875, 0.9, 0.95)),
    }
    all_changes = [
        {"resize_px": side, "resize_mode": mode, "interpolation": interpolation}
        for side, mode, interpolation in product(sorted(sides), ("shortest", "squash"), ("bilinear", "bicubic"))
        if side >= preprocessing.crop_px
    ]
    now = {name: getattr(preprocessing, name) for name in ("resize_px", "resize_mode", "interpolation")}
    for changes in sorted(all_changes, key=lambda change: sum(change[name] != now[name] for name in now)):
        if changes != now:
            yield replace(preprocessing, **changes)  # type: ignore[arg-type]


def _is_linear_map(own: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether a linear function of each channel of `own` explains most of its difference from `expected`."""
    if own.shape != expected.shape:
        return False
    residuals = 0.0
    for channel in range(own.shape[1]):
        x, y = own[:, channel].flatten().double(), expected[:, channel].flatten().double()
        slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
        residuals += float((y - y.mean() - slope * (x - x.mean())).abs().mean()) / own.shape[1]
    return residuals < _UNEXPLAINED * float((own - expected).abs().mean())


# ---- texts


def _verify_texts(
    data: DataPaths, name: str, params: EncoderParams, reference: Reference, seed: int, bound: float
) -> Agreement | None:
    if reference.tokenize is None or not data.vectors(name, "texts").is_dir():
        return None
    queries = read_query_list(data.query_list)
    texts = {row["query_id"]: row["text"] for row in queries.to_pylist() if row["text"] is not None}
    if not texts:
        return None
    ids = sample_ids(texts, SAMPLE, seed)
    stored = open_vectors(data.embeddings(name), name, "texts").rows(ids, f"{name} texts")
    sampled = [texts[query_id] for query_id in ids]
    agreement = Agreement(len(ids), _least_cosine(stored, _embed_texts(reference, sampled)), bound)
    if agreement.passed:
        return agreement
    return replace(agreement, cause=_cause_of_texts(data, name, params, reference, sampled, stored, bound))


@torch.inference_mode()
def _embed_texts(reference: Reference, texts: Sequence[str]) -> Vectors:
    if reference.embed_texts is None:
        raise ValueError(f"{reference.library} reads no text")
    batches = [reference.embed_texts(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return _unit(torch.cat(batches))


def _cause_of_texts(
    data: DataPaths,
    name: str,
    params: EncoderParams,
    reference: Reference,
    texts: Sequence[str],
    stored: Vectors,
    bound: float,
) -> str:
    folder = data.weights(name)
    runtime = Runtime("cpu", "torch" if not_exported(folder) else "openvino", "fp32")
    tokenize = load_encoder(folder, params.family, runtime).tokenize
    if reference.tokenize is None:
        return "the encoder reads no text"
    own, expected = tokenize(texts), reference.tokenize(list(texts)).numpy()
    if own.shape == expected.shape and (own == expected).all():
        for cause, alternative in reference.alternatives():
            if _least_cosine(stored, _embed_texts(alternative, texts)) >= bound:
                return cause
        return "the text tower: the tokens are the library's; `dvc repro --force weights` builds it again"
    lower = [text.lower() for text in texts]
    if np.array_equal(tokenize(lower), reference.tokenize(lower).numpy()):
        return "lower-casing: the library lower-cases a text before it splits it into tokens"
    if _without_padding(own) == _without_padding(expected):
        return "padding: the tokens are the library's, but what fills the rest of the context is not"
    return "tokenizer: its tokens differ from the library's"


def _without_padding(tokens: np.ndarray) -> list[list[int]]:
    """The tokens of each row up to the run of equal ones at its end."""
    rows = []
    for row in tokens.tolist():
        end = len(row)
        while end > 1 and row[end - 1] == row[end - 2]:
            end -= 1
        rows.append(row[: end - 1])
    return rows


# ---- neighbours


def _neighbourhood(
    data: DataPaths, gallery: VectorSet, ids: Sequence[str], stored: Vectors, expected: Vectors
) -> tuple[float | None, float | None]:
    """The overlap of the neighbours of both vectors, and the change of precision@10; None where the gallery is too small."""
    if len(gallery.ids) <= TOP or stored.shape != expected.shape:
        return None, None
    positions = positions_of(list(ids), gallery.ids)
    labels = np.array(read_columns(data.images("gallery"), ["label"])["label"].to_pylist(), object)
    both = [neighbours_in(gallery, vectors, positions) for vectors in (stored, expected)]
    own_labels = [labels[position] for position in positions]
    before, after = (precision_at_top(neighbours, labels, own_labels) for neighbours in both)
    return overlap(*both), None if before is None or after is None else after - before
