"""What figures are drawn on: their style, and their files, of which each has the same bytes again.

Text stays text in the SVG, which can be searched and copied. Neither file knows a date.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from typing import Any, ClassVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

WIDTH = 4.9
"""Inches: two stand side by side on a screen, and one can be read on a phone."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text that can be searched and copied
    "svg.hashsalt": "jaxcoder",
    "text.parse_math": False,  # the name of a group may hold a dollar
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9ca3af",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.labelcolor": "#111827",
    "text.color": "#111827",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "savefig.dpi": 200,
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
      name: of its files, without ending.
      caption: what it shows.
      alt: the same in words, for those who cannot see it.
      svg: its file.
      png: likewise.
      width: CSS pixels.
    """

    name: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    width: int
    kind: ClassVar[str] = "figure"


@contextlib.contextmanager
def drawn(height: float, width: float = WIDTH) -> Iterator[tuple[Canvas, Axes]]:
    """A canvas of so many inches with axes, in the style of the report."""
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        yield canvas, canvas.add_subplot()


def figure(canvas: Canvas, name: str, caption: str, alt: str) -> Figure:
    """Saves a canvas, within its style.

    Args:
      canvas: what is drawn.
      name: of the files.
      caption: what it shows.
      alt: the same in words.
    """
    files: dict[str, bytes] = {}
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        file = io.BytesIO()
        canvas.savefig(file, format=kind, metadata=metadata)
        files[kind] = file.getvalue()
    return Figure(name, caption, alt, files["svg"], files["png"], round(96 * canvas.get_figwidth()))
