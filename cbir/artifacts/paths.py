"""Where each artifact lies: the only module that knows the names below `data/` and `reports/`; dvc.yaml declares the same."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataPaths:
    """The artifacts of the pipeline's steps, below `root`.

    encoder : the name of an encoder.  kind : of images, "gallery" or "queries"; of vectors, "texts" and "prompts" as well.
    """

    root: Path = Path("data")

    @property
    def raw(self) -> Path:
        """The data set as it was fetched."""
        return self.root / "raw"

    @property
    def summary(self) -> Path:
        """Counts of what preprocess packed, and its limits."""
        return self.root / "images" / "summary.json"

    @property
    def quarantine(self) -> Path:
        """Images that could not be decoded."""
        return self.root / "images" / "quarantine.parquet"

    @property
    def all_images(self) -> Path:
        """The folder of both kinds of images."""
        return self.root / "images"

    def images(self, kind: str) -> Path:
        """The folder of packed images."""
        return self.root / "images" / kind

    @property
    def queries(self) -> Path:
        """The folder of the three tables below."""
        return self.root / "queries"

    @property
    def query_list(self) -> Path:
        """The query list."""
        return self.queries / "query_list.parquet"

    @property
    def qrels(self) -> Path:
        """The relevance judgements."""
        return self.queries / "qrels.parquet"

    @property
    def prompts(self) -> Path:
        """Every prompt of every class."""
        return self.queries / "prompts.parquet"

    @property
    def all_embeddings(self) -> Path:
        """The folder of all encoders' vectors."""
        return self.root / "embeddings"

    def embeddings(self, encoder: str) -> Path:
        """The folder of an encoder's vectors."""
        return self.root / "embeddings" / encoder

    def vectors(self, encoder: str, kind: str) -> Path:
        """The folder of one set of vectors."""
        return self.embeddings(encoder) / kind

    def weights(self, encoder: str) -> Path:
        """The folder of an encoder's weights, preprocessing, tokenizer and exported towers."""
        return self.root / "weights" / encoder

    @property
    def all_indexes(self) -> Path:
        """The folder of all encoders' indexes."""
        return self.root / "index"

    def index(self, encoder: str) -> Path:
        """The folder of an encoder's index."""
        return self.root / "index" / encoder

    @property
    def all_maps(self) -> Path:
        """The folder of all encoders' maps."""
        return self.root / "map"

    def map(self, encoder: str) -> Path:
        """An encoder's map of the gallery."""
        return self.all_maps / f"{encoder}.parquet"

    def local(self, name: str) -> Path:
        """The state of local files that the run reads but does not own."""
        return self.root / "local" / f"{name}.json"

    @property
    def timings(self) -> Path:
        """The folder of what each stage took."""
        return self.root / "timings"


@dataclass(frozen=True)
class ReportPaths:
    """What a run found, below `root`."""

    root: Path = Path("reports")

    @property
    def metrics(self) -> Path:
        """Means of every metric."""
        return self.root / "metrics.json"

    @property
    def intervals(self) -> Path:
        """Their 95 % intervals."""
        return self.root / "intervals.json"

    @property
    def definitions(self) -> Path:
        """What each metric is."""
        return self.root / "definitions.json"

    @property
    def test_collection(self) -> Path:
        """Rows and hash of gallery, queries and judgements."""
        return self.root / "test_collection.json"

    @property
    def per_query(self) -> Path:
        """Every metric of every query."""
        return self.root / "per_query.parquet"

    @property
    def classes(self) -> Path:
        """Every metric of every class."""
        return self.root / "classes.parquet"

    @property
    def confusions(self) -> Path:
        """Which classes are retrieved instead of which."""
        return self.root / "confusions.parquet"

    @property
    def duplicates(self) -> Path:
        """Pairs of a query and a gallery image that are the same picture."""
        return self.root / "duplicates.parquet"

    @property
    def prompts(self) -> Path:
        """Metrics of every prompt set."""
        return self.root / "prompts.json"

    @property
    def latency(self) -> Path:
        """Search times."""
        return self.root / "latency.json"

    @property
    def runs(self) -> Path:
        """The folder of run tables."""
        return self.root / "runs"

    def run(self, task: str, encoder: str, search: str) -> Path:
        """The run of a search.  search : "index" or "exact"."""
        return self.runs / f"run_{task}_{encoder}{'_exact' if search == 'exact' else ''}.parquet"

    @property
    def plots(self) -> Path:
        """The folder of the points of `dvc plots`."""
        return self.root / "plots"

    @property
    def galleries(self) -> Path:
        """The folder of pictures of queries with their results."""
        return self.plots / "galleries"

    @property
    def html(self) -> Path:
        """The report, a page."""
        return self.root / "report.html"

    @property
    def markdown(self) -> Path:
        """The report as text."""
        return self.root / "report.md"

    @property
    def comparisons(self) -> Path:
        """The folder of pages of two runs side by side."""
        return self.root / "comparisons"

    @property
    def sweeps(self) -> Path:
        """The folder of sweeps' tables and logs."""
        return self.root / "sweeps"

    @property
    def trec(self) -> Path:
        """The folder of runs and judgements in TREC's format."""
        return self.root / "trec"

    @property
    def contact_sheet(self) -> Path:
        """The page of the last search."""
        return self.root / "search" / "contact_sheet.html"
