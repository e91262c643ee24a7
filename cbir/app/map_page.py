"""The page Map: the gallery drawn on a plane, as the stage `map` laid it out."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from cbir.app.cards import encoder_name, picture_html
from cbir.app.state import GalleryView
from cbir.artifacts.maps import read_map
from cbir.core.errors import CbirError

_COLOURS = 20
_NO_LABEL, _OTHERS = "no label", "other classes"
_GREY = "#c4c4c4"


def show(gallery: GalleryView, data: Path, search: Any) -> None:
    """data : the artifacts' folder.  search : the page Search, of st.Page."""
    st.title("Map")
    maps = {path.stem: path for path in sorted((data / "map").glob("*.parquet"))}
    if not maps:
        st.info("There is no map of this gallery yet: `dvc repro` makes it.", icon=":material/info:")
        return
    name = str(
        st.segmented_control("Encoder", list(maps), default=next(iter(maps)), format_func=encoder_name, required=True)
    )
    points = read_points(maps[name], maps[name].stat().st_mtime_ns)
    st.caption(f"{len(points):,} images by their embeddings: what lies close together looks alike to the encoder.")
    shown = _coloured(points)
    chart, picture = st.columns([4, 1], gap="medium")
    with chart:
        event: Any = st.altair_chart(
            _chart(shown), key=f"map {name}", on_select="rerun", alt="A map of the gallery's images, coloured by class"
        )
    with picture:
        _show_chosen(gallery, name, event, search)


@lru_cache(maxsize=4)
def read_points(path: Path, made_ns: int) -> pd.DataFrame:
    """image_id, x, y and class (its name, or "no label") of each point of a map; made_ns : when the file was made."""
    table = read_map(path).to_pandas()
    table["class"] = table["label_name"].fillna(table["label"]).fillna(_NO_LABEL)
    return pd.DataFrame(table[["image_id", "class", "x", "y"]])


def _coloured(points: pd.DataFrame) -> pd.DataFrame:
    """The points with a column `colour`: their class where there are few, else the classes that are chosen."""
    classes = sorted(points["class"].unique())
    if len(classes) <= _COLOURS:
        return points.assign(colour=points["class"])
    chosen = st.multiselect(
        "Colour these classes",
        classes,
        default=classes[:: max(1, len(classes) // 10)][:10],
        max_selections=_COLOURS,
        help=f"At most {_COLOURS}: eyes tell no more colours apart.",
    )
    return points.assign(colour=points["class"].where(points["class"].isin(chosen), _OTHERS))


def _chart(points: pd.DataFrame) -> alt.Chart:
    names = [name for name in sorted(points["colour"].unique()) if name != _OTHERS]
    palette = _palette(len(names))
    if (points["colour"] == _OTHERS).any():
        names, palette = [*names, _OTHERS], [*palette, _GREY]
        points = pd.concat([points[points["colour"] == _OTHERS], points[points["colour"] != _OTHERS]])  # grey below
    chosen = alt.selection_point("chosen", fields=["image_id"], on="click", empty=False)
    bare = alt.Axis(labels=False, ticks=False, grid=False, title=None, domain=False)
    chart: alt.Chart = (
        alt.Chart(points)
        .mark_circle(size=45, opacity=0.8)
        .encode(
            x=alt.X("x:Q", axis=bare, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", axis=bare, scale=alt.Scale(zero=False)),
            color=alt.Color(
                "colour:N",
                scale=alt.Scale(domain=names, range=palette),
                legend=alt.Legend(title=None, orient="bottom", columns=4, labelLimit=140, symbolLimit=0),
            ),
            size=alt.condition(chosen, alt.value(240), alt.value(45)),
            tooltip=[alt.Tooltip("class:N"), alt.Tooltip("image_id:N", title="id")],
        )
        .properties(height=560)
        .add_params(chosen)
    )
    return chart


def _palette(number: int) -> list[str]:
    """Colours that differ in hue, Tableau's twenty: the strong ten first."""
    strong = [
        "#4c78a8",
        "#f58518",
        "#54a24b",
        "#e45756",
        "#72b7b2",
        "#b279a2",
        "#eeca3b",
        "#9d755d",
        "#d67195",
        "#439894",
    ]
    light = [
        "#9ecae9",
        "#ffbf79",
        "#88d27a",
        "#ff9d98",
        "#83bcb6",
        "#d6a5c9",
        "#f2cf5b",
        "#d8b5a5",
        "#fcbfd2",
        "#b79a20",
    ]
    return (strong + light)[:number]


def _show_chosen(gallery: GalleryView, encoder: str, event: Any, search: Any) -> None:
    """The image whose point was clicked, and the way to its like."""
    found = event.selection.get("chosen") or [] if event else []
    if not found:
        st.markdown("Click a point to see its image.")
        return
    image_id = str(found[-1]["image_id"])
    try:
        st.html(picture_html(gallery.thumbnail(image_id), gallery.searcher.label_of(image_id) or "no label"))
    except CbirError:
        st.warning("This image is not in the gallery: the map is older than the gallery, `dvc repro` makes it anew.")
        return
    if st.button("More like this", icon=":material/search:"):
        st.switch_page(search, query_params={"like": image_id, "encoder": encoder})
