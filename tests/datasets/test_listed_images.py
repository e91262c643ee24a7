"""A query that is a gallery image is recognised, however the list names it, so that it is left out of its own results."""

import os
import shutil
import unicodedata
from io import BytesIO

import pytest
from PIL import Image

from cbir.core.errors import DataError
from tests.support.image_files import folder_of, noise_jpeg, zip_of
from tests.support.preprocessed import PETS, gallery_ids, listed, prepared, query_rows

UMLAUT = "größe/ü.jpg"


@pytest.fixture
def home(tmp_path):
    """The folder of the list, with the data set in it, one image of it hard-linked and one linked."""
    home = tmp_path / "home"
    folder_of(home / "pets", {**PETS, unicodedata.normalize("NFD", UMLAUT): noise_jpeg(50)})
    (home / "soft.jpg").symlink_to("pets/cats/0.jpg")
    (home / "linked").symlink_to("pets/cats")
    os.link(home / "pets" / "cats" / "0.jpg", home / "hard.jpg")
    shutil.copy(home / "pets" / "cats" / "0.jpg", home / "copy.jpg")
    return home


def image_ids(tmp_path, url, image):
    out = prepared(tmp_path, url, queries=listed(tmp_path, f"query_id,task,image\nq1,cbir,{image}\n"))
    (row,) = query_rows(out)
    assert gallery_ids(out, "queries") == [row["image_id"]]
    return row["image_id"]


@pytest.mark.parametrize(
    "image",
    ["cats/0.jpg", "./cats/0.jpg", "pets/cats/0.jpg", "./pets//cats/../cats/0.jpg", "{home}/pets/cats/0.jpg", "soft.jpg",
     "linked/0.jpg", "hard.jpg", "copy.jpg"],
)  # fmt: skip
def test_a_gallery_image_is_recognised_in_every_spelling(tmp_path, home, image, capsys):
    assert image_ids(tmp_path, home / "pets", image.format(home=home)) == "cats/0.jpg"
    told = "1 image of the query list is a gallery image, given by a path or a copy, and left out of its own results.\n"
    assert (told in capsys.readouterr().out) == (image != "cats/0.jpg")


def test_an_absolute_path_may_name_a_gallery_image(tmp_path):
    pets = folder_of(tmp_path / "elsewhere", PETS)
    assert image_ids(tmp_path, pets, pets / "cats" / "0.jpg") == "cats/0.jpg"
    (tmp_path / "other.jpg").write_bytes(noise_jpeg(60))
    with pytest.raises(DataError, match=r"other\.jpg' is outside the folder of the query list"):
        image_ids(tmp_path, pets, tmp_path / "other.jpg")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_either_form_of_unicode_names_the_image(tmp_path, home, form):
    assert image_ids(tmp_path, home / "pets", unicodedata.normalize(form, UMLAUT)) == unicodedata.normalize(
        "NFD", UMLAUT
    )


@pytest.mark.parametrize("image", ["copy.jpg", "./cats/0.jpg"])
def test_an_image_of_an_archive_is_recognised(tmp_path, home, image):
    archive = zip_of(tmp_path / "pets.zip", {f"pets/{name}": data for name, data in PETS.items()})
    shutil.rmtree(home / "pets")
    assert image_ids(tmp_path, archive, image) == "cats/0.jpg"


def test_a_copy_is_recognised_where_images_are_encoded_again(tmp_path, home):
    """The packed bytes are compared: a GIF is packed as a PNG."""

    file = BytesIO()
    Image.new("RGB", (9, 9), "red").save(file, "GIF")
    for name in ("pets/cats/x.gif", "y.gif"):
        (home / name).write_bytes(file.getvalue())
    assert image_ids(tmp_path, home / "pets", "y.gif") == "cats/x.gif"


def test_another_image_of_the_same_name_is_a_query(tmp_path, home):
    folder_of(home, {"other/0.jpg": noise_jpeg(70)})
    assert image_ids(tmp_path, home / "pets", "other/0.jpg") == "query/q1"
