"""Packing: distinct ids, bounded memory, the allowed fraction of bad images, nothing incomplete after a kill."""

import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from functools import partial

import pyarrow as pa
import pytest

from cbir.artifacts import images as images_module
from cbir.artifacts.images import Quarantined, read_shards
from cbir.core.errors import DataError
from cbir.datasets.base import SourceImage
from cbir.datasets.packing import Limits, check_bad_fraction, pack_images
from tests.support.image_files import noise_jpeg
from tests.support.imports import ROOT

LIMITS = Limits(max_pixels=10**6, max_side_px=512)
JPEG = noise_jpeg(10)


@pytest.mark.parametrize(
    ("bad", "attempted", "fraction"), [(29, 100, 0.29), (7, 100, 0.07), (1, 3, 1 / 3), (0, 0, 0.0)]
)
def test_exactly_the_allowed_fraction_of_bad_images_passes(bad, attempted, fraction):
    """29 > 0.29 * 100 in binary arithmetic: the fraction is compared, not the count."""
    rows = [Quarantined(f"{n:03d}.jpg", None, "empty file", "", 0) for n in range(bad + 1)]
    check_bad_fraction(rows[:bad], attempted, fraction, "here")
    if attempted:
        with pytest.raises(DataError, match=f"{bad + 1} of {attempted} images cannot be decoded.*see here"):
            check_bad_fraction(rows, attempted, fraction, "here")


def source_images(names, body=JPEG):
    return [SourceImage(name, None, None, None, name, lambda: body) for name in names]


@pytest.mark.parametrize(("names", "message"), [(["a", "b", "b"], "'b' after 'b'"), (["a", "c", "b"], "'b' after 'c'")])
def test_image_ids_must_be_distinct_and_ascending(tmp_path, names, message):
    with pytest.raises(DataError, match=f"image_id {message}: expected ascending, distinct ids"):
        pack_images(tmp_path, source_images(names), LIMITS, 2, "pack")


def test_an_error_other_than_a_bad_image_is_raised(tmp_path):
    def read():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pack_images(tmp_path, [SourceImage("a", None, None, None, "a", read)], LIMITS, 2, "pack")


def test_memory_is_bounded_by_a_shard(tmp_path, monkeypatch):
    """3,000 images of 60 kB are 180 MB, in shards of 8 MiB; counts the memory of Python and of Arrow."""
    shard_bytes = 8 * 2**20
    monkeypatch.setattr(images_module, "MAX_SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(images_module, "_ends_shard", lambda image: False)
    body = noise_jpeg(0, side=220)

    def padded(number):
        return body + number.to_bytes(60_000 - len(body), "big")  # decoders ignore what follows the end of a JPEG

    images = (SourceImage(f"{n:05d}.jpg", "cats", None, None, f"{n}.jpg", partial(padded, n)) for n in range(3000))
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        packed = pack_images(tmp_path / "gallery", images, LIMITS, 2, "pack")
        peak_bytes = tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    sizes = [path.stat().st_size for path in (tmp_path / "gallery").glob("part-*.parquet")]
    shutil.rmtree(tmp_path / "gallery")
    assert (packed.images, packed.bytes) == (3000, 180_000_000)
    assert len(sizes) == 22  # 140 images each
    assert max(sizes) < 1.1 * shard_bytes
    assert peak_bytes < 6 * shard_bytes < packed.bytes / 3


def test_a_killed_run_leaves_no_incomplete_shard(tmp_path):
    """The process is killed with SIGKILL, so without clean-up, while it writes the third shard."""
    script = f"""
        import os, signal
        from pathlib import Path
        import pyarrow.parquet as pq
        from cbir.artifacts import images
        from cbir.datasets.base import SourceImage
        from cbir.datasets.packing import Limits, pack_images

        images.MAX_SHARD_ROWS, images._ends_shard = 4, lambda image: False
        write, body = pq.write_table, bytes.fromhex("{JPEG.hex()}")

        def killed(table, path, **options):
            write(table, path, **options)
            if "part-00002" in str(path):
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        pq.write_table = killed
        names = [f"{{n:02d}}.jpg" for n in range(20)]
        rows = (SourceImage(name, None, None, None, name, lambda: body) for name in names)
        pack_images(Path({str(tmp_path / "gallery")!r}), rows, Limits(10**6, 512), 2, "pack")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    names = sorted(path.name for path in (tmp_path / "gallery").iterdir())
    assert [name for name in names if re.fullmatch(r"part-.*", name)] == ["part-00000.parquet", "part-00001.parquet"]
    assert len(names) == 3  # and the incomplete one under its temporary name
    assert [table.num_rows for _, table in read_shards(tmp_path / "gallery")] == [4, 4]
