"""prompts: what CLIP finds by every wording of the classes' names, and by the ensemble of each prompt set."""

from pathlib import Path

from cbir.artifacts.files import write_json
from cbir.artifacts.images import read_columns
from cbir.artifacts.queries import read_prompts
from cbir.artifacts.vectors import open_vectors
from cbir.config import load_params
from cbir.errors import told_in_one_line
from cbir.prompts import compare_prompts
from cbir.timing import timed

PARAMS = ("evaluate.resamples", "evaluate.seed")
IMAGES, QUERIES, EMBEDDINGS, OUT = map(
    Path, ("data/images", "data/queries", "data/embeddings/clip", "reports/prompts.json")
)


def main() -> None:
    params = load_params(PARAMS).evaluate
    gallery, texts = (open_vectors(EMBEDDINGS, "clip", kind) for kind in ("gallery", "prompts"))
    labels = read_columns(IMAGES / "gallery", ["label"])["label"].combine_chunks()
    prompts = read_prompts(QUERIES / "prompts.parquet")
    write_json(OUT, compare_prompts(prompts, gallery, labels, texts, params.resamples, params.seed))


if __name__ == "__main__":
    with told_in_one_line(), timed("prompts"):
        main()
