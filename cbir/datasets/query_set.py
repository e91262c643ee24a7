"""The queries of a run, their packed images and relevance judgements: from the data set itself, or from a user's files."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cbir.artifacts.images import Quarantined
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import Judgement
from cbir.artifacts.trec import id_forms, matching_form
from cbir.core.errors import ConfigError, DataError
from cbir.core.text import listed, nearest_three, nfc
from cbir.datasets.base import Dataset, Query, SourceImage, choose
from cbir.datasets.listed_images import copies_of_gallery_images, gallery_images, images_of_rows
from cbir.datasets.packing import Limits, Packed, pack_images, packed_rows
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.datasets.query_file import ListedQuery, listed_image_id, read_qrels_file, read_query_file

_PLAIN_NAME = re.compile("[A-Za-z0-9_.:-]{1,40}( [A-Za-z0-9_.:-]{1,40})*")
_NAMED_COLUMNS = 10
_NAMED_CLASSES = 4


@dataclass(frozen=True)
class QuerySet:
    """The queries of a run.

    judgements : of gallery images; None where the images of the query's label are relevant.
    dropped_judgements : the number of judgements whose images are not in the gallery.
    notes : what a user must know about the queries, in sentences without text from the data.
    """

    queries: list[Query]
    packed: Packed
    judgements: list[Judgement] | None = None
    dropped_judgements: int = 0
    notes: list[str] = field(default_factory=list)


def queries_of_dataset(
    dataset: Dataset,
    data: DataPaths,
    gallery: Packed,
    params: DatasetParams,
    queries_params: QueriesParams,
    limits: Limits,
    workers: int,
) -> QuerySet:
    """Pack the query images of the data set; use them, the class names and the captions as queries.

    gallery : what was packed of the gallery before.
    Raises DataError when none of the data set's judgements refers to an image in the gallery, or when no class of the query
    images is one of the gallery's.
    """
    undecodable = {row.source for row in gallery.quarantine}

    def candidates() -> Iterator[SourceImage]:
        return (image for image in dataset.query_images() if image.source not in undecodable)

    chosen = choose(candidates(), params.queries_per_class, params.seed)
    packed = pack_images(data.images("queries"), filter(chosen, candidates()), limits, workers, "pack queries")
    names = {label: name for label, name in dataset.class_names().items() if label in gallery.per_label}
    _refuse_strange_classes(packed, gallery, params)
    queries = list(image_queries(packed_rows(data.images("queries"), "image_id", "label")))
    queries += class_queries(names, queries_params.templates)
    if queries_params.captions:
        captions = packed_rows(data.images("queries"), "caption", "label")
        queries += caption_queries((caption, label) for caption, label in captions if caption is not None)
    queries = [_in_class_group(query, dataset.class_group(query.label)) for query in queries]
    notes = [] if params.queries_per_class == 0 else list(_about_classes_without_query(packed, gallery))
    judgements = dataset.judgements(queries)
    if judgements is None:
        return QuerySet(queries, packed, notes=notes)
    gallery_ids = {image_id for (image_id,) in packed_rows(data.images("gallery"), "image_id")}
    all_judgements = list(judgements)
    kept = [judgement for judgement in all_judgements if judgement[1] in gallery_ids]
    if not kept:
        raise DataError(
            f"none of the data set's {len(all_judgements)} judgements refers to an image in the gallery: "
            "raise dataset.gallery_per_class"
        )
    return QuerySet(queries, packed, kept, len(all_judgements) - len(kept), notes)


def _about_classes_without_query(queries: Packed, gallery: Packed) -> Iterator[str]:
    classes, without = len(gallery.per_label), len(gallery.per_label.keys() - queries.per_label.keys())
    if without == classes > 0:
        yield (
            "There are no image queries: each class has a single image, and a query needs another of its class in the gallery. "
            "Set `dataset.query_folder`, or bring a query list."
        )
    elif without:
        yield f"{without:,} of {classes:,} classes {'has' if without == 1 else 'have'} no image query."


def _refuse_strange_classes(queries: Packed, gallery: Packed, params: DatasetParams) -> None:
    """Raise DataError where no query image could have a relevant image, before anything is embedded."""
    if queries.per_label and gallery.per_label and not queries.per_label.keys() & gallery.per_label.keys():
        of_queries, of_gallery = (listed(sorted(packed.per_label), _NAMED_CLASSES) for packed in (queries, gallery))
        raise DataError(
            f"expected query images of the gallery's classes ({of_gallery}), found only other classes ({of_queries}): set "
            f"dataset.gallery_folder to the folder whose folders are the classes; dataset.query_folder is {params.query_folder}"
        )


def queries_of_file(
    dataset: Dataset, data: DataPaths, queries_params: QueriesParams, limits: Limits, workers: int
) -> QuerySet:
    """Read the user's query list and qrels, and pack the images that the list names.

    The gallery must be packed already.
    Raises ConfigError when no list is given, DataError when the list or the qrels are damaged, name an image, label or query
    that does not exist, or name an image that cannot be decoded.
    """
    if queries_params.path is None:
        raise ConfigError("queries.path: queries=file needs the path of a CSV, TSV, Parquet or JSONL file, found null")
    path = Path(queries_params.path).expanduser()
    query_list = read_query_file(path)
    rows = query_list.rows
    image_of_query = images_of_rows(path, rows, dataset, data)
    packed = _pack_distinct(image_of_query.values(), data, limits, workers)
    _refuse_undecodable(path, rows, image_of_query, packed.quarantine)
    files = {row.query_id: listed_image_id(row) for row in rows if row.query_id in image_of_query}
    copies = copies_of_gallery_images(data, files.values())
    if copies:  # these queries would find themselves
        originals = gallery_images(dataset, set(copies.values()))
        image_of_query |= {
            query_id: originals[copies[file]]
            for query_id, file in files.items()
            if image_of_query[query_id].image_id == file and file in copies
        }
        packed = _pack_distinct(image_of_query.values(), data, limits, workers)
    notes = [*_about_columns(query_list.unused), *_about_gallery_images(rows, image_of_query)]
    _refuse_unknown_labels(path, rows, data)
    queries = [
        Query(row.query_id, row.task, image_of_query[row.query_id].image_id if row.image else None, row.text, row.label)
        for row in rows
    ]
    if queries_params.qrels is None:
        return QuerySet(queries, packed, notes=notes)
    qrels_path = Path(queries_params.qrels).expanduser()
    judgements, dropped = _known_judgements(qrels_path, list(read_qrels_file(qrels_path)), queries, dataset, data)
    return QuerySet(queries, packed, judgements, dropped, notes)


def image_queries(images: Iterable[tuple[str, str | None]]) -> Iterator[Query]:
    """Yield one image query for each (image_id, label)."""
    for image_id, label in images:
        yield Query(image_id, "cbir", image_id, None, label)


def class_queries(class_names: Mapping[str, str], templates: Sequence[str]) -> Iterator[Query]:
    """Yield one text query for each class and prompt template."""
    for label, name in class_names.items():
        for number, template in enumerate(templates):
            query_id = f"class:{label}" if len(templates) == 1 else f"class:{label}:{number}"
            yield Query(query_id, "tbir", None, template.replace("{}", name), label, "class prompts")


def caption_queries(captions: Iterable[tuple[str, str | None]]) -> Iterator[Query]:
    """Yield one text query for each distinct (caption, label), in order of the captions."""
    for number, (caption, label) in enumerate(sorted(set(captions), key=lambda pair: (pair[0], pair[1] or ""))):
        yield Query(f"caption:{number:05d}", "tbir", None, caption, label, "captions")


def _in_class_group(query: Query, group: str | None) -> Query:
    """The query in the subset of its kind and group: "captions/unseen"."""
    return replace(query, subset="/".join(filter(None, (query.subset, group))) or None)


def _pack_distinct(images: Iterable[SourceImage], data: DataPaths, limits: Limits, workers: int) -> Packed:
    distinct = {image.image_id: image for image in images}
    in_order = [distinct[image_id] for image_id in sorted(distinct)]
    return pack_images(data.images("queries"), in_order, limits, workers, "pack queries")


def _about_columns(unused: Sequence[str]) -> Iterator[str]:
    """Name the columns that are not used, except those whose names are no plain words."""
    if unused:
        plain = [f"`{name}`" for name in unused if _PLAIN_NAME.fullmatch(name)]
        others = [f"{len(unused) - len(plain)} without a plain name"] if len(plain) < len(unused) else []
        yield f"Columns of the query list that are not used: {listed([*plain[:_NAMED_COLUMNS], *others])}."


def _about_gallery_images(rows: Sequence[ListedQuery], image_of_query: Mapping[str, SourceImage]) -> Iterator[str]:
    """Say how many rows name a gallery image otherwise than by its image_id."""
    count = sum(
        image_of_query[row.query_id].image_id not in (row.image, listed_image_id(row))
        for row in rows
        if row.image is not None
    )
    if count:
        images = (
            "image of the query list is a gallery image"
            if count == 1
            else "images of the query list are gallery images"
        )
        yield f"{count:,} {images}, given by a path or a copy, and left out of {'its' if count == 1 else 'their'} own results."


def _refuse_undecodable(
    path: Path, rows: Iterable[ListedQuery], image_of_query: dict[str, SourceImage], quarantine: Iterable[Quarantined]
) -> None:
    reasons = {row.source: ": ".join(filter(None, (row.reason, row.detail))) for row in quarantine}
    for row in rows:
        image = image_of_query.get(row.query_id)
        if image is not None and image.source in reasons:
            raise DataError(
                f"{path} line {row.line}, column image: {row.image!r} cannot be decoded: {reasons[image.source]}"
            )


def _refuse_unknown_labels(path: Path, rows: Iterable[ListedQuery], data: DataPaths) -> None:
    labels = {label for (label,) in packed_rows(data.images("gallery"), "label") if label is not None}
    for row in rows:
        if row.label is not None and row.label not in labels:
            hint = nearest_three(row.label, labels) if labels else "the gallery has no labels"
            raise DataError(f"{path} line {row.line}, column label: no gallery image has {row.label!r}; {hint}")


def _known_judgements(
    path: Path, judgements: list[Judgement], queries: Iterable[Query], dataset: Dataset, data: DataPaths
) -> tuple[list[Judgement], int]:
    """The judgements of gallery images, and the number of those whose images were not chosen or are in quarantine."""
    query_ids = {query.query_id for query in queries}
    judgements = _as_known(_decoded(judgements, query_ids, dataset), query_ids, dataset)
    judged = {image_id for _, image_id, _ in judgements}
    in_gallery = {image_id for (image_id,) in packed_rows(data.images("gallery"), "image_id") if image_id in judged}
    in_dataset = in_gallery | {image.image_id for image in dataset.gallery() if image.image_id in judged}
    for query_id, image_id, _ in judgements:
        if query_id not in query_ids:
            hint = nearest_three(query_id, query_ids)
            raise DataError(f"{path}: query {query_id!r} is not in the query list; {hint}")
        if image_id not in in_dataset:
            raise DataError(
                f"{path}: query {query_id!r}: the data set's gallery has no image {image_id!r}; "
                f"an example of an image_id is {next(dataset.gallery()).image_id!r}"
            )
    kept = [judgement for judgement in judgements if judgement[1] in in_gallery]
    if not kept:
        raise DataError(
            f"{path}: expected a judgement of at least one gallery image, found none in {len(judgements)} lines"
        )
    return kept, len(judgements) - len(kept)


def _decoded(judgements: list[Judgement], query_ids: set[str], dataset: Dataset) -> list[Judgement]:
    """The judgements without percent-encoding, which `cbir trec` writes; as they are where more ids are known so."""
    listed = {image_id for _, image_id, _ in judgements}
    sought = {form(image_id) for form in id_forms(listed) for image_id in listed}
    images = {image.image_id for image in dataset.gallery() if image.image_id in sought}
    read = matching_form([({query_id for query_id, _, _ in judgements}, query_ids), (listed, images)])
    return [(read(query_id), read(image_id), relevance) for query_id, image_id, relevance in judgements]


def _as_known(judgements: list[Judgement], query_ids: set[str], dataset: Dataset) -> list[Judgement]:
    """The judgements with ids in the form of Unicode that queries and gallery have."""
    judged = {nfc(image_id) for _, image_id, _ in judgements if not image_id.isascii()}
    images = {image.image_id for image in dataset.gallery() if nfc(image.image_id) in judged} if judged else set()
    exact = query_ids | images
    known = {nfc(name): name for name in sorted(exact) if not name.isascii()}

    def as_known(name: str) -> str:
        return name if name in exact else known.get(nfc(name), name)

    return [(as_known(query_id), as_known(image_id), relevance) for query_id, image_id, relevance in judgements]
