"""The registry of families."""

import subprocess
import sys

import pytest

from cbir.encoders.families import load_family
from cbir.encoders.params import Family
from tests.support.imports import ROOT

LIBRARIES = {"torch", "torchvision", "timm", "open_clip", "transformers"}


@pytest.mark.parametrize("family", Family)
def test_each_family_has_a_module(family: Family) -> None:
    module = load_family(family)
    assert callable(module.fetch_weights)
    assert callable(module.build_modules)


def test_no_library_is_imported_before_its_family() -> None:
    code = f"import sys, cbir.encoders.opening, cbir.encoders.drift; print({LIBRARIES!r} & set(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
