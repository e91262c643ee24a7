"""JSON and YAML of any origin: text that is nested too deeply, or that aliases make endless, is an error like others."""

import json
from typing import Any

import yaml

_DEEPEST = 50  # mappings and lists within each other in YAML


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.  Raises ValueError for anything else, and for JSON that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """Parse plain YAML.  Raises ValueError for anything else, and as `check_yaml` does."""
    check_yaml(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def check_yaml(text: str) -> None:
    """Raise ValueError unless the text is YAML without aliases, a few of which stand for any amount of text."""
    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError(f"it is nested more than {_DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"expected no alias, found *{event.anchor}")
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
