"""embed <encoder>: embed gallery, query images and, if the encoder reads text, texts; look up vectors made elsewhere."""

import sys
from time import perf_counter

from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_texts
from cbir.artifacts.timings import timed
from cbir.artifacts.vectors import write_vectors_passport
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.encoders.base import embeds_images
from cbir.encoders.embedding import embed_queries, embed_shards, vector_settings, vectors_passport
from cbir.encoders.opening import open_encoder
from cbir.encoders.options import refuse_options
from cbir.encoders.params import EncoderParams
from cbir.encoders.stored_vectors import look_up_vectors
from cbir.encoders.vector_cache import VectorCache
from cbir.fetching.cache import cache_folder

PARAMS = ("encoders.{encoder}.family", "encoders.{encoder}.precision", "encoders.{encoder}.backend")


def main(name: str) -> dict[str, float]:
    """Return figures for the timings: `images_s` is the time of all images, without opening the encoder."""
    data, keys = DataPaths(), [key.format(encoder=name) for key in PARAMS]
    params = load_params(f"encoders.{name}", EncoderParams, keys)
    if not embeds_images(data.weights(name)):
        refuse_options(f"encoders.{name}", params, "precision", "backend")
        look_up_vectors(name, data)
        return {}
    encoder, batch = open_encoder(data.weights(name), params.family, params.precision, params.backend, load_device())
    cache = VectorCache(cache_folder(), vector_settings(encoder))
    rows, started_s = {}, perf_counter()
    for kind in ("gallery", "queries"):
        images, out = data.images(kind), data.vectors(name, kind)
        rows[kind] = embed_shards(images, out, encoder, batch, cache, f"{name} {kind}", allow_empty=kind == "queries")
    figures = {
        "images": sum(embedded.count for embedded in rows.values()),
        "images_from_cache": cache.rows_from_cache,
        "images_s": round(perf_counter() - started_s, 3),
    }
    if encoder.reads_text:
        for kind, (ids, texts) in read_texts(data.query_list, data.prompts).items():
            out = data.vectors(name, kind)
            rows[kind] = embed_queries(ids, texts, out, encoder, batch, cache, f"{name} {kind}")
    for kind, embedded in rows.items():
        write_vectors_passport(data.vectors(name, kind), vectors_passport(name, encoder, embedded))
    return {**figures, "rows_from_cache": cache.rows_from_cache}


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"embed@{encoder}") as more:
            more |= main(encoder)
