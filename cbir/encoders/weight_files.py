"""What the families share: fetch, read and save files of weights, and turn failures into one line."""

import contextlib
import json
import logging
import pickle
import shlex
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import file_sha256, replacing
from cbir.core.params import first_line
from cbir.core.text import nearest
from cbir.encoders.checkpoints import Convert, load_checkpoint
from cbir.encoders.demo import demo_file, is_demo
from cbir.encoders.options import has_no_tag, is_random
from cbir.encoders.params import EncoderParams
from cbir.fetching.addresses import check_address
from cbir.fetching.fetch import FileTooLargeError, fetch

_SILENCE_S = 60.0  # the longest wait of a library's own client for the next bytes
_MAX_BYTES = 20_000_000_000  # of a file from the network: four times CLIP ViT-H/14 in fp32


def known_tag(group: str, key: str, tag: str, tags: Mapping[str, Any]) -> str:
    """Return the tag.  Raises ConfigError when it is not among `tags`."""
    if tag not in tags:
        raise ConfigError(f"{group}.{key}: no tag {tag!r}; {nearest(tag, tags)}")
    return tag


def tag_of_file(group: str, params: EncoderParams, tags: Mapping[str, Any], prefix: str = "") -> str | None:
    """The tag whose settings a file's weights need: `weights_tag`; None for demo weights, random ones, and "none".

    prefix : what precedes a tag in `weights`.  Raises ConfigError when the tag is missing or unknown, and when `weights` is
    neither a tag nor a file.
    """
    if has_no_tag(params):
        return None
    if "/" not in params.weights and "." not in params.weights:
        choices = nearest(params.weights, [*(prefix + known for known in tags), "random:0"])
        raise ConfigError(
            f"{group}.weights: {params.architecture} has no tag {params.weights!r}, and it is not a path; {choices}"
        )
    if params.weights_tag is None and tags:
        raise ConfigError(
            f"{group}.weights_tag: expected the tag whose settings (size, mean, std, activation) {params.weights} carries, "
            f"found null; one of {', '.join(tags)}, or 'none' for the architecture's own"
        )
    if params.weights_tag in (None, "none"):
        return None
    return known_tag(group, "weights_tag", str(params.weights_tag), {**tags, "none": None})


@contextlib.contextmanager
def fetched_file(group: str, params: EncoderParams, url: str, sha256_prefix: str | None = None) -> Iterator[Path]:
    """Fetch a file of weights, or take the demo weights, for as long as the block runs.

    Raises ConfigError and FetchError as `cbir.fetching.fetch.fetch` does.
    """
    if is_demo(params.weights):
        yield _demo_file(group, params.weights)
        return
    check_address(f"{group}.weights", url)
    with tempfile.TemporaryDirectory() as folder:
        # the suffix says how to read the file; a URL may continue after it, as in model.safetensors?download=true
        name = Path(urlsplit(url).path if "://" in url else url).name
        try:
            path = fetch(
                url,
                Path(folder) / (name or "weights"),
                sha256=params.weights_sha256,
                sha256_prefix=sha256_prefix,
                max_bytes=_MAX_BYTES,
            )
        except FileTooLargeError as error:
            raise FetchError(f"{group}.weights: {error}, or fetch the file yourself and give its path") from error
        except (ConfigError, FetchError) as error:
            raise type(error)(f"{group}.weights: {error}") from error
        yield path


def fetch_from_hub(group: str, params: EncoderParams, tag: str, source: str, download: Callable[[], str]) -> Path:
    """Fetch the weights of a tag by a library's own client; return the path in that client's cache.

    source : the repository or address, for messages.  Raises FetchError when it fails, or when `weights_sha256` is another.
    """
    client = logging.getLogger("huggingface_hub")
    level, patience_s = client.level, socket.getdefaulttimeout()
    client.setLevel(logging.ERROR)  # it logs each retry
    socket.setdefaulttimeout(_SILENCE_S)  # open_clip's client waits for ever
    try:
        path = Path(download())
    except Exception as error:  # the hub's client raises errors of its own kinds, and plain OSError
        raise FetchError(
            f"{group}.weights: {params.weights!r} cannot be fetched from {source}: {first_line(error)}; check the network, "
            f"then run `dvc repro` again, or give the file: {group}.weights=/path {group}.weights_tag={tag}"
        ) from error
    finally:
        client.setLevel(level)
        socket.setdefaulttimeout(patience_s)
    if params.weights_sha256 is not None and (sha256 := file_sha256(path)) != params.weights_sha256.lower():
        raise FetchError(
            f"{group}.weights: {params.weights!r} from {source}: expected sha256 {params.weights_sha256}, found {sha256}; "
            f"check {group}.weights_sha256, or delete {path} and run `dvc repro` again"
        )
    return path


def _demo_file(group: str, weights: str) -> Path:
    """The file of demo weights.  Raises FetchError when its hash is not the one in the training log."""
    path, log = demo_file(weights), demo_file(weights, "json")
    remedy = "run `git checkout cbir/demo/weights`, or `make demo`"
    try:
        expected, sha256 = json.loads(log.read_bytes())["sha256"], file_sha256(path)
    except (OSError, ValueError, KeyError) as error:
        raise FetchError(
            f"{group}.weights: {weights}: expected {path} and {log.name}, found {error!r}; {remedy}"
        ) from error
    if sha256 != expected:
        raise FetchError(f"{group}.weights: {weights}: {path}: expected sha256 {expected}, found {sha256}; {remedy}")
    return path


def load_file_weights(
    group: str,
    params: EncoderParams,
    model: torch.nn.Module,
    path: Path,
    unread: Sequence[str] = (),
    convert: Convert = dict,
) -> None:
    """Load a user's file and print which of its tensors are not used (see `cbir.encoders.checkpoints.load_checkpoint`).

    Raises WeightsError in one line when the file is of another architecture, damaged, or no file of plain tensors.
    """
    with one_line_weights_errors(group, params):
        _refuse_torchscript(params.weights, path)
        unused = load_checkpoint(model, path, unread, convert)
    if unused and not has_no_tag(params):
        names = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        print(
            f"{group}.weights: the embedding does not use {len(unused)} tensors of {params.weights}: {names}",
            flush=True,
        )


# run by the user, who trusts the file: torch.jit.load compiles the code in it
_CONVERT = (
    "import sys, torch, safetensors.torch as s; s.save_file({n: t.clone() for n, t in "
    'torch.jit.load(sys.argv[1], "cpu").state_dict().items()}, sys.argv[2])'
)


def _refuse_torchscript(weights: str, path: Path) -> None:
    """Raise WeightsError for a TorchScript archive, as OpenAI publishes CLIP: reading it compiles code."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        archive_path = Path(urlsplit(weights).path)
        command = python_command(_CONVERT, archive_path, archive_path.with_suffix(".safetensors"))
        raise WeightsError(
            f"it is a TorchScript archive, which holds code; if you trust it, convert it and give the new file: {command}"
        )


def python_command(code: str, *arguments: Any) -> str:
    """A line for the shell that runs the code with this Python, whichever environment is active; quote with " in the code."""
    return shlex.join([sys.executable, "-c", code, *map(str, arguments)])


@contextlib.contextmanager
def one_line_weights_errors(group: str, params: EncoderParams) -> Iterator[None]:
    """Turn each failure to read or load weights into a WeightsError of one line."""
    try:
        yield
    except WeightsError as error:
        if is_demo(params.weights):
            raise _not_the_demos(group, params) from error
        raise WeightsError(f"{group}.weights: {params.weights} does not fit {params.architecture}: {error}") from error
    except Exception as error:  # load_state_dict, torch.load and safetensors raise RuntimeError, UnpicklingError, ...
        if is_demo(params.weights):
            raise _not_the_demos(group, params) from error
        detail = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError):  # torch's message recommends what would run code from the file
            detail = "it holds other objects, or it is not a file of weights"
        raise WeightsError(
            f"{group}.weights: {params.weights} does not fit {params.architecture}, or is not a file of plain tensors "
            f"(safetensors, or torch's with weights_only): {detail[:300]}{'...' if len(detail) > 300 else ''}"
        ) from error


def _not_the_demos(group: str, params: EncoderParams) -> WeightsError:
    return WeightsError(
        f"{group}.weights: {params.weights} does not fit {params.architecture}: demo weights have their own "
        "architecture; see the files of conf/encoders/"
    )


def save_state(model: torch.nn.Module, path: Path) -> str:
    """Write the state as safetensors; return the file's sha256.  Raises OSError when the disk is full."""
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
        except SafetensorError as error:  # of the operating system's errors too
            raise OSError(f"{path}: {first_line(error)}") from error
        temporary.chmod(0o644)  # safetensors lets only the owner read it, which a shared DVC cache would keep
    return file_sha256(path)


@contextlib.contextmanager
def seeded(group: str, params: EncoderParams) -> Iterator[None]:
    """Seed torch with the seed of "random:<seed>" inside the block; restore the state of its generator afterwards.

    Raises ConfigError when the seed is not a whole number.
    """
    seed = params.weights.removeprefix("random:") if is_random(params) else "0"
    if not seed.isdecimal():
        raise ConfigError(f"{group}.weights: expected random:<seed> with a whole number, found {params.weights!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        yield
