"""Shapes as a data set: labels, captions and grades from the attributes of the drawings."""

import json
import zipfile
from collections import defaultdict

import pytest

from cbir.core.errors import DataError
from cbir.datasets.base import Query
from cbir.datasets.shapes import Shapes
from cbir.fetching.archives import Zip
from tests.support.image_files import CATS_AND_DOGS, jpeg, zip_of


def shapes_archive(path, **attributes):
    """An archive of images with made-up attributes: name -> "shape colour texture size background"."""
    words = ("shape", "colour", "texture", "size", "background")
    rows = {name: dict(zip(words, text.split(), strict=True)) for name, text in attributes.items()}
    names = {name: name.replace("_", "/") + ".jpg" for name in rows}
    lines = [json.dumps({"name": names[name], **row}) for name, row in rows.items()]
    images = dict.fromkeys(names.values(), jpeg())
    return zip_of(path, {**images, "attributes.jsonl": "\n".join(lines) + "\n"})


def test_grades_count_the_attributes_that_agree(tmp_path):
    archive = shapes_archive(
        tmp_path / "x.zip",
        queries_0="star red striped large grey",
        gallery_0="star red striped large grey",  # all the same
        gallery_1="star red striped small white",  # texture
        gallery_2="star red dotted large black",  # size
        gallery_3="star red plain small beige",  # only the label
        gallery_4="star blue striped large grey",  # another colour: not relevant
        gallery_5="heart red striped large grey",  # another shape: not relevant
    )
    dataset = Shapes(Zip(archive))
    image = Query("image", "cbir", "queries/0.jpg", None, "red star")
    prompt = Query("prompt", "tbir", None, "a photo of a red star", "red star", "class prompts")
    caption = Query("caption", "tbir", None, "a large striped red star on a grey background", "red star", "captions")
    grades = defaultdict(dict)
    for query_id, image_id, grade in dataset.judgements([image, prompt, caption]):
        grades[query_id][image_id] = grade
    names = [f"gallery/{number}.jpg" for number in range(4)]
    assert grades["image"] == dict(zip(names, [3, 2, 2, 1], strict=True))
    assert grades["prompt"] == dict(zip(names, [1, 1, 1, 1], strict=True))
    assert grades["caption"] == dict(zip(names, [4, 2, 2, 1], strict=True))


def test_a_drawing_without_attributes_is_refused(tmp_path):
    path = shapes_archive(tmp_path / "x.zip", gallery_0="star red striped large grey")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("gallery/1.jpg", jpeg())
    with pytest.raises(DataError, match=r"x\.zip: gallery/1.jpg has no line in attributes.jsonl"):
        list(Shapes(Zip(path)).gallery())


def test_an_archive_of_other_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a member attributes.jsonl, found none among 20"):
        Shapes(Zip(zip_of(tmp_path / "x.zip", CATS_AND_DOGS)))
