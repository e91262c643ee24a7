"""Export an encoder's towers and tokenizer for OpenVINO: towers/{image,text}.{xml,bin}, towers/tokenizer.json.

A tower that cannot be exported is left out, with the reason in towers/towers.json; torch runs every encoder.
"""

from pathlib import Path

import numpy as np
import torch

from cbir.core.files import fresh_folder, write_json
from cbir.core.params import first_line
from cbir.encoders.base import EncoderCard
from cbir.encoders.families import load_family
from cbir.encoders.opening import TOWERS, tower_sources
from cbir.encoders.openvino_towers import import_openvino, tower_sha256
from cbir.encoders.params import Family
from cbir.encoders.tokens import tokenizer_sha256, write_tokenizer

_MAX_BATCH_ROWS = 4096


def export_towers(folder: Path, family: Family) -> None:
    """Export the towers and the tokenizer of the encoder in `folder` (see `cbir.encoders.base`)."""
    modules, out = load_family(family).build_modules(folder), folder / TOWERS
    fresh_folder(out)
    card = EncoderCard.read(folder)
    blank = card.preprocessing.blank(2)
    towers = {"image": _export(modules.image, blank, out / "image.xml")}
    if modules.text is not None and modules.tokenizer is not None:
        reason = write_tokenizer(out, modules.tokenizer)
        tokens = modules.tokenizer(["a", "photo"])
        towers["text"] = {"left_out": reason} if reason else _export(modules.text, tokens, out / "text.xml")
    sources = tower_sources(card)
    write_json(out / "towers.json", {"made_of": sources, "tokenizer": tokenizer_sha256(out), "towers": towers})


def _export(module: torch.nn.Module, example: np.ndarray, path: Path) -> dict[str, str]:
    """Write the module for batches of any size; return its hash, or the reason why it is left out."""
    openvino = import_openvino()
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH_ROWS)
    try:
        with torch.no_grad():
            exported = torch.export.export(module.eval(), (torch.from_numpy(example),), dynamic_shapes=({0: batch},))
        model = openvino.convert_model(exported)
    except Exception as error:  # for Python that no graph can express, both libraries raise errors of many kinds
        return {"left_out": f"{type(error).__name__}: {_reason(error)}"}
    model.set_friendly_name(path.stem)
    # the default names count the operations of the whole process, so the bytes would depend on earlier exports
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    openvino.save_model(model, path, compress_to_fp16=False)
    return {"sha256": tower_sha256(path)}


def _reason(error: Exception) -> str:
    """The line that names the operations that OpenVINO does not have, or else the first."""
    missing = [line for line in str(error).splitlines() if "No conversion rule found" in line]
    return missing[0].strip(" -") if missing else first_line(error)
