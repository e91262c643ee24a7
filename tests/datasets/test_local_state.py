"""The state of local files changes when the files do."""

from hashlib import sha256

from cbir.datasets.local_state import images_state, local_state
from tests.support.image_files import folder_of


def test_local_state_covers_existing_paths_and_changes_with_them(tmp_path):
    folder_of(tmp_path, {"photos/1.jpg": b"one", "list.csv": b"x"})
    photos, queries = str(tmp_path / "photos"), (tmp_path / "list.csv").as_uri()

    def state():
        return local_state([photos, queries, None, "DEFAULT", "https://host/x.zip", str(tmp_path / "gone")])

    first = state()
    assert list(first) == [photos, queries]
    assert state() == first
    (tmp_path / "photos" / "1.jpg").write_bytes(b"longer")
    second = state()
    assert (second[photos] != first[photos], second[queries] == first[queries]) == (True, True)
    (tmp_path / "list.csv").write_bytes(b"longer")
    assert state()[queries] != first[queries]


def test_the_state_of_an_alias_is_stored_under_the_alias(tmp_path):
    folder_of(tmp_path, {"demo.bin": b"one"})
    aliases = {"demo": tmp_path / "demo.bin"}
    assert local_state(["demo"], aliases) == {"demo": sha256(b"one").hexdigest()}
    assert local_state(["other"], aliases) == {}
    (tmp_path / "demo.bin").unlink()
    assert local_state(["demo"], aliases) == {}


def test_only_listed_images_below_the_query_list_are_watched(tmp_path):
    rows = "a,cbir,listed.jpg,\nb,cbir,gallery-image,\nc,cbir,../other.jpg,\nd,tbir,,listed.jpg\n"
    folder_of(tmp_path, {"lists/listed.jpg": b"one", "lists/unlisted.jpg": b"one", "other.jpg": b"one"})
    (tmp_path / "lists" / "list.csv").write_text("query_id,task,image,text\n" + rows)
    path = str(tmp_path / "lists" / "list.csv")
    first = images_state(path)
    assert list(first) == [f"images of {path}"]
    for name in ("lists/unlisted.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"longer")
    assert images_state(path) == first
    (tmp_path / "lists" / "listed.jpg").write_bytes(b"longer")
    assert images_state(path) != first
    (tmp_path / "lists" / "listed.jpg").unlink()
    assert images_state(path) == images_state(None) == {}
