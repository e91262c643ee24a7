"""packing: the limit of the shorter side of packed images, derived from what the encoders read unless it is given."""

from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.packing import read_resize_px, write_packing
from cbir.artifacts.paths import DataPaths
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.datasets.image_size import derived_max_side_px, starved_encoders
from cbir.datasets.params import DatasetParams

PARAMS = ("dataset.max_side_px",)


def main() -> None:
    data, params = DataPaths(), load_params("dataset", DatasetParams, PARAMS)
    names = read_encoder_names(data.encoders)
    resize_px = {name: px for name in names if (px := read_resize_px(data.weights(name))) is not None}
    max_side_px = params.max_side_px or derived_max_side_px(resize_px.values())
    write_packing(data.packing, max_side_px)
    for line in starved_encoders(max_side_px, resize_px):
        print(line, flush=True)


if __name__ == "__main__":
    with one_line_errors():
        main()
