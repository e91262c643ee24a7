"""Fixtures that several test modules of the encoders share."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cbir.artifacts import images as image_artifacts
from cbir.artifacts.images import PackedImage, write_shards
from cbir.encoders.base import Encoder
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import Family
from cbir.encoders.runtime import Runtime
from tests.support.encoders import fetch_tiny_clip, packed_images

ROWS, SHARD_ROWS = 43, 16  # three shards: 16, 16 and 11


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Two threads of torch that share their cores with other work wait for each other, and take three times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small CLIP."""
    return fetch_tiny_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Encoder:
    """The small CLIP, run by torch."""
    return load_encoder(tiny_folder, Family.open_clip, Runtime())


@pytest.fixture(scope="module")
def images() -> list[PackedImage]:
    """The images of `shards`."""
    return packed_images(ROWS)


@pytest.fixture(scope="module")
def shards(images: list[PackedImage], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three shards."""
    folder = tmp_path_factory.mktemp("images") / "gallery"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_artifacts, "MAX_SHARD_ROWS", SHARD_ROWS)
        patch.setattr(image_artifacts, "_ends_shard", lambda image: False)
        assert write_shards(folder, images) == ROWS
    assert [path.name for path in sorted(folder.iterdir())] == [f"part-0000{place}.parquet" for place in range(3)]
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Fails the test that looks up a name or connects."""
    tried: list[object] = []

    def refuse(*args: object, **_: object) -> None:
        tried.append(args)
        raise OSError("the network was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tried
    assert not tried
