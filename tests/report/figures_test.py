"""Figures: the same bytes again, text as text, words for those who cannot see them."""

import math
import re

import numpy as np
import pytest

from jaxcoder.report import figures
from jaxcoder.report.figures import Dot, Line

ROWS = [Dot("lung $5$ <b>", 0.71, 0.65, 0.77), Dot("heart", 0.5, math.nan, math.nan)]


def draw(kind):
    if kind == "dots":
        return figures.dots("d", "By group.", ROWS, "micro-F1", line=0.6, line_name="all")
    if kind == "curves":
        lines = [Line("a", [1, 10, 100], [0.1, 0.2, 0.3]), Line("b", [1, 10, 100], [0.2, 0.3, 0.4])]
        return figures.curves("c", "Curve.", lines, "contacts", "score", log_x=True)
    if kind == "steps":
        return figures.steps("s", "F1.", [Line("micro", [0, 1], [0.25, 0.5])], ["full", "category"])
    if kind == "scatter":
        x, y = np.linspace(0, 1, 50), np.linspace(1, 0, 50)
        means = Line("mean", [0.2, 0.8], [0.7, 0.3])
        return figures.scatter("p", "Codes.", x, y, means, "share", "F1", share_x=True)
    values = np.array([[0.5, math.nan], [0.25, 1.0]])
    texts = [["50", ""], ["25", "100"]]
    return figures.heat("h", "Map.", values, texts, ["low", "high"], ["1", "2+"], "n", "share")


KINDS = ["dots", "curves", "steps", "scatter", "heat"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_numbers_give_the_same_bytes(kind):
    one, other = draw(kind), draw(kind)
    assert (one.svg, one.png) == (other.svg, other.png)
    assert one.png.startswith(b"\x89PNG")
    assert not re.search(rb"<dc:date>|20\d\d-\d\d", one.svg)


def test_text_is_text_and_a_dollar_is_a_dollar():
    svg = draw("dots").svg.decode()
    assert "lung $5$ &lt;b&gt;" in svg
    assert "micro-F1" in svg and "all 60.0 %" in svg


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("dots", "lung $5$ <b>: 71.0 (65.0 to 77.0); heart: 50.0."),
        ("curves", "a: 10.0 % at 1, 30.0 % at 100; b: 20.0 % at 1, 40.0 % at 100."),
        ("steps", "micro: full 25.0 %, category 50.0 %."),
        ("scatter", "mean: 70.0 % at 20.0 %, 30.0 % at 80.0 %."),
        ("heat", "low: 1 50.0 %; high: 1 25.0 %, 2+ 100.0 %."),
    ],
)
def test_what_is_seen_is_said(kind, said):
    found = draw(kind)
    assert found.alt == f"{found.caption} {said}"


def test_many_points_are_pixels():
    """70,000 codes as elements of an SVG would stop a browser."""

    def size(points):
        x = np.linspace(0, 1, points)
        means = Line("mean", [0.5], [0.5])
        return len(figures.scatter("p", "Codes.", x, x, means, "x", "y", share_x=True).svg)

    assert size(70_000) < 2 * size(figures.MOST_POINTS)


def test_a_long_name_leaves_room():
    row = Dot("x" * 200, 0.5, 0.4, 0.6)
    assert "x" * figures.LONGEST_NAME not in figures.dots("d", "", [row], "", line=0).svg.decode()
