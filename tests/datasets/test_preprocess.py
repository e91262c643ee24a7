"""The stage preprocess on small data sets: what is packed, what goes to quarantine, what is refused."""

import dataclasses
import io
import shutil
import zipfile
from collections import Counter
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cbir.artifacts import images as images_module
from cbir.artifacts.images import IMAGE_SCHEMA, Quarantined, read_columns, read_quarantine, read_shards
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource, Reader
from cbir.datasets.preprocess import preprocess
from cbir.datasets.readers import open_dataset
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.fetching.dataset import fetch_dataset
from tests.support.image_files import folder_of, noise_jpeg

PETS = {f"{label}/{n}.jpg": noise_jpeg(10 * k + n) for k, label in enumerate(("big_dogs", "cats")) for n in range(6)}
BROKEN = {"cats/broken.jpg": noise_jpeg(0)[:200], "cats/empty.png": b"", "big_dogs/page.gif": b"<html>" * 9}


def params(**changes):
    values = {field.name: None for field in dataclasses.fields(DatasetParams)}
    values |= {"reader": Reader.image_folder, "seed": 0, "queries_per_class": 2, "max_bad_fraction": 0.0}
    return DatasetParams(**{**values, "max_side_px": 512, "max_pixels": 10**6, **changes})


def query_params(**changes):
    values = {
        "source": QuerySource.dataset,
        "path": None,
        "qrels": None,
        "templates": [],
        "captions": False,
        "prompt_sets": [],
    }
    return QueriesParams(**{**values, **changes})


def prepared(tmp_path, url, parameters=None, queries=None, workers=2, out="out"):
    """Download and preprocess as the stages do; return the folder with `images` and `queries`."""
    parameters, queries = parameters or params(), queries or query_params()
    raw = tmp_path / f"{out}-raw"
    fetch_dataset(dataclasses.replace(parameters, url=url and str(url)), raw, workers=1)
    opened = open_dataset(parameters, raw, hold_out=queries.source is QuerySource.dataset)
    preprocess(opened, DataPaths(tmp_path / out), parameters, queries, workers)
    return tmp_path / out


def gallery_ids(out, split="gallery"):
    return read_columns(out / "images" / split, ["image_id"])["image_id"].to_pylist()


def query_rows(out):
    return read_query_list(out / "queries" / "query_list.parquet").to_pylist()


def qrels_rows(out):
    return [tuple(row.values()) for row in read_qrels(out / "queries" / "qrels.parquet").to_pylist()]


def quarantine_rows(out):
    return [Quarantined(**row) for row in read_quarantine(out / "images" / "quarantine.parquet").to_pylist()]


def summary(out):
    return read_json(out / "images" / "summary.json")


def tree(folder):
    """Name -> hash of each file below a folder."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def pets(tmp_path):
    return folder_of(tmp_path / "pets", PETS)


# --- queries of the data set ----------------------------------------------------------------------------------------


def test_a_folder_becomes_images_and_queries(tmp_path):
    out = prepared(tmp_path, folder_of(tmp_path / "pets", PETS), queries=query_params(templates=["a photo of a {}"]))
    packed = {
        split: pa.concat_tables(t for _, t in read_shards(out / "images" / split)) for split in ("gallery", "queries")
    }
    for table, per_class in ((packed["gallery"], 4), (packed["queries"], 2)):
        assert table.schema == IMAGE_SCHEMA
        assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
        assert Counter(table["label"].to_pylist()) == {"cats": per_class, "big_dogs": per_class}
        for row in table.to_pylist():
            assert row["image"] == PETS[row["image_id"]]
            assert row["sha256"] == sha256(row["image"]).hexdigest()
            assert (row["width"], row["height"], row["source"], row["caption"]) == (16, 16, row["image_id"], None)
            assert row["image_id"].startswith(f"{row['label']}/")
    assert {*gallery_ids(out), *gallery_ids(out, "queries")} == set(PETS)

    rows = query_rows(out)
    assert [row["query_id"] for row in rows[:4]] == gallery_ids(out, "queries")
    assert all(row["task"] == "cbir" and row["image_id"] == row["query_id"] and row["text"] is None for row in rows[:4])
    assert [row["text"] for row in rows[4:]] == ["a photo of a big dogs", "a photo of a cats"]
    assert {(row["task"], row["image_id"], row["subset"]) for row in rows[4:]} == {("tbir", None, "class prompts")}
    assert {row["query_id"]: row["label"] for row in rows[4:]} == {"class:big_dogs": "big_dogs", "class:cats": "cats"}
    assert qrels_rows(out) == []
    assert quarantine_rows(out) == []
    assert summary(out) == {
        "dataset": "image_folder",
        "gallery": {
            "images": 8,
            "bytes": sum(len(PETS[image_id]) for image_id in gallery_ids(out)),
            "classes": 2,
            "smallest_class": 4,
            "largest_class": 4,
            "unlabelled": 0,
        },
        "queries": {"images": 4, "by_task": {"cbir": 4, "tbir": 2}, "by_subset": {"class prompts": 2}},
        "relevance": "same_label",
        "qrels": {"rows": 0, "dropped": 0},
        "quarantine": {},
        "ignored_files": {},
        "limits": {"max_pixels": 10**6, "max_side_px": 512},
    }
    assert sorted(tree(out)) == [
        "images/gallery/part-00000.parquet", "images/quarantine.parquet", "images/queries/part-00000.parquet",
        "images/summary.json", "queries/prompts.parquet", "queries/qrels.parquet", "queries/query_list.parquet",
    ]  # fmt: skip


def test_an_archive_gives_the_same_shards_as_its_folder(tmp_path):
    folder_of(tmp_path / "pets", PETS)
    archive = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path, "pets")
    assert tree(prepared(tmp_path, tmp_path / "pets", out="a")) == tree(prepared(tmp_path, archive, out="b"))


def test_unlabelled_images_are_packed_and_counted(tmp_path):
    out = prepared(tmp_path, folder_of(tmp_path / "x", {f"{n}.jpg": noise_jpeg(n) for n in range(3)}))
    assert summary(out)["gallery"] | {"bytes": 0} == {
        "images": 2, "bytes": 0, "classes": 0, "smallest_class": 0, "largest_class": 0, "unlabelled": 2,
    }  # fmt: skip
    assert [row["label"] for row in query_rows(out)] == [None]


def test_tiny_imagenet_becomes_images_and_queries(tmp_path):
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        archive.writestr("t/wnids.txt", "n01\nn02\n")
        archive.writestr("t/words.txt", "n01\tgoldfish, carp\nn02\tbull frog\n")
        archive.writestr("t/val/val_annotations.txt", "val_0.JPEG\tn02\t0\nval_1.JPEG\tn01\t0\n")
        for n, name in enumerate(["train/n01/images/a", "train/n02/images/b", "val/images/val_0", "val/images/val_1"]):
            archive.writestr(f"t/{name}.JPEG", noise_jpeg(n))
    parameters = params(reader=Reader.tiny_imagenet, queries_per_class=None)
    out = prepared(tmp_path, tmp_path / "tiny.zip", parameters, query_params(templates=["{}"]))
    assert gallery_ids(out) == ["train/n01/images/a.JPEG", "train/n02/images/b.JPEG"]
    assert [(row["image_id"], row["text"], row["label"]) for row in query_rows(out)] == [
        ("val/images/val_0.JPEG", None, "n02"),
        ("val/images/val_1.JPEG", None, "n01"),
        (None, "goldfish", "n01"),
        (None, "bull frog", "n02"),
    ]


def test_shapes_have_captions_and_graded_judgements(tmp_path):
    parameters = params(
        reader=Reader.shapes, draw_seed=0, draw_gallery_images=160, draw_query_images=80, queries_per_class=None
    )
    out = prepared(tmp_path, None, parameters, query_params(templates=["a photo of a {}"], captions=True))
    rows, grades = query_rows(out), qrels_rows(out)
    assert summary(out)["queries"] == {
        "images": 80,
        "by_task": {"cbir": 80, "tbir": 160},
        "by_subset": {
            f"{kind}{part}": n for kind in ("captions/", "class prompts/", "") for part, n in (("seen", 70), ("unseen", 10))
        },
    }  # fmt: skip
    assert summary(out)["relevance"] == "qrels"
    assert summary(out)["qrels"] == {"rows": len(grades), "dropped": 0}
    assert len(grades) == 240 * 2  # 160 drawings of 80 labels: each query has two of its label
    gallery = read_columns(out / "images" / "gallery", ["image_id", "label", "caption"]).to_pylist()
    words = {row["image_id"]: row["caption"].split() for row in gallery}
    label = {row["image_id"]: row["label"] for row in gallery}
    by_id = {row["query_id"]: row for row in rows}
    assert {label[image_id] == by_id[query_id]["label"] for query_id, image_id, _ in grades} == {True}
    query_words = {
        row["image_id"]: row["caption"].split()
        for row in read_columns(out / "images" / "queries", ["image_id", "caption"]).to_pylist()
    }
    for query_id, image_id, grade in grades:  # "a large striped red star on a grey background"
        row, image_words = by_id[query_id], words[image_id]
        if row["task"] == "cbir":
            wanted = query_words[query_id]
            assert grade == 1 + (wanted[1] == image_words[1]) + (wanted[2] == image_words[2])
        elif row["query_id"].startswith("caption:"):
            wanted = row["text"].split()
            assert grade == 1 + (wanted[1] == image_words[1]) + (wanted[2] == image_words[2]) + (
                wanted[7] == image_words[7]
            )
        else:
            assert grade == 1
    assert grades == sorted(grades)
    for row in rows:
        kind = {"class": "class prompts/", "caption": "captions/"}.get(row["query_id"].partition(":")[0], "")
        assert row["subset"] == f"{kind}{'unseen' if row['label'] in UNSEEN_LABELS else 'seen'}"


def test_the_given_number_of_images_per_class_is_chosen(tmp_path):
    pets = folder_of(
        tmp_path / "pets", {**PETS, "query/cats/q.jpg": noise_jpeg(50), "query/cats/r.jpg": noise_jpeg(51)}
    )
    parameters = params(gallery_per_class=3, queries_per_class=1, query_folder="query")
    out = prepared(tmp_path, pets, parameters)
    assert Counter(image_id.split("/")[0] for image_id in gallery_ids(out)) == {"cats": 3, "big_dogs": 3}
    assert len(gallery_ids(out, "queries")) == 1
    other = prepared(tmp_path, pets, dataclasses.replace(parameters, seed=1), out="other")
    assert gallery_ids(other) != gallery_ids(out)


def test_the_gallery_is_chosen_among_images_not_held_out(tmp_path, pets):
    out = prepared(tmp_path, pets, params(gallery_per_class=3, queries_per_class=4))
    assert Counter(image_id.split("/")[0] for image_id in gallery_ids(out)) == {"cats": 3, "big_dogs": 3}
    assert {*gallery_ids(out), *gallery_ids(out, "queries")} == set(PETS)


def test_classes_without_a_gallery_image_get_no_prompt(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, "query/birds/1.jpg": noise_jpeg(50)})
    out = prepared(tmp_path, pets, params(query_folder="query"), query_params(templates=["{}"]))
    assert [row["text"] for row in query_rows(out) if row["text"]] == ["big dogs", "cats"]


def test_judgements_of_drawings_not_chosen_are_dropped_and_counted(tmp_path):
    parameters = params(
        reader=Reader.shapes, draw_seed=0, draw_gallery_images=160, draw_query_images=10, gallery_per_class=1
    )
    out = prepared(tmp_path, None, parameters)
    assert summary(out)["qrels"] == {"rows": 10, "dropped": 10}
    assert {image_id for _, image_id, _ in qrels_rows(out)} <= set(gallery_ids(out))


# --- bad images -----------------------------------------------------------------------------------------------------


def test_bad_images_are_quarantined_with_reasons_and_counted(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, **BROKEN})
    (pets / "cats" / "gone.jpg").symlink_to("nowhere.jpg")
    out = prepared(tmp_path, pets, params(max_bad_fraction=0.25, queries_per_class=0))
    assert gallery_ids(out) == sorted(PETS)
    rows = quarantine_rows(out)
    assert [(row.source, row.reason, row.bytes) for row in rows] == [
        ("big_dogs/page.gif", "not an image", 54),
        ("cats/broken.jpg", "damaged or truncated", 200),
        ("cats/empty.png", "empty file", 0),
        ("cats/gone.jpg", "dangling link", 0),
    ]
    assert [row.sha256 for row in rows[:3]] == [sha256(BROKEN[row.source]).hexdigest() for row in rows[:3]]
    assert rows[3].sha256 is None
    assert rows[3].detail == "points to nowhere.jpg"
    assert summary(out)["quarantine"] == {
        "damaged or truncated": 1,
        "dangling link": 1,
        "empty file": 1,
        "not an image": 1,
    }
    assert summary(out)["gallery"]["images"] == 12


def test_too_many_bad_images_fail_and_leave_the_quarantine(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, **BROKEN, "cats/late.jpg": b"x"})
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, pets, params(max_bad_fraction=0.2))
    path = tmp_path / "out" / "images" / "quarantine.parquet"
    assert str(caught.value) == (
        "4 of 16 images cannot be decoded, more than dataset.max_bad_fraction = 0.2 allows (big_dogs/page.gif: "
        "not an image; cats/broken.jpg: damaged or truncated; cats/empty.png: empty file; ...): repair or remove them, see "
        f"{path}, or raise the fraction"
    )
    assert len(quarantine_rows(tmp_path / "out")) == 4
    assert not (tmp_path / "out" / "images" / "summary.json").exists()
    assert not (tmp_path / "out" / "queries").exists()


@pytest.mark.parametrize("source", list(QuerySource))
def test_a_folder_of_only_broken_images_is_refused(tmp_path, source):
    broken = folder_of(tmp_path / "pets", BROKEN)
    listed = tmp_path / "list.csv"
    listed.write_text("query_id,task,text,label\nq1,tbir,a cat,cats\n")
    with pytest.raises(
        DataError, match=r"none of the 3 gallery images can be decoded \(big_dogs/page.gif: not an image;"
    ):
        prepared(
            tmp_path,
            broken,
            params(max_bad_fraction=1.0, queries_per_class=0),
            query_params(source=source, path=str(listed)),
        )
    assert len(quarantine_rows(tmp_path / "out")) == 3


def test_broken_query_images_count_as_bad_images(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, "query/cats/1.jpg": b"x", "query/cats/2.jpg": noise_jpeg(1)})
    out = prepared(tmp_path, pets, params(query_folder="query", max_bad_fraction=1 / 14))
    assert [row.source for row in quarantine_rows(out)] == ["query/cats/1.jpg"]
    assert [row["query_id"] for row in query_rows(out)] == ["query/cats/2.jpg"]


def test_a_gallery_without_images_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"the data set has no gallery images: see dataset.url and dataset.query_folder"
    ):
        prepared(
            tmp_path, folder_of(tmp_path / "pets", {"query/cats/1.jpg": noise_jpeg(1)}), params(query_folder="query")
        )


# --- queries of a file ----------------------------------------------------------------------------------------------

LISTED = """query_id,task,image,text,label
own,cbir,files/1.jpg,,cats
gallery,cbir,cats/0.jpg,,
again,cbir,cats/0.jpg,,cats
words,tbir,,a sleeping cat,cats
"""


def listed(tmp_path, text=LISTED, qrels=None, **changes):
    """Parameters of a query list with one image file beside it, and of qrels if given."""
    home = folder_of(
        tmp_path / "home", {"list.csv": text.encode(), "files/1.jpg": noise_jpeg(99), "files/bad.jpg": b"x"}
    )
    if qrels is not None:
        (home / "list.qrels").write_text(qrels, encoding="utf-8")
        changes["qrels"] = str(home / "list.qrels")
    return query_params(source=QuerySource.file, path=str(home / "list.csv"), **changes)


def test_a_list_may_name_gallery_images_and_its_own(tmp_path, pets):
    out = prepared(tmp_path, pets, queries=listed(tmp_path))
    assert gallery_ids(out) == sorted(PETS)  # nothing is held out
    assert gallery_ids(out, "queries") == ["cats/0.jpg", "query/own"]
    table = read_columns(out / "images" / "queries", ["image", "label", "source"]).to_pylist()
    assert table == [
        {"image": PETS["cats/0.jpg"], "label": "cats", "source": "cats/0.jpg"},
        {"image": noise_jpeg(99), "label": "cats", "source": "files/1.jpg"},
    ]
    assert [tuple(row.values()) for row in query_rows(out)] == [
        ("own", "cbir", "query/own", None, "cats", None),
        ("gallery", "cbir", "cats/0.jpg", None, None, None),
        ("again", "cbir", "cats/0.jpg", None, "cats", None),
        ("words", "tbir", None, "a sleeping cat", "cats", None),
    ]
    assert summary(out)["queries"] == {"images": 2, "by_task": {"cbir": 3, "tbir": 1}, "by_subset": {}}
    assert summary(out)["relevance"] == "same_label"


def test_a_list_of_texts_needs_no_images(tmp_path, pets):
    out = prepared(tmp_path, pets, queries=listed(tmp_path, "query_id,task,text\nq,tbir,a cat\n"))
    assert gallery_ids(out, "queries") == []
    assert summary(out)["queries"]["images"] == 0


def test_queries_of_a_file_without_path_are_refused(tmp_path, pets):
    with pytest.raises(ConfigError, match=r"queries.path: queries=file needs the path of a CSV, Parquet or JSONL file"):
        prepared(tmp_path, pets, queries=query_params(source=QuerySource.file))


def test_an_unknown_label_is_named_by_line_with_the_nearest(tmp_path, pets):
    with pytest.raises(
        DataError, match=r"list\.csv line 2, column label: no gallery image has 'catz'; nearest: cats, big_dogs$"
    ):
        prepared(tmp_path, pets, queries=listed(tmp_path, "query_id,task,text,label\nq,tbir,x,catz\n"))


def test_a_message_about_an_unknown_label_stays_short(tmp_path):
    many = folder_of(tmp_path / "many", {f"class {n}/1.jpg": PETS["cats/0.jpg"] for n in range(300)})
    with pytest.raises(DataError, match="no gallery image has 'zebra'; nearest: ") as caught:
        prepared(tmp_path, many, queries=listed(tmp_path, "query_id,task,text,label\nq,tbir,x,zebra\n"))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_label_for_a_gallery_without_labels_is_refused(tmp_path):
    plain = folder_of(tmp_path / "plain", {"1.jpg": noise_jpeg(1)})
    text = "query_id,task,text,label\n" + "".join(f"q{n},tbir,x,\n" for n in range(3)) + "q,tbir,x,cats\n"
    with pytest.raises(DataError, match=r"line 5, column label: .*'cats'; the gallery has no labels"):
        prepared(tmp_path, plain, queries=listed(tmp_path, text))


def test_an_undecodable_query_image_is_named_by_line(tmp_path, pets):
    text = "query_id,task,image\nq1,cbir,cats/0.jpg\nq2,cbir,files/bad.jpg\n"
    with pytest.raises(
        DataError,
        match=r"list\.csv line 3, column image: 'files/bad.jpg' cannot be decoded: not an image: no whole header",
    ):
        prepared(tmp_path, pets, queries=listed(tmp_path, text))


@pytest.mark.parametrize("image", ["cats/00.jpg", "files/2.jpg"])
def test_a_missing_query_image_is_named_by_line(tmp_path, pets, image):
    with pytest.raises(DataError, match=rf"line 2, column image: '{image}' is neither an image_id of the gallery nor"):
        prepared(tmp_path, pets, queries=listed(tmp_path, f"query_id,task,image\nq1,cbir,{image}\n"))


def test_a_listed_image_never_gets_a_gallery_image_id(tmp_path):
    """Otherwise that gallery image would be left out of the results, as the query itself."""
    pets = folder_of(tmp_path / "pets", {**PETS, "query/1.jpg": noise_jpeg(1)})
    with pytest.raises(DataError, match=r"line 2, column query_id: .*'query/1.jpg', which a gallery image already has"):
        prepared(tmp_path, pets, queries=listed(tmp_path, "query_id,task,image\n1.jpg,cbir,files/1.jpg\n"))
    text = "query_id,task,image\n1.jpg,cbir,query/1.jpg\n"  # the gallery image itself
    assert gallery_ids(prepared(tmp_path, pets, queries=listed(tmp_path, text)), "queries") == ["query/1.jpg"]


GRADED = "own 0 cats/1.jpg 2\nown 0 big_dogs/1.jpg 0\nwords 0 cats/1.jpg 1\n"


def test_judgements_of_a_file_are_sorted(tmp_path, pets):
    out = prepared(tmp_path, pets, queries=listed(tmp_path, qrels=GRADED))
    assert qrels_rows(out) == [("own", "big_dogs/1.jpg", 0), ("own", "cats/1.jpg", 2), ("words", "cats/1.jpg", 1)]
    assert summary(out)["relevance"] == "qrels"
    assert summary(out)["qrels"] == {"rows": 3, "dropped": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("onw 0 cats/1.jpg 1", r"query 'onw' is not in the query list; nearest: own, words, "),
        (
            "own 0 cats/11.jpg 1",
            r"query 'own': the data set's gallery has no image 'cats/11.jpg'; an example of an image_id is 'big_dogs/0.jpg'",
        ),
    ],
)
def test_a_judgement_of_an_unknown_query_or_image_is_refused(tmp_path, pets, line, message):
    with pytest.raises(DataError, match=r"list\.qrels: " + message):
        prepared(tmp_path, pets, queries=listed(tmp_path, qrels=GRADED + line + "\n"))


def test_judgements_of_images_outside_the_gallery_are_dropped_and_counted(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, "cats/bad.jpg": b"x"})
    text = "query_id,task,text\nq,tbir,a cat\n"
    qrels = "".join(f"q 0 {image_id} 1\n" for image_id in [*PETS, "cats/bad.jpg"])
    out = prepared(tmp_path, pets, params(max_bad_fraction=0.5), listed(tmp_path, text, qrels), out="bad")
    assert summary(out)["qrels"] == {"rows": 12, "dropped": 1}
    few = params(max_bad_fraction=0.5, gallery_per_class=2, seed=2)
    out = prepared(tmp_path, pets, few, listed(tmp_path, text, qrels), out="few")
    kept = gallery_ids(out)
    assert summary(out)["qrels"] == {"rows": len(kept), "dropped": 13 - len(kept)}
    assert [image_id for _, image_id, _ in qrels_rows(out)] == kept


def test_judgements_without_any_gallery_image_are_refused(tmp_path):
    pets = folder_of(tmp_path / "pets", {**PETS, "cats/bad.jpg": b"x"})
    with pytest.raises(DataError, match=r"expected a judgement of at least one gallery image, found none in 1 lines"):
        prepared(
            tmp_path,
            pets,
            params(max_bad_fraction=0.5),
            listed(tmp_path, "query_id,task,text\nq,tbir,a cat\n", "q 0 cats/bad.jpg 1\n"),
        )


# --- same inputs, same bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", list(QuerySource))
def test_output_bytes_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, source):
    monkeypatch.setattr(images_module, "SHARD_ROWS", 5)  # several shards
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (600, 300), np.uint16)).save(buffer, "PNG")
    pets = folder_of(tmp_path / "pets", {**PETS, **BROKEN, "cats/large 16 bit.png": buffer.getvalue()})
    queries = listed(tmp_path, qrels=GRADED) if source is QuerySource.file else query_params(templates=["{}"])
    trees = []
    for workers, out in ((1, "a"), (2, "b"), (7, "c")):
        trees.append(tree(prepared(tmp_path, pets, params(max_bad_fraction=0.5), queries, workers, out)))
    assert trees[0] == trees[1] == trees[2]
    assert sum("gallery/part-" in name for name in trees[0]) >= 2
