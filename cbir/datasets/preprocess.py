"""From a data set to packed images, a query list, relevance judgements and prompts: the stage `preprocess`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import get_args

import pyarrow as pa

from cbir.artifacts.images import Quarantined, write_quarantine
from cbir.artifacts.left_out import LeftOut, describe
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import (
    QRELS_SCHEMA,
    QUERY_SCHEMA,
    Judgement,
    write_prompts,
    write_qrels,
    write_query_list,
)
from cbir.core.errors import DataError
from cbir.core.files import write_json
from cbir.core.text import printable
from cbir.datasets.base import Dataset, choose
from cbir.datasets.decoding import Change
from cbir.datasets.packing import Limits, Packed, check_bad_fraction, pack_images, quarantine_examples
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource
from cbir.datasets.prompt_sets import prompt_table
from cbir.datasets.query_set import QuerySet, queries_of_dataset, queries_of_file
from cbir.datasets.readers import title

_PRINTED_FOLDERS = 5
_NEARLY_ALL = 0.9


def preprocess(
    dataset: Dataset,
    data: DataPaths,
    params: DatasetParams,
    queries_params: QueriesParams,
    limits: Limits,
    workers: int,
) -> None:
    """Pack gallery and query images; write the query list, the qrels, the prompts and a summary.

    Raises DataError when too many images cannot be decoded, when no gallery image is left, or when the user's query list
    or qrels name something that does not exist; ConfigError when there is no such prompt set, or no query list is given.
    """
    gallery = _pack_gallery(dataset, data, params, limits, workers)
    if queries_params.source is QuerySource.file:
        query_set = queries_of_file(dataset, data, queries_params, limits, workers)
    else:
        query_set = queries_of_dataset(dataset, data, gallery, params, queries_params, limits, workers)
    quarantine = gallery.quarantine + query_set.packed.quarantine
    quarantine_sha256 = write_quarantine(data.quarantine, quarantine)
    attempted = gallery.images + query_set.packed.images + len(quarantine)
    check_bad_fraction(quarantine, attempted, params.max_bad_fraction, str(data.quarantine))
    query_rows = [asdict(query) for query in query_set.queries]
    write_query_list(data.query_list, pa.Table.from_pylist(query_rows, QUERY_SCHEMA))
    write_qrels(data.qrels, _qrels_table(query_set.judgements or []))
    names = {label: names for label, names in dataset.synonyms().items() if label in gallery.per_label}
    write_prompts(data.prompts, prompt_table(queries_params.prompt_sets, names))
    left_out, notes = dataset.left_out(), [*dataset.notes(), *_about_classes(gallery), *query_set.notes]
    about_files = {
        "quarantine_sha256": quarantine_sha256,
        "ignored_files": dataset.ignored_files(),
        "left_out": [asdict(folder) for folder in left_out],
    }
    write_json(data.summary, _summary(params, limits, gallery, query_set, quarantine) | about_files | {"notes": notes})
    for line in (*_lines_about(left_out), *notes):
        print(line, flush=True)


def _pack_gallery(dataset: Dataset, data: DataPaths, params: DatasetParams, limits: Limits, workers: int) -> Packed:
    chosen = choose(dataset.gallery(), params.gallery_per_class, params.seed)
    gallery = pack_images(data.images("gallery"), filter(chosen, dataset.gallery()), limits, workers, "pack gallery")
    write_quarantine(data.quarantine, gallery.quarantine)  # already here, because the queries may be refused next
    if gallery.images + len(gallery.quarantine) == 0:
        raise DataError("the data set has no gallery images: see dataset.url and dataset.query_folder")
    if gallery.images == 0:
        raise DataError(
            f"none of the {len(gallery.quarantine)} gallery images can be decoded "
            f"({quarantine_examples(gallery.quarantine)}): see {data.quarantine}"
        )
    attempted = gallery.images + len(gallery.quarantine)
    check_bad_fraction(gallery.quarantine, attempted, params.max_bad_fraction, str(data.quarantine))
    return gallery


def _about_classes(gallery: Packed) -> Iterator[str]:
    labelled, largest = sum(gallery.per_label.values()), max(gallery.per_label.values(), default=0)
    if largest >= _NEARLY_ALL * labelled > 0:
        yield (
            f"One class holds {largest / labelled:.0%} of the gallery's labelled images, so nearly every result is relevant to "
            "its queries: are the folders of the first level the classes?"
        )


def _lines_about(left_out: list[LeftOut]) -> Iterator[str]:
    """What the user must know about folders that are not read, with the first of them."""
    yield from describe(left_out)
    for folder in left_out[:_PRINTED_FOLDERS]:
        yield f"  {printable(folder.folder)}: {folder.reason}"
    if len(left_out) > _PRINTED_FOLDERS:
        yield f"  ... and {len(left_out) - _PRINTED_FOLDERS:,} more, see left_out in summary.json"


def _qrels_table(judgements: list[Judgement]) -> pa.Table:
    columns = zip(*judgements, strict=True) if judgements else ([], [], [])
    return pa.table(dict(zip(QRELS_SCHEMA.names, map(list, columns), strict=True)), QRELS_SCHEMA)


def _summary(
    params: DatasetParams,
    limits: Limits,
    gallery: Packed,
    query_set: QuerySet,
    quarantine: list[Quarantined],
) -> dict[str, object]:
    sizes = list(gallery.per_label.values())
    changes = gallery.changes + query_set.packed.changes
    return {
        "dataset": params.reader.value,
        "title": title(params),
        "gallery": {
            "images": gallery.images,
            "bytes": gallery.bytes,
            "classes": len(sizes),
            "smallest_class": min(sizes, default=0),
            "largest_class": max(sizes, default=0),
            "unlabelled": gallery.images - sum(sizes),
        },
        "queries": {
            "images": query_set.packed.images,
            "by_task": dict(sorted(Counter(query.task for query in query_set.queries).items())),
            "by_subset": dict(sorted(Counter(query.subset for query in query_set.queries if query.subset).items())),
        },
        "relevance": "same_label" if query_set.judgements is None else "qrels",
        "qrels": {"rows": len(query_set.judgements or []), "dropped": query_set.dropped_judgements},
        "quarantine": dict(sorted(Counter(row.reason for row in quarantine).items())),
        "changes": {change: changes[change] for change in get_args(Change)},
        "limits": asdict(limits),
    }
