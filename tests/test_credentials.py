"""No password or signature of an address is written or shown, from `cbir compose` to the files that were fetched."""

import base64
import hashlib
import io
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cbir.cli import main as cli
from cbir.compose import write_params
from cbir.core.errors import ConfigError, FetchError
from cbir.core.files import write_json
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.weight_files import fetched_file
from cbir.fetching.addresses import check_address
from cbir.fetching.fetch import fetch
from stages import download, scan
from tests.support.repository import copy_conf
from tests.support.server import Answer, FileServer, file_server  # noqa: F401  (the fixture `server`)

SECRET = "Zq9-hunter2"
ENCODER = "encoders.clip_demo.weights"


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("cats/1.jpg", b"not looked at")
    return buffer.getvalue()


BODY = archive()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with conf/, its cache and home in the same folder, and the process in it."""
    copy_conf(tmp_path / "cbir")
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path.with_suffix(".netrc")))
    monkeypatch.chdir(tmp_path / "cbir")
    return tmp_path


@pytest.fixture(autouse=True)
def _nothing_shown(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After each test: the secret is in no output and no log."""
    caplog.set_level(logging.DEBUG, "cbir")
    yield
    captured = capfd.readouterr()
    assert SECRET not in captured.out + captured.err + caplog.text


def run(url: str) -> None:
    """Compose a data set at an address, and run the stages that fetch it."""
    write_params(["dataset=image_folder", f'dataset.url="{url}"', f"dataset.sha256={SHA256}"])
    scan.main()
    download.main()


def files_with_secret(folder: Path) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert paths
    return [path for path in paths if SECRET.encode() in path.read_bytes() or SECRET in path.name]


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{SECRET}".encode()).decode()


def test_password_comes_from_netrc(repository: Path, server: FileServer) -> None:
    repository.with_suffix(".netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    run(server.put("/photos.zip", Answer(BODY, authorization=basic("me"))))
    assert Path("data/raw/archive.zip").read_bytes() == BODY
    assert files_with_secret(repository) == []


@pytest.mark.parametrize("query", ["token=$OWN_TOKEN", "$OWN_TOKEN"])
def test_token_comes_from_environment(
    repository: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    value = SECRET if "=" in query else f"sv=1&sig={SECRET}"
    monkeypatch.setenv("OWN_TOKEN", value)
    public = server.put("/photos.zip", Answer(status=403))
    server.put(f"/photos.zip?{query.replace('$OWN_TOKEN', value)}", Answer(BODY))
    run(f"{public}?{query}")
    assert Path("data/raw/archive.zip").read_bytes() == BODY
    assert f"url: {public}?{query}\n" in Path("params.yaml").read_text()
    assert files_with_secret(repository) == []


def test_user_and_password_come_from_environment(
    repository: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_PASSWORD", SECRET)
    url = server.put("/photos.zip", Answer(BODY, authorization=basic("me")))
    run(url.replace("//", "//me:$OWN_PASSWORD@"))
    assert files_with_secret(repository) == []


def test_headers_come_from_fsspec(repository: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "https", {"headers": {"Authorization": f"Bearer {SECRET}"}})
    run(server.put("/photos.zip", Answer(BODY, authorization=f"Bearer {SECRET}")))
    assert files_with_secret(repository) == []


def test_plain_query_is_taken_as_it_is(repository: Path, server: FileServer) -> None:
    run(server.put("/photos.zip?download=1&path=/my%20photos", Answer(BODY)))
    assert Path("data/raw/archive.zip").read_bytes() == BODY


def test_later_token_resumes_the_download(
    repository: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = bytes(1000)
    public = server.put("/a.zip?token=old", Answer(body, stop_after=600))
    server.put("/a.zip?token=new", Answer(body))
    url, hashes = public.replace("old", "$OWN_TOKEN"), {"sha256": hashlib.sha256(body).hexdigest()}
    monkeypatch.setenv("OWN_TOKEN", "old")
    with pytest.raises(FetchError, match="the body ended early"):
        fetch(url, repository / "a.zip", attempts=1, **hashes)
    (partial,) = (repository / "cache").rglob("*.part")
    partial.write_bytes(body[:600])
    monkeypatch.setenv("OWN_TOKEN", "new")
    assert fetch(url, repository / "a.zip", attempts=1, **hashes).read_bytes() == body
    assert [hit.range for hit in server.hits] == [None, "bytes=600-"]


@pytest.mark.parametrize(
    ("command", "key", "url"),
    [
        ("compose", "dataset.url", f"https://me:{SECRET}@host/a.zip"),
        ("compose --check", "dataset.url", f"https://host/my a.zip?X-Amz-Date=2&X-Amz-Signature={SECRET}"),
        ("compose", ENCODER, f"https://host/a.safetensors?token={SECRET}"),
        ("compose", "encoders.clip_demo.tokenizer", f"https://{SECRET}@host/a"),
        ("compose", "queries.path", f"simplecache::ftp://me:{SECRET}@host/a.csv"),
        ("sweep index=flat,hnsw", ENCODER, f'"s3://bucket/a.safetensors?sv=1&sig={SECRET}"'),
    ],
)
def test_composing_a_secret_is_refused(repository: Path, command: str, key: str, url: str) -> None:
    Path(".dvc").mkdir()
    Path("params.yaml").write_text("as it was")
    dataset = ["dataset=image_folder"] if key == "dataset.url" else []
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), *dataset, f"{key}={url}"])
    message = str(caught.value)
    assert message.startswith(f"error: {key}: expected an address without a secret, found ")
    assert "~/.netrc" in message
    assert SECRET not in message
    assert Path("params.yaml").read_text() == "as it was"
    assert files_with_secret(repository) == []


def test_params_with_a_secret_stop_the_first_stage(repository: Path) -> None:
    """As `dvc exp run -S` would write them."""
    write_params(["dataset=image_folder", "dataset.url=https://host/a.zip"])
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("host/a.zip", f"host/a.zip?token={SECRET}"))
    with pytest.raises(ConfigError, match=r"^dataset.url: .*, found https://host/a\.zip\?token=\*\*\*: "):
        scan.main()
    assert not Path("data/local").exists()


def test_variable_that_is_not_set_is_named(server: FileServer, tmp_path: Path) -> None:
    url = server.put("/a.zip", Answer(BODY)) + "?$NO_SUCH_VARIABLE"
    with pytest.raises(ConfigError, match=r"expected the environment variable NO_SUCH_VARIABLE, found none: `export"):
        fetch(url, tmp_path / "a.zip", sha256=SHA256)
    assert server.hits == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=403),
        Answer(status=302, headers={"Location": f"ftp://me:{SECRET}@host/a.zip?sig={SECRET}"}),
        Answer(status=302, headers={"Location": f"http://host:port/a.zip?sig={SECRET}"}),
        Answer(status=302, headers={"Location": f"/loop.zip?token={SECRET}"}),
        Answer(b"other bytes"),
    ],
    ids=["403", "other scheme", "no address", "loop", "other bytes"],
)
def test_failures_show_no_secret(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("OWN_TOKEN", SECRET)
    monkeypatch.setenv("CBIR_CACHE", str(tmp_path / "cache"))
    server.put(f"/loop.zip?token={SECRET}", answer)
    url = server.put(f"/a.zip?x={SECRET}", answer).replace(SECRET, "$OWN_TOKEN")
    with pytest.raises(FetchError) as caught:
        fetch(url, tmp_path / "a.zip", sha256=SHA256, attempts=2, backoff_s=0.01)
    assert SECRET not in str(caught.value)
    assert str(caught.value).startswith(f"{url}: ")


def test_weights_and_their_record_hold_no_secret(
    repository: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_TOKEN", SECRET)
    url = server.put(f"/model.safetensors?token={SECRET}", Answer(BODY)).replace(SECRET, "$OWN_TOKEN")
    params = EncoderParams(family=Family.torchvision, architecture="resnet18", weights=url, weights_sha256=SHA256)
    with fetched_file("encoders.mine", params, params.weights) as path:
        assert path.read_bytes() == BODY
        assert path.suffix == ".safetensors"
    write_json(Path("record.json"), {"origin": params.weights})
    assert files_with_secret(repository) == []


@pytest.mark.parametrize("text", ["a photo // of [a {}", "", "photos [1]", "C:\\photos", "[::1]/x", "file:x"])
def test_text_that_is_no_address_is_not_examined(text: str) -> None:
    check_address("queries.templates", text)
