"""embed <encoder>: the vectors of gallery, query images and (CLIP) query texts, with their passport."""

import sys
from pathlib import Path

from cbir.artifacts.queries import read_prompts, read_query_list
from cbir.config import encoder_argument, load_device, load_params
from cbir.embedding import embed_queries, embed_shards, maker, write_vectors_passport
from cbir.encoders.opening import open_encoder
from cbir.errors import told_in_one_line
from cbir.timing import timed
from cbir.user_cache import cache_folder
from cbir.vector_cache import VectorCache

PARAMS = ("{encoder}.family", "{encoder}.precision", "{encoder}.backend")
IMAGES, QUERIES, WEIGHTS, OUT = map(Path, ("data/images", "data/queries", "data/weights", "data/embeddings"))


def main(name: str) -> int:
    """Returns how many rows the cache had."""
    params, out = load_params(key.format(encoder=name) for key in PARAMS).encoder(name), OUT / name
    encoder, batch = open_encoder(WEIGHTS / name, params.family, params.precision, params.backend, load_device())
    cache = VectorCache(cache_folder(), maker(encoder))
    rows = {
        kind: embed_shards(IMAGES / kind, out / kind, encoder, batch, cache, f"{name} {kind}")
        for kind in ("gallery", "queries")
    }
    if encoder.reads_text:
        asked = read_query_list(QUERIES / "query_list.parquet")
        asked = asked.filter(asked["text"].is_valid())
        ids, texts = asked["query_id"].to_pylist(), asked["text"].to_pylist()
        rows["texts"] = embed_queries(ids, texts, out / "texts", encoder, batch, cache, f"{name} texts")
        prompts = list(dict.fromkeys(read_prompts(QUERIES / "prompts.parquet")["text"].to_pylist()))
        rows["prompts"] = embed_queries(prompts, prompts, out / "prompts", encoder, batch, cache, f"{name} prompts")
    for kind, found in rows.items():
        write_vectors_passport(out / kind, name, encoder, found)
    return cache.rows_found


if __name__ == "__main__":
    with told_in_one_line():
        encoder = encoder_argument(sys.argv)
        with timed(f"embed_{encoder}") as more:
            more["rows_from_cache"] = main(encoder)
