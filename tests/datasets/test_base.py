"""The choice of images by seed."""

from collections import Counter

from cbir.datasets.base import SourceImage, choose


def crowd(**counts):
    return [
        SourceImage(f"{label}/{number}", None if label == "none" else label, None, None, "", bytes)
        for label, count in counts.items()
        for number in range(count)
    ]


def chosen(images, per_class, seed=0):
    return {image.image_id for image in filter(choose(images, per_class, seed), images)}


def test_choose_selects_the_given_number_per_class_or_all():
    kept = chosen(crowd(cat=10, dog=2, none=7), 3)
    assert Counter(image_id.split("/")[0] for image_id in kept) == {"cat": 3, "dog": 2, "none": 3}


def test_choose_all_or_none():
    images = crowd(cat=4)
    assert chosen(images, None) == {image.image_id for image in images}
    assert chosen(images, 0) == set()


def test_the_choice_depends_on_the_seed():
    assert len({frozenset(chosen(crowd(cat=50), 10, seed)) for seed in range(5)}) == 5


def test_the_choice_depends_neither_on_order_nor_on_other_classes():
    images = crowd(cat=50, dog=50)
    kept = chosen(images, 10)
    assert chosen(images[::-1], 10) == kept
    assert chosen(images + crowd(bird=99), 10) & kept == kept


def test_a_larger_choice_contains_the_smaller_one():
    images = crowd(cat=50)
    assert chosen(images, 5) < chosen(images, 6)


def test_every_image_is_about_equally_likely():
    counts = Counter(image_id for seed in range(400) for image_id in chosen(crowd(cat=10), 3, seed))
    assert len(counts) == 10
    assert all(80 <= count <= 160 for count in counts.values())  # 120 expected; five standard deviations are 46
