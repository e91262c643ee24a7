"""An encoder's towers and tokenizer for OpenVINO, beside its weights: towers/{image,text}.{xml,bin}, towers/tokenizer.json.

What cannot be exported is left out, with the reason in towers/towers.json; torch runs every encoder.
"""

from pathlib import Path

import numpy as np
import torch

from cbir.core.files import fresh_folder, write_json
from cbir.core.params import first_line
from cbir.encoders.base import EncoderCard
from cbir.encoders.opening import TOWERS, build_modules, made_of
from cbir.encoders.openvino_towers import import_openvino, tower_sha256
from cbir.encoders.params import Family
from cbir.encoders.tokens import tokenizer_sha256, write_tokenizer

_MOST_ROWS = 4096  # in a batch


def export_towers(folder: Path, family: Family) -> None:
    """Export what the weights in `folder` make (see `cbir.encoders.base`)."""
    modules, out = build_modules(folder, family), folder / TOWERS
    fresh_folder(out)
    card = EncoderCard.read(folder)
    blank = card.preprocessing.blank(2)
    towers = {"image": _exported(modules.image, blank, out / "image.xml")}
    if modules.text is not None and modules.tokenizer is not None:
        reason = write_tokenizer(out, modules.tokenizer)
        tokens = modules.tokenizer(["a", "photo"]).numpy()
        towers["text"] = {"left_out": reason} if reason else _exported(modules.text, tokens, out / "text.xml")
    write_json(out / "towers.json", {"made_of": made_of(card), "tokenizer": tokenizer_sha256(out), "towers": towers})


def _exported(module: torch.nn.Module, example: np.ndarray, path: Path) -> dict[str, str]:
    """Write the module for batches of any size; its hash, or why it is left out."""
    openvino = import_openvino()
    batch = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    try:
        with torch.no_grad():
            exported = torch.export.export(module.eval(), (torch.from_numpy(example),), dynamic_shapes=({0: batch},))
        model = openvino.convert_model(exported)
    except (
        Exception
    ) as error:  # whatever an architecture's Python does that a graph cannot: both raise a family of theirs
        return {"left_out": f"{type(error).__name__}: {first_line(error)}"}
    model.set_friendly_name(path.stem)
    for number, operation in enumerate(model.get_ordered_ops()):  # their own names count what the process made before
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    openvino.save_model(model, path, compress_to_fp16=False)
    return {"sha256": tower_sha256(path)}
