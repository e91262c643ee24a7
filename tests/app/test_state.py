"""The shared gallery is opened once for each run of the pipeline; large images are sent small."""

import os
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import cast

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cbir import Searcher
from cbir.app.state import SharedGallery, card_image, files_fingerprint, open_shared_gallery
from cbir.artifacts.names import write_encoder_names
from cbir.search.query import QueryPart
from cbir.search.thumbnails import Thumbnail
from tests.support.page import jpeg, root  # noqa: F401  (root is a fixture)


def test_the_gallery_is_reopened_after_a_new_run(root: Path) -> None:
    data = root / "data"
    first = open_shared_gallery(data, files_fingerprint(data))
    assert open_shared_gallery(data, files_fingerprint(data)) is first
    passport = data / "index" / "clip" / "passport.json"
    os.utime(passport, ns=(1, 1))
    assert open_shared_gallery(data, files_fingerprint(data)) is not first


def test_a_change_of_encoders_changes_the_fingerprint(root: Path) -> None:
    data = root / "data"
    seen, names = files_fingerprint(data), data / "encoders.json"
    kept = names.read_text()
    try:
        write_encoder_names(names, ["clip"])
        of_one = files_fingerprint(data)
        names.unlink()
        assert len({seen, of_one, files_fingerprint(data)}) == 3
        assert not any("mobilenet" in name for name, *_ in of_one)
    finally:
        names.write_text(kept)


def test_a_large_image_is_sent_small() -> None:
    large = card_image(jpeg(512, 256))
    assert (large.kind, large.width) == ("jpeg", 320)
    assert card_image(jpeg(64, 64)) == Thumbnail(jpeg(64, 64), "jpeg", 64)


def test_a_comment_too_long_for_jpeg_is_dropped() -> None:
    info, packed = PngInfo(), BytesIO()
    info.add_text("comment", "x" * 70_000)
    Image.new("RGB", (512, 256)).save(packed, "PNG", pnginfo=info)
    assert len(card_image(packed.getvalue()).data) < 10_000


def test_no_more_uploads_are_decoded_at_once_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbir.app.state.cores", lambda: 2)
    running: list[bytes] = []
    counts: list[int] = []
    both = Barrier(2)

    class CountingSearcher:
        def query_image(self, part: QueryPart) -> bytes:
            image = part.image or b""
            running.append(image)
            both.wait(600)  # until another is decoded too
            counts.append(len(running))
            both.wait(600)
            running.remove(image)
            return image

    gallery = SharedGallery(cast(Searcher, CountingSearcher()))
    with ThreadPoolExecutor(8) as pool:
        packed = list(pool.map(lambda n: gallery.pack_upload(b"%d" % n, "a.jpg"), range(8)))
    assert packed == [b"%d" % n for n in range(8)]
    assert counts == [2] * 8
