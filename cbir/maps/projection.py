"""The gallery in two dimensions, to look at: a sample by class, principal components, then t-SNE.

Near points of the map are near vectors.  Distances between far groups, and the groups' sizes, mean little in any t-SNE.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from cbir.artifacts.maps import MAP_SCHEMA
from cbir.artifacts.vectors import Positions, Vectors, VectorSet, positions_of
from cbir.core.errors import DataError

COMPONENTS: Final = 50  # before t-SNE: what scikit-learn's manual advises; van der Maaten and Hinton 2008 took 30
LEAST_FOR_TSNE: Final = 4  # fewer have no neighbourhoods to keep
_NEIGHBOURS: Final = 3  # t-SNE looks at so many times the perplexity

Floats = npt.NDArray[np.float64]


def draw_map(gallery: VectorSet, images: pa.Table, n_images: int, perplexity: int, seed: int) -> pa.Table:
    """The map of at most n_images of the gallery, in MAP_SCHEMA, in order of position.

    images : image_id, label and label_name of the gallery, in order of position.  Memory holds the sample's vectors and no
    others.  The same arguments give the same bytes on one machine, whatever its number of threads.
    Raises DataError for an image of the sample without a vector, or with one that is not finite.
    """
    sample = sample_by_class(images["label"].combine_chunks(), n_images, seed)
    chosen = images.select(MAP_SCHEMA.names[:3]).take(pa.array(sample))
    points = project(gallery.rows(chosen["image_id"].to_pylist(), "map"), perplexity)
    columns = [*chosen.columns, *(pa.array(column) for column in points.T)]
    return pa.Table.from_arrays(columns, MAP_SCHEMA.names).cast(MAP_SCHEMA)


def sample_by_class(labels: pa.Array, n_images: int, seed: int) -> Positions:
    """Positions of at most n_images, drawn without repetition, ascending; all where there are no more.

    labels : of the gallery, null where an image has none; those are one class more.
    Each class gets its share of the sample, rounded down or up: every so-manieth image of a list by class, shuffled within
    each, is taken (systematic sampling with a random start).
    """
    n_gallery = len(labels)
    if n_images >= n_gallery:
        return np.arange(n_gallery)
    rng = np.random.default_rng(seed)
    classes = positions_of(labels, labels.drop_null().unique())
    by_class = np.lexsort((rng.random(n_gallery), classes))
    start = rng.integers(n_gallery)
    places = (np.arange(n_images) * n_gallery + start) // max(1, n_images)  # in integers: no rounding at the end
    return np.sort(by_class[places])


def project(vectors: Vectors, perplexity: int) -> Vectors:
    """Two coordinates for each vector, (n, 2) float32 in [-1, 1], the longer side of the map from -1 to 1.

    vectors : (n, dim) float32, finite.  perplexity : the neighbours that t-SNE keeps near, about; lowered to a third of the
    others where there are few vectors.  Of fewer than 4 vectors the two principal components are the map; vectors that are
    all the same lie at (0, 0).
    Raises DataError for a vector that is not finite.
    Source: van der Maaten, "Accelerating t-SNE using tree-based algorithms", 2014, in scikit-learn, started from the principal
    components, as Kobak and Berens 2019 advise.
    """
    if not np.isfinite(vectors).all():
        raise DataError("map: expected finite vectors, found NaN or infinity: run `dvc repro --force embed`")
    if len(vectors) == 0 or (vectors == vectors[0]).all():
        return np.zeros((len(vectors), 2), np.float32)
    # One thread: the sums of several come in another order, and of other last digits t-SNE makes other maps.
    with threadpool_limits(limits=1):
        points = _principal_components(vectors)
        if len(vectors) >= LEAST_FOR_TSNE:
            bounded = min(float(perplexity), (len(vectors) - 1) / _NEIGHBOURS)
            points = TSNE(init="pca", random_state=0, perplexity=bounded).fit_transform(points)
    return _scaled(points[:, :2].astype(np.float64))


def _principal_components(vectors: Vectors) -> Floats:
    """The first components, (n, 2 to 50), the standard deviation of the first 1; zero where there are less than two.

    In float64 and moved to the mean first: vectors may be all but the same.  Its scale is nothing to t-SNE.
    """
    count = min(COMPONENTS, *vectors.shape)
    moved = vectors.astype(np.float64)
    moved -= moved.mean(0)
    found = PCA(count, svd_solver="covariance_eigh").fit_transform(moved)
    out = np.zeros((len(vectors), max(2, count)))
    out[:, :count] = found / found[:, 0].std()
    return out


def _scaled(points: Floats) -> Vectors:
    """Moved to the middle of their box, and divided by half of its longer side: what was round stays round."""
    low, high = points.min(0), points.max(0)
    half = (high - low).max() / 2
    scaled: Vectors = ((points - (low + high) / 2) / (half or 1.0)).astype(np.float32)
    return scaled
