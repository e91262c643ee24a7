"""Models of transformers: their configuration and weights, from a folder or a file, without the code that comes with them."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel
from transformers import __version__ as transformers_version
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging

from cbir.core.errors import ConfigError, FetchError, WeightsError
from cbir.core.files import file_sha256
from cbir.core.params import first_line
from cbir.core.parsing import parse_json
from cbir.encoders.checkpoints import State
from cbir.encoders.hub import PRETRAINED, ModelFolder
from cbir.encoders.options import is_random
from cbir.encoders.own_code import NO_CODE, no_questions
from cbir.encoders.params import EncoderParams
from cbir.encoders.weight_files import fetched_file, load_file_weights, one_line_weights_errors, python_command, seeded

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLES = "pytorch_model*.bin"
# run by the user: torch.load reads tensors only
_CONVERT = (
    "import glob, sys, torch, safetensors.torch as s; w = {}; "
    '[w.update(torch.load(p, "cpu", weights_only=True)) for p in glob.glob(sys.argv[1])]; '
    "s.save_file({k: v.clone().contiguous() for k, v in w.items()}, sys.argv[2])"
)
# what an encoder can do without: the scale of a loss, and a layer behind the class token
_POOLER = "pooler."
_OPTIONAL = ("logit_", _POOLER)


def read_config(group: str, name: str, folder: Path) -> Any:
    """Read config.json.  Raises ConfigError when this transformers does not have its kind of model."""
    path = folder / CONFIG
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        kind = values.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{group}.architecture: {name}: expected transformers' {CONFIG} in it, found none that can be read: {error}"
        ) from error
    if kind not in CONFIG_MAPPING:
        code = ", and code of its own (auto_map), which cbir never runs" if "auto_map" in values else ""
        raise ConfigError(
            f"{group}.architecture: {name}: {CONFIG}: expected a model_type of transformers {transformers_version}, found "
            f"{kind!r}{code}"
        )
    try:
        config = AutoConfig.from_pretrained(folder, **NO_CODE, local_files_only=True)
    except Exception as error:  # a configuration checks its values itself
        detail = " ".join(str(error).split())
        raise ConfigError(f"{group}.architecture: {name}: {CONFIG}: {detail}") from error
    if type(config) not in MODEL_MAPPING:
        raise ConfigError(
            f"{group}.architecture: {name}: {CONFIG}: transformers has no AutoModel of model_type {kind!r}"
        )
    return config


def load_model(group: str, params: EncoderParams, source: ModelFolder, config: Any) -> tuple[Any, bool]:
    """Build the model with its weights in float32; say whether those of a pooling layer are untrained.

    Raises WeightsError when weights are missing or of another architecture; prints which are not used.
    """
    with seeded(group, params):  # a layer that a file does not have is initialised
        if params.weights == PRETRAINED:
            return _from_folder(group, params, source, config)
        model = _from_config(group, params, config)
        if is_random(params):
            return model, False
        initial = _optional(model)
        with fetched_file(group, params, params.weights) as path:
            load_file_weights(group, params, model, path, convert=lambda state: {**initial, **_renamed(state, model)})
    pooler = {name: value for name, value in initial.items() if name.startswith(_POOLER)}
    return model, bool(pooler) and all(torch.equal(value, model.state_dict()[name]) for name, value in pooler.items())


def _optional(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the model that an encoder can do without."""
    state = model.state_dict()
    return {name: value.clone() for name, value in state.items() if name.startswith(_OPTIONAL)}


def _renamed(state: State, model: Any) -> State:
    """The names that this version of transformers gives to what older ones, or files, name otherwise."""
    steps = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]
    known, renamed = model.state_dict(), {}
    for name, value in state.items():
        new = name
        for step in steps if name not in known else ():
            new = step.rename_source_key(new)[0]
        renamed[new] = value
    return renamed


def _from_folder(group: str, params: EncoderParams, source: ModelFolder, config: Any) -> tuple[Any, bool]:
    _check_files(group, params, source)
    kind: Any = MODEL_MAPPING[type(config)]
    with one_line_weights_errors(group, params):
        model, report = kind.from_pretrained(
            source.path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # _check_report names them
            output_loading_info=True,
        )
    _check_report(group, params, report)
    return model, any(name.startswith(_POOLER) for name in report["missing_keys"])


def _from_config(group: str, params: EncoderParams, config: Any) -> Any:
    auto: Any = AutoModel
    try:
        return auto.from_config(config, dtype=torch.float32, **NO_CODE)
    except Exception as error:  # wrong numbers raise errors of any type
        raise ConfigError(
            f"{group}.architecture: {params.architecture} cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from error


def _check_files(group: str, params: EncoderParams, source: ModelFolder) -> None:
    """Raise WeightsError when the folder has no safetensors, FetchError when they have another hash."""
    name, folder = params.architecture, source.path
    if not any((folder / file).exists() for file in FILES[:2]):
        raise WeightsError(f"{group}.weights: {name}: expected {WEIGHTS}, found none; {_remedy(group, name, source)}")
    if params.weights_sha256 is None:
        return
    if not (folder / WEIGHTS).exists():
        raise ConfigError(
            f"{group}.weights_sha256: {name} has several files of weights; set it to null, and pin the revision: "
            f"{group}.architecture=org/name@revision"
        )
    if (sha256 := file_sha256(folder / WEIGHTS)) != params.weights_sha256.lower():
        raise FetchError(f"{group}.weights: {name}: expected sha256 {params.weights_sha256}, found {sha256}")


def _remedy(group: str, name: str, source: ModelFolder) -> str:
    """What to run when there is no safetensors file."""
    if source.pinned:
        return f"run `hf download {source.pinned.partition('@')[0]} --local-dir FOLDER`, then set {group}.architecture=FOLDER"
    if not [*source.path.glob(PICKLES)]:
        return f"name a file: {group}.weights=/path"
    command = python_command(_CONVERT, source.path / PICKLES, source.path / WEIGHTS)
    return f"its pytorch_model.bin is converted by `{command}`"


def _check_report(group: str, params: EncoderParams, report: Mapping[str, Any]) -> None:
    """Raise WeightsError when weights are missing or have another shape; print which are not used."""
    differences = [
        *(
            f"{name} expected {tuple(shape)}, found {tuple(actual)}"
            for name, actual, shape in report["mismatched_keys"]
        ),
        *(f"{name} expected, found none" for name in report["missing_keys"] if not name.startswith(_OPTIONAL)),
    ]
    if differences:
        raise WeightsError(
            f"{group}.weights: those of {params.architecture} do not fit its {CONFIG}: {len(differences)} tensors differ: "
            f"{'; '.join(sorted(differences)[:3])}"
        )
    if unused := sorted(report["unexpected_keys"]):
        names = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        print(
            f"{group}.weights: the embedding does not use {len(unused)} tensors of {params.architecture}: {names}",
            flush=True,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's log and its progress bars, and close stdin; `_check_report` says what matters."""
    log: Any = logging
    level, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with no_questions():
            yield
    finally:
        log.set_verbosity(level)
        if has_bars:
            log.enable_progress_bar()
