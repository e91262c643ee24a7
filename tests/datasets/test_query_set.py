"""The queries of a run: of the data set itself, and of a user's query list and qrels."""

import unicodedata
from functools import partial

import pytest

from cbir.artifacts.images import read_columns
from cbir.core.errors import ConfigError, DataError
from cbir.datasets.base import Query
from cbir.datasets.params import QuerySource
from cbir.datasets.query_set import caption_queries, class_queries, image_queries
from tests.support.image_files import folder_of, noise_jpeg
from tests.support.preprocessed import (
    GRADED,
    PETS,
    gallery_ids,
    listed,
    params,
    prepared,
    qrels_rows,
    query_params,
    query_rows,
    summary,
)


@pytest.fixture
def pets(tmp_path):
    return folder_of(tmp_path / "pets", PETS)


# --- queries of the data set ----------------------------------------------------------------------------------------


def test_one_query_for_each_image():
    assert list(image_queries([("a.jpg", "cats"), ("b.jpg", None)])) == [
        Query("a.jpg", "cbir", "a.jpg", None, "cats", None),
        Query("b.jpg", "cbir", "b.jpg", None, None, None),
    ]


def test_one_prompt_for_each_class_and_template():
    names = {"n01": "gold{}fish", "n02": "bull frog"}
    assert list(class_queries(names, ["a photo of a {}"])) == [
        Query("class:n01", "tbir", None, "a photo of a gold{}fish", "n01", "class prompts"),
        Query("class:n02", "tbir", None, "a photo of a bull frog", "n02", "class prompts"),
    ]
    several = list(class_queries(names, ["{}", "my {}"]))
    assert [(query.query_id, query.text) for query in several[2:]] == [
        ("class:n02:0", "bull frog"),
        ("class:n02:1", "my bull frog"),
    ]
    assert list(class_queries(names, [])) == []


def test_one_query_for_each_distinct_caption_and_label():
    captions = [("b cat", "cats"), ("a dog", "dogs"), ("b cat", "cats"), ("a dog", None), ("a dog", "cats")]
    assert list(caption_queries(captions)) == [
        Query("caption:00000", "tbir", None, "a dog", None, "captions"),
        Query("caption:00001", "tbir", None, "a dog", "cats", "captions"),
        Query("caption:00002", "tbir", None, "a dog", "dogs", "captions"),
        Query("caption:00003", "tbir", None, "b cat", "cats", "captions"),
    ]


# --- queries of a file ----------------------------------------------------------------------------------------------


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
    with pytest.raises(
        ConfigError, match=r"queries.path: queries=file needs the path of a CSV, TSV, Parquet or JSONL file"
    ):
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


def test_judgements_of_a_file_are_sorted(tmp_path, pets):
    out = prepared(tmp_path, pets, queries=listed(tmp_path, qrels=GRADED))
    assert qrels_rows(out) == [("own", "big_dogs/1.jpg", 0), ("own", "cats/1.jpg", 2), ("words", "cats/1.jpg", 1)]
    assert summary(out)["relevance"] == "qrels"
    assert summary(out)["qrels"] == {"rows": 3, "dropped": 0}


def test_judgements_may_be_percent_encoded(tmp_path):
    pets = folder_of(tmp_path / "pets", {"my cats/é 1%.jpg": noise_jpeg(1), "a%20b.jpg": noise_jpeg(2)})
    queries = "query_id,task,text\na query,tbir,a cat\n"
    encoded = "a%20query 0 my%20cats/%C3%A9%201%25.jpg 2\na%20query 0 a%2520b.jpg 1\n"
    plain = "a query\t0\tmy cats/é 1%.jpg\t2\na query\t0\ta%20b.jpg\t1\n"
    for number, text in enumerate((encoded, plain)):
        out = prepared(tmp_path, pets, queries=listed(tmp_path, queries, text), out=str(number))
        assert qrels_rows(out) == [("a query", "a%20b.jpg", 1), ("a query", "my cats/é 1%.jpg", 2)]


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


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_lists_and_folders_may_have_different_forms_of_unicode(tmp_path, forms):
    folder, given = (partial(unicodedata.normalize, form) for form in forms)
    frogs = folder_of(tmp_path / "frogs", {f"{folder('Frösche')}/{n}.jpg": noise_jpeg(n) for n in range(2)})
    name = given("Frösche/0.jpg")
    text = given("query_id,task,image,text,label\nü,cbir,Frösche/0.jpg,,Frösche\nw,tbir,,x,Frösche\n")
    out = prepared(tmp_path, frogs, queries=listed(tmp_path, text, qrels=f"{folder('ü')} 0 {name} 1\nw 0 {name} 2\n"))
    query_id = given("ü")
    assert [(row["query_id"], row["image_id"], row["label"]) for row in query_rows(out)] == [
        (query_id, folder("Frösche/0.jpg"), "Frösche"),
        ("w", None, "Frösche"),
    ]
    assert sorted(qrels_rows(out)) == sorted(
        [(query_id, folder("Frösche/0.jpg"), 1), ("w", folder("Frösche/0.jpg"), 2)]
    )


def test_two_forms_of_one_label_are_one_class_and_told(tmp_path, capsys):
    names = [unicodedata.normalize(form, f"Käfer/{form}.jpg") for form in ("NFC", "NFD")]
    out = prepared(tmp_path, folder_of(tmp_path / "bugs", {name: noise_jpeg(n) for n, name in enumerate(names)}))
    assert summary(out)["gallery"]["classes"] == 1
    (note,) = [note for note in summary(out)["notes"] if "Unicode" in note]
    assert note.startswith("1 class folder has the name of another in a second form of Unicode (NFC and NFD)")
    assert f"{note}\n" in capsys.readouterr().out


def test_unused_columns_are_noted_without_text_from_data(tmp_path, pets):
    text = "query_id,task,text,score,<b>,\nq,tbir,x,1,2,3\n"
    (note,) = summary(prepared(tmp_path, pets, queries=listed(tmp_path, text)))["notes"]
    assert note == "Columns of the query list that are not used: `score` and 2 without a plain name."
