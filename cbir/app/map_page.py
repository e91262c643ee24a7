"""The Map page: the gallery in the plane, as the stage `map` projected it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from cbir.app.cards import captioned_html
from cbir.app.state import SharedGallery
from cbir.artifacts.maps import read_map
from cbir.artifacts.paths import DataPaths
from cbir.core.errors import CbirError

_MAX_COLOURS = 20
_NO_LABEL, _OTHER_CLASSES = "no label", "other classes"
_GREY = "#c4c4c4"


def show(gallery: SharedGallery, data: Path, search_page: Any) -> None:
    """Show the map of one encoder.  data : the folder of the artifacts.  search_page : the st.Page of the Search page."""
    st.title("Map", anchor=False)
    paths = DataPaths(data)
    maps = {encoder: paths.map(encoder) for encoder in gallery.choices.encoders if paths.map(encoder).is_file()}
    if not maps:
        st.info("There is no map of this gallery yet: run `dvc repro`.", icon=":material/info:")
        return
    encoder = str(st.segmented_control("Encoder", list(maps), default=next(iter(maps)), required=True))
    points = read_points(maps[encoder], maps[encoder].stat().st_mtime_ns)
    st.caption(
        f"{len(points):,} gallery images, placed by their embeddings: images that the encoder finds similar are close together."
    )
    coloured = _choose_colours(points)
    chart, image = st.columns([4, 1], gap="medium")
    with chart:
        event: Any = st.altair_chart(
            _chart(coloured),
            key=f"map {encoder}",
            on_select="rerun",
            alt="A map of the gallery's images, coloured by class",
        )
    with image:
        _show_selected(gallery, encoder, event, search_page)


@lru_cache(maxsize=4)
def read_points(path: Path, modified_ns: int) -> pd.DataFrame:
    """The points of a map: image_id, x, y and class (its name, or "no label").

    modified_ns : when the file was modified, so that a new map is read again.
    """
    table = read_map(path).to_pandas()
    table["class"] = table["label_name"].fillna(table["label"]).fillna(_NO_LABEL)
    return pd.DataFrame(table[["image_id", "class", "x", "y"]])


def _choose_colours(points: pd.DataFrame) -> pd.DataFrame:
    """Add the column `colour`: the class of a point; if there are too many classes, only for those that the user selects."""
    classes = sorted(points["class"].unique())
    if len(classes) <= _MAX_COLOURS:
        return points.assign(colour=points["class"])
    selected = st.multiselect(
        "Colour these classes",
        classes,
        default=classes[:: max(1, len(classes) // 10)][:10],
        max_selections=_MAX_COLOURS,
        help=f"At most {_MAX_COLOURS} classes: more colours are hard to tell apart.",
    )
    return points.assign(colour=points["class"].where(points["class"].isin(selected), _OTHER_CLASSES))


def _chart(points: pd.DataFrame) -> alt.Chart:
    names = [name for name in sorted(points["colour"].unique()) if name != _OTHER_CLASSES]
    palette = _palette(len(names))
    if (points["colour"] == _OTHER_CLASSES).any():
        names, palette = [*names, _OTHER_CLASSES], [*palette, _GREY]
        points = pd.concat(
            [points[points["colour"] == _OTHER_CLASSES], points[points["colour"] != _OTHER_CLASSES]]
        )  # grey points are drawn first
    selected = alt.selection_point("selected", fields=["image_id"], on="click", empty=False)
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
                legend=alt.Legend(title=None, orient="bottom", columns=3, labelLimit=140, symbolLimit=0),
            ),
            size=alt.condition(selected, alt.value(240), alt.value(45)),
            tooltip=[alt.Tooltip("class:N"), alt.Tooltip("image_id:N", title="id")],
        )
        .properties(height=560)
        .add_params(selected)
    )
    return chart


def _palette(size: int) -> list[str]:
    """The first colours of Tableau's twenty, each of another hue or lightness; the ten strong ones come first."""
    strong = "#4c78a8 #f58518 #54a24b #e45756 #72b7b2 #b279a2 #eeca3b #9d755d #d67195 #439894"
    light = "#9ecae9 #ffbf79 #88d27a #ff9d98 #83bcb6 #d6a5c9 #f2cf5b #d8b5a5 #fcbfd2 #b79a20"
    return f"{strong} {light}".split()[:size]


def _show_selected(gallery: SharedGallery, encoder: str, event: Any, search_page: Any) -> None:
    """Show the image whose point was clicked, with a button that searches for similar images."""
    selection = event.selection.get("selected") or [] if event else []
    if not selection:
        st.markdown("Click a point to see its image.")
        return
    image_id = str(selection[-1]["image_id"])
    try:
        st.html(captioned_html(gallery.thumbnail(image_id), gallery.searcher.label_name(image_id) or _NO_LABEL))
    except CbirError:
        st.warning("The gallery does not have this image: the map is out of date. Run `dvc repro`.")
        return
    if st.button("More like this", icon=":material/search:"):
        st.switch_page(search_page, query_params={"like": image_id, "encoder": encoder})
