"""The stage preprocess on small data sets: what is packed, what goes to quarantine, what is refused."""

import dataclasses
import io
import re
import shutil
import zipfile
from collections import Counter
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cbir.artifacts import images as images_module
from cbir.artifacts.images import IMAGE_SCHEMA, read_columns, read_shards
from cbir.core.errors import DataError
from cbir.datasets.params import QuerySource, Reader
from cbir.drawing.unseen import UNSEEN_LABELS
from tests.support.image_files import folder_of, noise_jpeg
from tests.support.preprocessed import (
    BROKEN,
    GRADED,
    PETS,
    gallery_ids,
    listed,
    params,
    prepared,
    qrels_rows,
    quarantine_rows,
    query_params,
    query_rows,
    summary,
    tree,
)


@pytest.fixture
def pets(tmp_path):
    return folder_of(tmp_path / "pets", PETS)


# --- queries of the data set ----------------------------------------------------------------------------------------


def test_a_folder_becomes_images_and_queries(tmp_path):
    out = prepared(tmp_path, folder_of(tmp_path / "pets", PETS), queries=query_params(templates=["a photo of a {}"]))
    packed = {
        split: pa.concat_tables(t for _, t in read_shards(out / "images" / split)) for split in ("gallery", "queries")
    }
    for table, per_class in ((packed["gallery"], 6), (packed["queries"], 2)):
        assert table.schema == IMAGE_SCHEMA
        assert table["image_id"].to_pylist() == sorted(table["image_id"].to_pylist())
        assert Counter(table["label"].to_pylist()) == {"cats": per_class, "big_dogs": per_class}
        for row in table.to_pylist():
            assert row["image"] == PETS[row["image_id"]]
            assert row["sha256"] == sha256(row["image"]).hexdigest()
            assert (row["width"], row["height"], row["source"], row["caption"]) == (16, 16, row["image_id"], None)
            assert row["image_id"].startswith(f"{row['label']}/")
    rows = query_rows(out)
    assert [row["query_id"] for row in rows[:4]] == gallery_ids(out, "queries")
    assert all(row["task"] == "cbir" and row["image_id"] == row["query_id"] and row["text"] is None for row in rows[:4])
    assert [row["text"] for row in rows[4:]] == ["a photo of a big dogs", "a photo of a cats"]
    assert {(row["task"], row["image_id"], row["subset"]) for row in rows[4:]} == {("tbir", None, "class prompts")}
    assert {row["query_id"]: row["label"] for row in rows[4:]} == {"class:big_dogs": "big_dogs", "class:cats": "cats"}
    assert qrels_rows(out) == []
    assert quarantine_rows(out) == []
    assert len(summary(out)["quarantine_sha256"]) == 64
    assert {name: value for name, value in summary(out).items() if name != "quarantine_sha256"} == {
        "dataset": "image_folder",
        "title": "image_folder",
        "gallery": {
            "images": 12,
            "bytes": sum(len(PETS[image_id]) for image_id in gallery_ids(out)),
            "classes": 2,
            "smallest_class": 6,
            "largest_class": 6,
            "unlabelled": 0,
        },
        "queries": {"images": 4, "by_task": {"cbir": 4, "tbir": 2}, "by_subset": {"class prompts": 2}},
        "relevance": "same_label",
        "qrels": {"rows": 0, "dropped": 0},
        "quarantine": {},
        "ignored_files": {},
        "left_out": [],
        "notes": [],
        "changes": {"kept": 16, "converted": 0, "reduced": 0},
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


def test_kept_converted_and_reduced_images_are_counted(tmp_path):
    files = {f"{n}.jpg": noise_jpeg(n) for n in range(3)}
    for name, side, kind in (("small.webp", 20, "WEBP"), ("large.jpg", 520, "JPEG"), ("large.png", 520, "PNG")):
        buffer = io.BytesIO()
        Image.new("RGB", (2 * side, side)).save(buffer, kind)
        files[name] = buffer.getvalue()
    out = prepared(tmp_path, folder_of(tmp_path / "x", files), params(queries_per_class=3))
    assert (len(gallery_ids(out)), summary(out)["queries"]["images"]) == (6, 3)
    assert summary(out)["changes"]["converted"] >= 1


def test_unlabelled_images_are_packed_and_counted(tmp_path):
    out = prepared(tmp_path, folder_of(tmp_path / "x", {f"{n}.jpg": noise_jpeg(n) for n in range(3)}))
    assert summary(out)["gallery"] | {"bytes": 0} == {
        "images": 3, "bytes": 0, "classes": 0, "smallest_class": 0, "largest_class": 0, "unlabelled": 3,
    }  # fmt: skip
    assert [row["label"] for row in query_rows(out)] == [None, None]


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
    out = prepared(tmp_path, pets, params(gallery_per_class=3, queries_per_class=4, hold_out=True))
    assert Counter(image_id.split("/")[0] for image_id in gallery_ids(out)) == {"cats": 3, "big_dogs": 3}
    assert {*gallery_ids(out), *gallery_ids(out, "queries")} == set(PETS)


def test_queries_stay_in_the_gallery_unless_held_out(tmp_path, pets):
    for number, (per_class, gallery_per_class) in enumerate([(2, None), (None, None), (3, 4), (4, 3)]):
        chosen = params(queries_per_class=per_class, gallery_per_class=gallery_per_class)
        out = prepared(tmp_path, pets, chosen, out=f"out{number}")
        queries, gallery = gallery_ids(out, "queries"), gallery_ids(out)
        assert Counter(image_id.split("/")[0] for image_id in queries) == {
            "cats": per_class or 6, "big_dogs": per_class or 6,
        }  # fmt: skip
        assert len(gallery) == 2 * (gallery_per_class or 6)
        assert set(queries) <= set(gallery) or set(gallery) <= set(
            queries
        )  # the seed chooses the same first of a class


def test_an_image_in_quarantine_is_no_query(tmp_path):
    pets = folder_of(tmp_path / "pets", PETS | BROKEN)
    out = prepared(tmp_path, pets, params(max_bad_fraction=0.25, queries_per_class=None))
    assert set(gallery_ids(out, "queries")) == set(PETS)
    assert sum(summary(out)["quarantine"].values()) == len(BROKEN)


@pytest.mark.parametrize(
    ("names", "per_class", "notes"),
    [
        (["a/1.jpg", "b/1.jpg"], 5, ["There are no image queries: .*"]),
        (["a/1.jpg", "b/1.jpg", "b/2.jpg"], 5, ["1 of 2 classes has no image query."]),
        (["a/1.jpg", "c/1.jpg", "b/1.jpg", "b/2.jpg"], 5, ["2 of 3 classes have no image query."]),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], 1, []),
        (["a/1.jpg", "b/1.jpg"], 0, []),
        (["1.jpg"], 5, []),
    ],
)
def test_classes_without_an_image_query_are_noted(tmp_path, names, per_class, notes):
    images = folder_of(tmp_path / "x", {name: noise_jpeg(number) for number, name in enumerate(names)})
    found = summary(prepared(tmp_path, images, params(queries_per_class=per_class)))["notes"]
    assert [bool(re.fullmatch(note, text)) for note, text in zip(notes, found, strict=True)] == [True] * len(notes)


def test_classes_without_a_gallery_image_get_no_prompt(tmp_path):
    pets = folder_of(
        tmp_path / "pets", {**PETS, "query/birds/1.jpg": noise_jpeg(50), "query/cats/1.jpg": noise_jpeg(51)}
    )
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


# --- same inputs, same bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", list(QuerySource))
def test_output_bytes_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, source):
    monkeypatch.setattr(images_module, "SHARD_ROWS", 5)  # several shards
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (600, 700), np.uint16)).save(buffer, "PNG")
    pets = folder_of(tmp_path / "pets", {**PETS, **BROKEN, "cats/large 16 bit.png": buffer.getvalue()})
    queries = listed(tmp_path, qrels=GRADED) if source is QuerySource.file else query_params(templates=["{}"])
    trees = []
    for workers, out in ((1, "a"), (2, "b"), (7, "c")):
        trees.append(tree(prepared(tmp_path, pets, params(max_bad_fraction=0.5), queries, workers, out)))
    assert trees[0] == trees[1] == trees[2]
    assert sum("gallery/part-" in name for name in trees[0]) >= 2


def test_left_out_folders_are_printed_and_in_the_summary(tmp_path, capsys):
    photos = folder_of(tmp_path / "pets", PETS)
    thumbnail = {f"cats/{name}/1.jpg": PETS["cats/1.jpg"] for name in ("@eaDir", ".old")}
    folder_of(photos, {**thumbnail, **{f"cats/{n}/@eaDir/1.jpg": b"" for n in range(5)}})
    (photos / "again").symlink_to(photos / "cats")
    out = prepared(tmp_path, photos)
    told = summary(out)["left_out"]
    assert told[:2] == [
        {"folder": "again", "reason": "read elsewhere", "images": None},
        {"folder": "cats/.old", "reason": "hidden", "images": 1},
    ]
    printed = capsys.readouterr().out
    assert "Left out: 6 folders that software makes, such as `@eaDir` (6 images).\n" in printed
    assert "  cats/.old: hidden\n" in printed
    assert "... and 3 more, see left_out in summary.json\n" in printed
    assert summary(out)["gallery"]["images"] == 12


def test_queries_of_other_classes_are_refused_before_embedding(tmp_path):
    images = {f"{name}/{n}.jpg": noise_jpeg(n) for n, name in enumerate(["train/cats", "train/dogs", "val/cats"])}
    folder = folder_of(tmp_path / "images", images)
    with pytest.raises(
        DataError, match=r"gallery's classes \(train\), found only other classes \(cats\): set dataset.gallery"
    ):
        prepared(tmp_path, folder, params(query_folder="val"))
    out = prepared(tmp_path, folder, params(query_folder="val", gallery_folder="train"))
    assert summary(out)["gallery"]["classes"] == 2
    assert summary(out)["notes"] == ["1 of 2 classes has no image query."]


def test_a_class_that_holds_nearly_everything_is_noted(tmp_path):
    images = {f"photos/{n}.jpg": noise_jpeg(n) for n in range(20)} | {"other/1.jpg": noise_jpeg(30)}
    notes = summary(prepared(tmp_path, folder_of(tmp_path / "x", images), params(queries_per_class=0)))["notes"]
    assert notes[0].startswith("One class holds 95% of the gallery's labelled images")
