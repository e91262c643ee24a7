"""scan: record the state of the local files that the run reads but does not own, so that DVC sees when they change.

An image folder, a query list, a file of prompts or of weights on this machine is not an output of any stage.  DVC stops at a
folder with a dangling link (treeverse/dvc#9971) and at a file that is absent, even if this run does not use it, such as the
demo weights.  So this stage always runs, takes moments, and writes one small file for each group of parameters and encoder.

It also checks all of params.yaml, so that a mistake anywhere in it stops the run here and not hours later; refuses files of the
user's in an output, before DVC empties it; lists the encoders of the run for the stages that read the results of all of them;
and deletes the results of encoders that the run no longer has.
"""

from pathlib import Path

from cbir.artifacts.earlier_run import data_set_name, replaced_data_set, replacement_note
from cbir.artifacts.leftovers import delete_leftovers
from cbir.artifacts.names import write_encoder_names
from cbir.artifacts.outputs import check_places
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.device import check_device
from cbir.core.errors import one_line_errors
from cbir.core.files import fresh_folder, write_json
from cbir.core.params import PARAMS_FILE, load_params, read_yaml
from cbir.datasets.local_state import images_state, local_state
from cbir.datasets.params import QueriesParams, QuerySource
from cbir.datasets.prompt_sets import user_files
from cbir.encoders.demo import demo_file, is_demo
from cbir.fetching.params import SourceParams
from cbir.fetching.views import is_image
from cbir.inputs import check_inputs, check_outputs
from cbir.schema import checked

PARAMS = (
    "dataset.reader",
    "dataset.url",
    "queries.source",
    "queries.path",
    "queries.qrels",
    "queries.prompt_sets",
    "encoders",
)


def main() -> None:
    check_places(Path())
    params = checked(read_yaml(PARAMS_FILE), str(PARAMS_FILE))
    check_inputs(params)
    check_device(params.device.name.value)
    data, reports, queries = DataPaths(), ReportPaths(), load_params("queries", QueriesParams, PARAMS)
    check_outputs(data, reports)
    data_set = (params.dataset.reader.value, params.dataset.url)
    if earlier := replaced_data_set(data, *data_set):
        print(replacement_note(earlier, data_set_name(*data_set)))
    encoders = params.encoders
    source = load_params("dataset", SourceParams, PARAMS, whole_group=False)
    write_json(data.local("dataset"), local_state([source.url], is_content=is_image))
    lists = local_state([queries.path, queries.qrels, *user_files(queries.prompt_sets)])
    images = images_state(queries.path) if queries.source is QuerySource.file else {}
    write_json(data.local("queries"), lists | images)
    fresh_folder(data.local_encoders)
    for name, encoder in encoders.items():
        demo = {encoder.weights: demo_file(encoder.weights)} if is_demo(encoder.weights) else {}
        names = [encoder.architecture, encoder.weights, encoder.tokenizer]
        write_json(data.local_encoder(name), local_state(names, demo))
    write_encoder_names(data.encoders, encoders)
    write_encoder_names(reports.encoders, encoders)
    delete_leftovers(data, reports, encoders)


if __name__ == "__main__":
    with one_line_errors():
        main()
