"""A map of the gallery in two dimensions: a sample stratified by class, principal components, then t-SNE.

Points that are near on the map have near vectors.  As in any t-SNE, distances between groups and the sizes of groups mean
little.
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
from cbir.core.errors import REPAIR, DataError

COMPONENTS: Final = 50  # before t-SNE, as scikit-learn's manual advises; van der Maaten and Hinton 2008 used 30
MIN_FOR_TSNE: Final = 4  # fewer points have no neighbourhoods to preserve
_NEIGHBOURS: Final = 3  # t-SNE uses 3 * perplexity neighbours

Floats = npt.NDArray[np.float64]


def draw_map(gallery: VectorSet, images: pa.Table, n_images: int, perplexity: int, seed: int) -> pa.Table:
    """Map at most n_images of the gallery; a table in MAP_SCHEMA, in order of position.

    images : image_id, label and label_name of the gallery, in order of position.  Memory holds only the vectors of the sample.
    On one machine, the same arguments give the same bytes for any number of threads.
    Raises DataError for an image of the sample without a vector, or with a vector that is not finite.
    """
    sample = sample_by_class(images["label"].combine_chunks(), n_images, seed)
    chosen = images.select(MAP_SCHEMA.names[:3]).take(pa.array(sample))
    points = project(gallery.rows(chosen["image_id"].to_pylist(), "map"), perplexity)
    columns = [*chosen.columns, *(pa.array(column) for column in points.T)]
    return pa.Table.from_arrays(columns, MAP_SCHEMA.names).cast(MAP_SCHEMA)


def sample_by_class(labels: pa.Array, n_images: int, seed: int) -> Positions:
    """Sample at most n_images positions without replacement, ascending; all positions if there are no more.

    labels : of the gallery, in order of position; images without a label (null) form one class.
    Each class gets its share of the sample, rounded down or up, by systematic sampling with a random start: images are sorted
    by class, shuffled within each class, and taken at equal steps.
    """
    n_gallery = len(labels)
    if n_images >= n_gallery:
        return np.arange(n_gallery)
    rng = np.random.default_rng(seed)
    classes = positions_of(labels, labels.drop_null().unique())
    by_class = np.lexsort((rng.random(n_gallery), classes))
    start = rng.integers(n_gallery)
    steps = (np.arange(n_images) * n_gallery + start) // max(1, n_images)  # integers: without rounding errors
    return np.sort(by_class[steps])


def project(vectors: Vectors, perplexity: int) -> Vectors:
    """Project vectors to two dimensions: (n, 2) float32 in [-1, 1]; the longer side of the map spans -1 to 1.

    vectors : (n, dim) float32, finite.  perplexity : roughly the number of neighbours that t-SNE keeps near, at most a third of
    the other vectors.  Fewer than 4 vectors are mapped to their two principal components; identical vectors to (0, 0).
    Raises DataError for a vector that is not finite.
    Source: van der Maaten, "Accelerating t-SNE using tree-based algorithms", 2014, in scikit-learn, initialised with the
    principal components, as Kobak and Berens 2019 advise.
    """
    if not np.isfinite(vectors).all():
        raise DataError(f"map: expected finite vectors, found NaN or infinity: {REPAIR}")
    if len(vectors) == 0 or (vectors == vectors[0]).all():
        return np.zeros((len(vectors), 2), np.float32)
    # One thread: several add up in another order, and t-SNE turns a difference in the last digit into another map.
    with threadpool_limits(limits=1):
        points = _principal_components(vectors)
        if len(vectors) >= MIN_FOR_TSNE:
            bounded = min(float(perplexity), (len(vectors) - 1) / _NEIGHBOURS)
            points = TSNE(init="pca", random_state=0, perplexity=bounded).fit_transform(points)
    return _scaled(points[:, :2].astype(np.float64))


def _principal_components(vectors: Vectors) -> Floats:
    """The first components, (n, 2 to 50), scaled so that the first has a standard deviation of 1; zero where there are fewer.

    In float64 with the mean subtracted first, because vectors may be nearly identical.  The scale does not matter to t-SNE.
    """
    count = min(COMPONENTS, *vectors.shape)
    centred = vectors.astype(np.float64)
    centred -= centred.mean(0)
    components = PCA(count, svd_solver="covariance_eigh").fit_transform(centred)
    padded = np.zeros((len(vectors), max(2, count)))
    padded[:, :count] = components / components[:, 0].std()
    return padded


def _scaled(points: Floats) -> Vectors:
    """Centre the points in their bounding box and divide by half of its longer side, which keeps the aspect ratio."""
    low, high = points.min(0), points.max(0)
    half = (high - low).max() / 2
    scaled: Vectors = ((points - (low + high) / 2) / (half or 1.0)).astype(np.float32)
    return scaled
