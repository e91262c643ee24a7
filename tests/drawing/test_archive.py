"""The archive of drawings: the same bytes for any number of workers."""

from cbir.datasets.shapes import Shapes
from cbir.drawing.archive import draw_archive
from cbir.drawing.draw import sample
from cbir.fetching.archives import Zip
from tests.support.image_files import ids


def test_archive_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    """More drawings than a job draws, and a last job with fewer."""
    for workers in (1, 2):
        draw_archive(tmp_path / f"{workers}.zip", seed=3, gallery_images=210, query_images=40, workers=workers)
    first, second = ((tmp_path / f"{workers}.zip").read_bytes() for workers in (1, 2))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.zip", "2.zip"]

    dataset = Shapes(Zip(tmp_path / "1.zip"))
    for split, images, number in (("gallery", dataset.gallery(), 210), ("queries", dataset.query_images(), 40)):
        stored = list(images)
        drawn = list(sample(3, split, number))
        assert ids(stored) == [f"{split}/{drawing.name}.jpg" for drawing in drawn]
        assert [image.label for image in stored] == [drawing.attributes.label for drawing in drawn]
        assert [image.caption for image in stored] == [drawing.attributes.caption for drawing in drawn]
        assert [image.read() for image in stored] == [drawing.jpeg for drawing in drawn]
    assert len(dataset.class_names()) == 80
    assert all(label == name for label, name in dataset.class_names().items())


def test_another_seed_draws_another_archive(tmp_path):
    for seed in (0, 1):
        draw_archive(tmp_path / f"{seed}.zip", seed, gallery_images=2, query_images=0, workers=1)
    assert (tmp_path / "0.zip").read_bytes() != (tmp_path / "1.zip").read_bytes()
