"""The page's address as a search, and back.  What the page does with invalid values: test_search_page.py."""

from hypothesis import given
from hypothesis import strategies as st

from cbir.app.address import Choices, SearchState, read_address, write_address

CHOICES = Choices.of(["clip", "mobilenet", "dinov2", "resnet", "siglip"], {"a": "A", "b&c=1": "B", "ü": "Ü"}, 500)


WORDS = st.text(min_size=1, max_size=50).map(str.strip).filter(bool)


@given(
    st.builds(
        SearchState,
        st.sampled_from(["clip", "mobilenet"]),
        st.integers(1, 100),
        WORDS,
        st.none(),
        st.booleans(),
        st.lists(st.sampled_from(list(CHOICES.labels)), unique=True).map(tuple),
        st.lists(st.sampled_from(["dinov2", "resnet", "siglip"]), unique=True).map(tuple),
        st.none() | WORDS,
        st.none() | WORDS,
    )
)
def test_an_address_is_read_as_written(search: SearchState) -> None:
    written = {k: [v] if isinstance(v, str) else v for k, v in write_address(search, CHOICES).items()}
    assert read_address(written, CHOICES) == (search, [])


@given(
    st.dictionaries(
        st.sampled_from(["q", "like", "add", "not", "encoder", "k", "exact", "label", "with"]), st.lists(st.text())
    )
)
def test_any_address_gives_a_valid_search(values: dict[str, list[str]]) -> None:
    search, _ = read_address(values, CHOICES)
    assert search.encoder in CHOICES.encoders
    assert 1 <= search.k <= CHOICES.max_k
    assert search.encoder not in search.beside
    assert {*search.beside} <= {*CHOICES.encoders}


def test_at_most_four_encoders_stand_side_by_side() -> None:
    values = {"encoder": ["clip"], "with": ["siglip", "clip", "resnet", "siglip", "dinov2", "mobilenet"]}
    search, messages = read_address(values, CHOICES)
    assert (search.encoder, search.beside) == ("clip", ("siglip", "resnet", "dinov2"))
    assert messages == ["Page address, with: expected at most 3 encoders, found 4."]


def test_all_images_of_a_small_gallery_are_results() -> None:
    assert [Choices.of(["clip"], {}, size).default.k for size in (1, 5, 500)] == [1, 5, 20]
