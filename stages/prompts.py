"""prompts: compute the metrics of each prompt set, for its single prompts and for their ensemble."""

from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.queries import read_prompts
from cbir.artifacts.timings import timed
from cbir.artifacts.vectors import open_vectors
from cbir.core.errors import one_line_errors
from cbir.core.files import write_json
from cbir.core.params import load_params
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.prompts import compare_prompts

PARAMS = ("evaluate.resamples", "evaluate.seed")


def main() -> None:
    data, params = DataPaths(), load_params("evaluate", EvaluateParams, PARAMS)
    gallery, texts = (open_vectors(data.embeddings("clip"), "clip", kind) for kind in ("gallery", "prompts"))
    labels = read_columns(data.images("gallery"), ["label"])["label"].combine_chunks()
    prompts = read_prompts(data.prompts)
    write_json(ReportPaths().prompts, compare_prompts(prompts, gallery, labels, texts, params.resamples, params.seed))


if __name__ == "__main__":
    with one_line_errors(), timed("prompts"):
        main()
