"""From a source to packed images, a query list and its judgements: the whole preprocess stage."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa

from cbir.artifacts.images import Quarantined, read_shards, write_quarantine
from cbir.artifacts.queries import QRELS_SCHEMA, QUERY_SCHEMA, write_prompts, write_qrels, write_query_list
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import write_json
from cbir.datasets.base import Grade, Query, Source, SourceImage, choose
from cbir.datasets.packing import Limits, Packed, check_bad_fraction, examples, pack_images
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource
from cbir.datasets.prompt_sets import prompt_table
from cbir.datasets.query_list import (
    ListedQuery,
    caption_queries,
    class_queries,
    image_queries,
    own_image_id,
    read_qrels_file,
    read_query_file,
    resolve_image,
)


@dataclass(frozen=True)
class _QuerySet:
    """The queries, their packed images, and graded judgements (None: relevant is what has the same label)."""

    queries: list[Query]
    packed: Packed
    grades: list[Grade] | None
    dropped_grades: int


def preprocess(
    source: Source, images: Path, queries: Path, dataset: DatasetParams, asked: QueriesParams, workers: int
) -> None:
    """Pack gallery and query images into `images`, write the query list and qrels into `queries`.

    Raises DataError when too many images are undecodable, when nothing is left to search, or when the user's query
    list or qrels name what is not there.
    """
    limits = Limits(dataset.max_pixels, dataset.max_side_px)
    chosen = choose(source.gallery(), dataset.gallery_per_class, dataset.seed)
    gallery = pack_images(images / "gallery", filter(chosen, source.gallery()), limits, workers, "pack gallery")
    quarantine_path = images / "quarantine.parquet"
    write_quarantine(quarantine_path, gallery.quarantine)  # now, for whoever reads why the queries below were refused
    if gallery.images + len(gallery.quarantine) == 0:
        raise DataError("the data set holds no gallery images: see dataset.url and dataset.query_folder")
    if gallery.images == 0:
        raise DataError(
            f"none of the {len(gallery.quarantine)} gallery images can be decoded "
            f"({examples(gallery.quarantine)}): see {quarantine_path}"
        )
    if asked.source is QuerySource.file:
        answer = _asked_by_file(source, images, asked, limits, workers)
    else:
        answer = _asked_by_dataset(source, images, gallery, dataset, asked, limits, workers)
    quarantine = gallery.quarantine + answer.packed.quarantine
    write_quarantine(quarantine_path, quarantine)
    attempted = gallery.images + answer.packed.images + len(quarantine)
    check_bad_fraction(quarantine, attempted, dataset.max_bad_fraction, str(quarantine_path))
    write_query_list(
        queries / "query_list.parquet", pa.Table.from_pylist([asdict(query) for query in answer.queries], QUERY_SCHEMA)
    )
    write_qrels(queries / "qrels.parquet", _qrels_table(answer.grades or []))
    names = {label: names for label, names in source.synonyms().items() if label in gallery.per_label}
    write_prompts(queries / "prompts.parquet", prompt_table(asked.prompt_sets, names))
    write_json(images / "summary.json", _summary(dataset, gallery, answer, quarantine, source.ignored()))


def _asked_by_dataset(
    source: Source,
    images: Path,
    gallery: Packed,
    dataset: DatasetParams,
    asked: QueriesParams,
    limits: Limits,
    workers: int,
) -> _QuerySet:
    chosen = choose(source.queries(), dataset.queries_per_class, dataset.seed)
    packed = pack_images(images / "queries", filter(chosen, source.queries()), limits, workers, "pack queries")
    names = {label: name for label, name in source.class_names().items() if label in gallery.per_label}
    queries = list(image_queries(_rows(images / "queries", "image_id", "label")))
    queries += class_queries(names, asked.templates)
    if asked.captions:
        pairs = _rows(images / "queries", "caption", "label")
        queries += caption_queries((caption, label) for caption, label in pairs if caption is not None)
    queries = [_in_part(query, source.part(query.label)) for query in queries]
    grades = source.grades(queries)
    if grades is None:
        return _QuerySet(queries, packed, None, 0)
    in_gallery = {image_id for (image_id,) in _rows(images / "gallery", "image_id")}
    every = list(grades)
    kept = [grade for grade in every if grade[1] in in_gallery]
    if not kept:
        raise DataError(
            f"none of the data set's {len(every)} judgements is about an image that is left in the gallery: "
            "raise dataset.gallery_per_class"
        )
    return _QuerySet(queries, packed, kept, len(every) - len(kept))


def _in_part(query: Query, part: str | None) -> Query:
    """The query in a subset of its own kind: "captions/unseen"."""
    return replace(query, subset="/".join(filter(None, (query.subset, part))) or None)


def _asked_by_file(source: Source, images: Path, asked: QueriesParams, limits: Limits, workers: int) -> _QuerySet:
    if asked.path is None:
        raise ConfigError("queries.path: queries=file needs the path of a CSV, Parquet or JSONL file, found null")
    path = Path(asked.path).expanduser()
    rows = read_query_file(path)
    wanted = {row.image for row in rows} | {own_image_id(row) for row in rows}
    in_gallery = {image_id for (image_id,) in _rows(images / "gallery", "image_id") if image_id in wanted}
    for row in rows:
        if row.image is not None and row.image not in in_gallery and own_image_id(row) in in_gallery:
            raise DataError(
                f"{path} line {row.line}, column query_id: the image of {row.query_id!r} would be called "
                f"{own_image_id(row)!r}, as a gallery image is already: take another query_id"
            )
    found = {image.image_id: image for image in source.gallery() if image.image_id in in_gallery}
    by_row: dict[str, SourceImage] = {
        row.query_id: found.get(row.image) or resolve_image(path, row) for row in rows if row.image is not None
    }
    distinct = {image.image_id: image for image in by_row.values()}
    ordered = [distinct[image_id] for image_id in sorted(distinct)]
    packed = pack_images(images / "queries", ordered, limits, workers, "pack queries")
    _refuse_undecodable(path, rows, by_row, packed.quarantine)
    _refuse_unknown_labels(path, rows, images)
    queries = [
        Query(row.query_id, row.task, by_row[row.query_id].image_id if row.image else None, row.text, row.label)
        for row in rows
    ]
    if asked.qrels is None:
        return _QuerySet(queries, packed, None, 0)
    qrels_path = Path(asked.qrels).expanduser()
    grades, dropped = _known_grades(qrels_path, list(read_qrels_file(qrels_path)), queries, source, images)
    return _QuerySet(queries, packed, grades, dropped)


def _refuse_undecodable(
    path: Path, rows: Iterable[ListedQuery], by_row: dict[str, SourceImage], quarantine: Iterable[Quarantined]
) -> None:
    reasons = {row.source: ": ".join(filter(None, (row.reason, row.detail))) for row in quarantine}
    for row in rows:
        image = by_row.get(row.query_id)
        if image is not None and image.source in reasons:
            raise DataError(
                f"{path} line {row.line}, column image: {row.image!r} cannot be decoded: {reasons[image.source]}"
            )


def _refuse_unknown_labels(path: Path, rows: Iterable[ListedQuery], images: Path) -> None:
    labels = {label for (label,) in _rows(images / "gallery", "label") if label is not None}
    for row in rows:
        if row.label is not None and row.label not in labels:
            hint = _nearest(row.label, labels) if labels else "the gallery has no labels"
            raise DataError(f"{path} line {row.line}, column label: no gallery image has {row.label!r}; {hint}")


def _known_grades(
    path: Path, grades: list[Grade], queries: Iterable[Query], source: Source, images: Path
) -> tuple[list[Grade], int]:
    """The grades of gallery images, and how many belong to images that were not chosen or are in quarantine."""
    asked = {query.query_id for query in queries}
    judged = {image_id for _, image_id, _ in grades}
    in_gallery = {image_id for (image_id,) in _rows(images / "gallery", "image_id") if image_id in judged}
    in_source = in_gallery | {image.image_id for image in source.gallery() if image.image_id in judged}
    for query_id, image_id, _ in grades:
        if query_id not in asked:
            raise DataError(f"{path}: query {query_id!r} is not in the query list; {_nearest(query_id, asked)}")
        if image_id not in in_source:
            raise DataError(
                f"{path}: query {query_id!r}: the data set's gallery has no image {image_id!r}; "
                f"an image_id is such as {next(source.gallery()).image_id!r}"
            )
    kept = [grade for grade in grades if grade[1] in in_gallery]
    if not kept:
        raise DataError(
            f"{path}: expected a judgement of at least one gallery image, found none in {len(grades)} lines"
        )
    return kept, len(grades) - len(kept)


def _nearest(name: str, valid: Iterable[str]) -> str:
    """The three nearest of valid names, which may be too many to list."""
    return f"nearest: {', '.join(get_close_matches(name, sorted(valid), n=3, cutoff=0.0))}"


def _rows(folder: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
    for _, table in read_shards(folder, list(columns)):
        yield from zip(*(table[column].to_pylist() for column in columns), strict=True)


def _qrels_table(grades: list[Grade]) -> pa.Table:
    columns = zip(*grades, strict=True) if grades else ([], [], [])
    return pa.table(dict(zip(QRELS_SCHEMA.names, map(list, columns), strict=True)), QRELS_SCHEMA)


def _summary(
    dataset: DatasetParams,
    gallery: Packed,
    answer: _QuerySet,
    quarantine: list[Quarantined],
    ignored: dict[str, int],
) -> dict[str, object]:
    sizes = list(gallery.per_label.values())
    return {
        "dataset": dataset.reader.value,
        "gallery": {
            "images": gallery.images,
            "bytes": gallery.bytes,
            "classes": len(sizes),
            "smallest_class": min(sizes, default=0),
            "largest_class": max(sizes, default=0),
            "unlabelled": gallery.images - sum(sizes),
        },
        "queries": {
            "images": answer.packed.images,
            "by_task": dict(sorted(Counter(query.task for query in answer.queries).items())),
            "by_subset": dict(sorted(Counter(query.subset for query in answer.queries if query.subset).items())),
        },
        "relevance": "same_label" if answer.grades is None else "qrels",
        "qrels": {"rows": len(answer.grades or []), "dropped": answer.dropped_grades},
        "quarantine": dict(sorted(Counter(row.reason for row in quarantine).items())),
        "ignored_files": ignored,
        "limits": {"max_pixels": dataset.max_pixels, "max_side_px": dataset.max_side_px},
    }
