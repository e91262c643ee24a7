"""Which parameters of an encoder go together.  Torch-free, unlike `cbir.encoders.weight_files`."""

from dataclasses import fields
from enum import Enum

from cbir.core.errors import ConfigError
from cbir.encoders.demo import is_demo
from cbir.encoders.params import EncoderParams


def is_random(params: EncoderParams) -> bool:
    """Whether the weights are "random:<seed>"."""
    return params.weights.startswith("random:")


def has_no_tag(params: EncoderParams) -> bool:
    """Whether the weights are demo weights or random: they have no tag, and need no hash."""
    return is_demo(params.weights) or is_random(params)


def refuse_options(group: str, params: EncoderParams, *keys: str) -> None:
    """Raise ConfigError when one of these parameters, which the family does not have, is not its default."""
    defaults = {field.name: field.default for field in fields(EncoderParams)}
    for key in keys:
        if getattr(params, key) != defaults[key]:
            default = defaults[key]
            raise ConfigError(
                f"{group}.{key}: the family {params.family.value} does not take it; "
                f"set {group}.{key}={default.value if isinstance(default, Enum) else 'null'}"
            )
