"""The queries of a data set itself: its images, class names and captions."""

from cbir.datasets.base import Query
from cbir.datasets.query_set import caption_queries, class_queries, image_queries


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
