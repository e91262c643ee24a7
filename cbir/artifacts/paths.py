"""The path of each artifact below `data/` and `reports/`: the only module that spells them out; dvc.yaml declares the same."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataPaths:
    """The artifacts of the pipeline's stages, below `root`.

    encoder : the name of an encoder.  kind : "gallery" or "queries"; for vectors also "texts" or "prompts".
    """

    root: Path = Path("data")

    @property
    def encoders(self) -> Path:
        """The names of the run's encoders."""
        return self.root / "encoders.json"

    @property
    def raw(self) -> Path:
        """The data set as fetched."""
        return self.root / "raw"

    @property
    def summary(self) -> Path:
        """Numbers of images, queries and classes."""
        return self.root / "images" / "summary.json"

    @property
    def quarantine(self) -> Path:
        """The table of images that could not be decoded."""
        return self.root / "images" / "quarantine.parquet"

    @property
    def all_images(self) -> Path:
        """The folder of all packed images."""
        return self.root / "images"

    def images(self, kind: str) -> Path:
        """The folder of the packed images of one kind."""
        return self.root / "images" / kind

    @property
    def queries(self) -> Path:
        """The folder of query list, judgements and prompts."""
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
        """The prompts of each class."""
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

    @property
    def all_weights(self) -> Path:
        """The folder of all encoders' weights."""
        return self.root / "weights"

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

    def build(self, encoder: str) -> Path:
        """Build time and size of an encoder's index."""
        return self.index(encoder) / "build.json"

    def index_passport(self, encoder: str) -> Path:
        """The passport of an encoder's index."""
        return self.index(encoder) / "passport.json"

    @property
    def all_maps(self) -> Path:
        """The folder of all encoders' maps."""
        return self.root / "map"

    def map(self, encoder: str) -> Path:
        """An encoder's map of the gallery."""
        return self.all_maps / f"{encoder}.parquet"

    def local(self, name: str) -> Path:
        """The fingerprint of local files that the run reads but does not own."""
        return self.root / "local" / f"{name}.json"

    @property
    def packing(self) -> Path:
        """The size to which larger images are reduced."""
        return self.root / "packing.json"

    @property
    def local_encoders(self) -> Path:
        """The folder of the fingerprints of the encoders' local files."""
        return self.root / "local" / "encoders"

    def local_encoder(self, encoder: str) -> Path:
        """The fingerprint of the local files of an encoder."""
        return self.local_encoders / f"{encoder}.json"

    @property
    def timings(self) -> Path:
        """The folder of the stages' times."""
        return self.root / "timings"

    def timing(self, stage: str) -> Path:
        """The time and memory of a stage, named as in dvc.yaml: "download", "embed@clip"."""
        return self.timings / f"{stage}.json"


@dataclass(frozen=True)
class EvaluationPaths:
    """The evaluation of one encoder, below `root`."""

    root: Path

    @property
    def passport(self) -> Path:
        """What was evaluated, and the hash of each file."""
        return self.root / "passport.json"

    @property
    def metrics(self) -> Path:
        """The mean of each metric."""
        return self.root / "metrics.json"

    @property
    def intervals(self) -> Path:
        """The 95 % intervals of the means."""
        return self.root / "intervals.json"

    @property
    def definitions(self) -> Path:
        """The definition of each metric."""
        return self.root / "definitions.json"

    @property
    def test_collection(self) -> Path:
        """Row counts and hashes of gallery, queries and judgements."""
        return self.root / "test_collection.json"

    @property
    def per_query(self) -> Path:
        """The metrics of each query."""
        return self.root / "per_query.parquet"

    @property
    def classes(self) -> Path:
        """The metrics of each class."""
        return self.root / "classes.parquet"

    @property
    def confusions(self) -> Path:
        """Pairs of a query class and another class that is retrieved instead."""
        return self.root / "confusions.parquet"

    @property
    def duplicates(self) -> Path:
        """Pairs of a query and a gallery image that are the same picture."""
        return self.root / "duplicates.parquet"

    @property
    def prompts(self) -> Path:
        """The metrics of each prompt set; absent if the encoder reads no text."""
        return self.root / "prompts.json"

    @property
    def runs(self) -> Path:
        """The folder of run tables."""
        return self.root / "runs"

    def run(self, task: str, search: str) -> Path:
        """The run of a search.  search : "index" or "exact"."""
        return self.runs / f"{task}_{search}.parquet"


@dataclass(frozen=True)
class ReportPaths:
    """The results of a run, below `root`."""

    root: Path = Path("reports")

    @property
    def encoders(self) -> Path:
        """The names of the run's encoders."""
        return self.root / "encoders.json"

    @property
    def all_headlines(self) -> Path:
        """The folder of the encoders' headline metrics."""
        return self.root / "metrics"

    def headline(self, encoder: str) -> Path:
        """The headline metrics of an encoder, which `dvc metrics` and `dvc exp` show."""
        return self.all_headlines / f"{encoder}.json"

    @property
    def all_evaluations(self) -> Path:
        """The folder of all encoders' evaluations."""
        return self.root / "evaluation"

    def evaluation(self, encoder: str) -> EvaluationPaths:
        """The evaluation of an encoder."""
        return EvaluationPaths(self.all_evaluations / encoder)

    def verification(self, encoder: str) -> Path:
        """The comparison of an encoder's vectors with those of its library."""
        return self.all_verifications / f"{encoder}.json"

    @property
    def all_verifications(self) -> Path:
        """The folder of all encoders' comparisons with their libraries."""
        return self.root / "verification"

    @property
    def all_latencies(self) -> Path:
        """The folder of all encoders' search times."""
        return self.root / "latency"

    def latency(self, encoder: str) -> Path:
        """The search times of an encoder."""
        return self.all_latencies / f"{encoder}.json"

    @property
    def plots(self) -> Path:
        """The folder of the points that `dvc plots` draws."""
        return self.root / "plots"

    @property
    def galleries(self) -> Path:
        """The folder of pictures of queries with their results."""
        return self.plots / "galleries"

    @property
    def html(self) -> Path:
        """The report as an HTML page."""
        return self.root / "report.html"

    @property
    def markdown(self) -> Path:
        """The report as Markdown."""
        return self.root / "report.md"

    @property
    def comparison(self) -> Path:
        """The encoders of the run compared."""
        return self.root / "comparison.json"

    @property
    def comparisons(self) -> Path:
        """The folder of pages that compare two runs."""
        return self.root / "comparisons"

    @property
    def sweeps(self) -> Path:
        """The folder of the sweeps' tables and logs."""
        return self.root / "sweeps"

    @property
    def trec(self) -> Path:
        """The folder of runs and judgements in TREC's format."""
        return self.root / "trec"

    @property
    def contact_sheet(self) -> Path:
        """The page of the last search."""
        return self.root / "search" / "contact_sheet.html"
