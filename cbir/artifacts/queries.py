"""The query list and the relevance judgements (`data/queries/`).

Relevance is defined by a rule or by judgements.  "same_label": each gallery image with the query's label is relevant.
"qrels": `qrels.parquet` holds (query_id, image_id, relevance), sorted by query_id; grade 0 is not relevant.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.names import TASKS
from cbir.artifacts.tables import read_table, write_table
from cbir.core.errors import REPAIR, DataError

QUERY_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("image_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("label", pa.string()),
        pa.field("subset", pa.string()),  # queries with metrics of their own: "captions", or "captions/unseen"
    ]
)
QRELS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("relevance", pa.int8(), nullable=False),
    ]
)
PROMPT_SCHEMA = pa.schema(
    [
        pa.field("prompt_set", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("wording", pa.int32(), nullable=False),  # the prompt's number within its set and class, from 0
        pa.field("text", pa.string(), nullable=False),
    ]
)
Judgement = tuple[str, str, int]  # query_id, image_id, relevance: a row of the qrels


def write_query_list(path: Path, table: pa.Table) -> None:
    """Write the query list in the order given."""
    write_table(path, table, QUERY_SCHEMA)


def read_query_list(path: Path) -> pa.Table:
    """Read the query list.  Raises DataError if it is absent or damaged, or a query is there twice or of no task."""
    table = read_table(path, QUERY_SCHEMA)
    if (count := pc.count_distinct(table["query_id"]).as_py()) != table.num_rows:
        raise DataError(
            f"{path}: expected each query once, found {count:,} queries in {table.num_rows:,} rows: {REPAIR}"
        )
    if other := set(table["task"].unique().to_pylist()) - set(TASKS):
        raise DataError(f"{path}: column 'task': expected {' or '.join(TASKS)}, found {min(other)!r}: {REPAIR}")
    return table


def write_qrels(path: Path, table: pa.Table) -> None:
    """Write judgements, sorted by query and image; the table is empty where a rule defines relevance."""
    write_table(path, table.sort_by([("query_id", "ascending"), ("image_id", "ascending")]), QRELS_SCHEMA)


def write_prompts(path: Path, table: pa.Table) -> None:
    """Write the prompts of each class (see `cbir.datasets.prompt_sets`)."""
    write_table(path, table, PROMPT_SCHEMA)


def read_prompts(path: Path) -> pa.Table:
    """Read the prompts."""
    return read_table(path, PROMPT_SCHEMA)


def read_texts(query_list: Path, prompts: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Read what an encoder that reads text embeds: {"texts": ids and texts of the text queries, "prompts": of the prompts}.

    The id of a prompt is its text; each is read once.
    """
    queries = read_query_list(query_list)
    queries = queries.filter(queries["text"].is_valid())
    texts = list(dict.fromkeys(read_prompts(prompts)["text"].to_pylist()))
    return {"texts": (queries["query_id"].to_pylist(), queries["text"].to_pylist()), "prompts": (texts, texts)}


def read_qrels(path: Path) -> pa.Table:
    """Read the judgements.  Raises DataError if they are absent, damaged, or not sorted, or judge a pair twice."""
    table = read_table(path, QRELS_SCHEMA)
    keys = pc.binary_join_element_wise(table["query_id"], table["image_id"], "\0")
    if len(keys) > 1 and not pc.all(pc.less(keys[:-1], keys[1:])).as_py():
        raise DataError(f"{path}: expected each pair of query and image once, sorted, found others: {REPAIR}")
    return table
