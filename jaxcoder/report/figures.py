"""The kinds of figures: dots with intervals, lines, points, heat maps.

Colours are those of Okabe and Ito (2008), which colour-blind people tell apart; no difference is
one of colour alone, so that a black-and-white print says the same.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from jaxcoder.report.canvas import WIDTH, Figure, drawn, figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6b7280"
STYLES = ((BLUE, "-", "o"), (RED, "--", "s"), (GREEN, ":", "^"), (ORANGE, "-.", "D"))
"""Colour, line and marker of the first, second … line of a figure."""

LONGEST_NAME = 36
"""Characters of a group's name that are drawn."""
SPOKEN = 12
"""Rows that the words for a figure name; the table beside it has all."""
MOST_POINTS = 2000
"""More points than these are drawn as pixels: each would be an element of the SVG."""


@dataclasses.dataclass(frozen=True)
class Dot:
    """A value with its interval, both ends NaN where it has none: its dot is hollow then."""

    name: str
    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Line:
    """Points joined by a line; `dots` says whether each is marked."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = True


def dots(
    name: str,
    caption: str,
    rows: Sequence[Dot],
    label: str,
    *,
    line: float,
    line_name: str = "",
    limits: tuple[float, float] | None = None,
    share: bool = True,
) -> Figure:
    """Draws a value a row, with intervals.

    Args:
      name: of the files.
      caption: what it shows.
      rows: from the top.
      label: of the axis.
      line: a value that all are compared with.
      line_name: what that is; empty where the axis says enough.
      limits: of the axis; None takes those of the values.
      share: whether values are shares in [0, 1], shown as per cent.
    """
    with drawn(0.235 * len(rows) + 0.95) as (canvas, axes):
        place = np.arange(len(rows))
        value, low, high = (
            np.array([getattr(row, key) for row in rows], float) for key in ("value", "low", "high")
        )
        axes.axvline(line, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        if line_name:
            axes.text(
                line,
                1.0,
                f"{line_name} {100 * line:.1f} %",
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                color="#374151",
                fontsize=8.5,
            )
        axes.hlines(place, low, high, color=BLUE, linewidth=2.2, alpha=0.55)
        for face, mine in ((BLUE, ~np.isnan(low)), ("white", np.isnan(low))):
            axes.plot(
                value[mine],
                place[mine],
                "o",
                color=BLUE,
                markerfacecolor=face,
                markersize=5.5,
                linestyle="none",
            )
        axes.set_yticks(place, [_short(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if share:
            _percent(axes.xaxis)
        axes.margins(x=0.06)
        if limits:
            axes.set_xlim(*limits)
        return figure(canvas, name, caption, f"{caption} {_spoken(rows, share)}")


def curves(
    name: str,
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    share_x: bool = False,
    share_y: bool = True,
    log_x: bool = False,
    diagonal: bool = False,
    marked: Sequence[tuple[float, float, str]] = (),
) -> Figure:
    """Draws lines, told apart by colour, dashes and markers.

    Args:
      name: of the files.
      caption: what it shows.
      lines: at most as many as `STYLES`.
      x_label: of its axis.
      y_label: of its axis.
      share_x: whether x are shares in [0, 1], shown as per cent.
      share_y: likewise.
      log_x: whether x has a logarithmic scale, whose ticks are the points of the first line.
      diagonal: whether y = x is drawn.
      marked: points x, y with a word.
    """
    with drawn(3.4) as (canvas, axes):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (1, 2)))
        for line, (colour, dash, marker) in zip(lines, STYLES, strict=False):
            many = len(line.x) > 40
            axes.plot(
                line.x,
                line.y,
                color=colour,
                linestyle=dash,
                marker=marker if line.dots else None,
                markevery=max(1, len(line.x) // 12) if many else None,
                label=line.name,
            )
        for x, y, word in marked:
            axes.plot([x], [y], "*", color="black", markersize=11, linestyle="none", zorder=5)
            axes.annotate(word, (x, y), (5, 6), textcoords="offset points", fontsize=8.5)
        if log_x:
            axes.set_xscale("log")
            axes.set_xticks(lines[0].x, [f"{x:,.0f}" for x in lines[0].x])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
        for share, axis in ((share_x, axes.xaxis), (share_y, axes.yaxis)):
            if share:
                _percent(axis)
        if not share_x and not log_x:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(lines) > 1:
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(lines), 3), borderaxespad=0.2
            )
        ends = [
            f"{line.name}: {_said(line.y[0], share_y)} at {_said(line.x[0], share_x)}, "
            f"{_said(line.y[-1], share_y)} at {_said(line.x[-1], share_x)}"
            for line in lines
            if len(line.x)
        ]
        return figure(canvas, name, caption, f"{caption} {'; '.join(ends)}.")


def steps(name: str, caption: str, lines: Sequence[Line], names: Sequence[str]) -> Figure:
    """Draws shares at a few named places, each with its number.

    Args:
      name: of the files.
      caption: what it shows.
      lines: y in [0, 1] at x = 0, 1, …
      names: of the places.
    """
    with drawn(2.9) as (canvas, axes):
        for line, (colour, dash, marker) in zip(lines, STYLES, strict=False):
            axes.plot(line.x, line.y, color=colour, linestyle=dash, marker=marker, label=line.name)
            for x, y in zip(line.x, line.y, strict=True):
                axes.annotate(
                    f"{100 * y:.1f}",
                    (x, y),
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                )
        axes.set_xticks(range(len(names)), names)
        _percent(axes.yaxis)
        axes.margins(x=0.1, y=0.16)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
        said_all = "; ".join(
            f"{line.name}: "
            + ", ".join(
                f"{names[int(x)]} {_said(y, True)}" for x, y in zip(line.x, line.y, strict=True)
            )
            for line in lines
        )
        return figure(canvas, name, caption, f"{caption} {said_all}.")


def scatter(
    name: str,
    caption: str,
    x: np.ndarray,
    y: np.ndarray,
    means: Line,
    x_label: str,
    y_label: str,
    *,
    share_x: bool,
) -> Figure:
    """Draws a faint point a code, and means over codes of like x.

    Args:
      name: of the files.
      caption: what it shows.
      x: [N], shares, or counts on a logarithmic scale on which 0 has its place.
      y: [N], shares in [0, 1].
      means: their line.
      x_label: of its axis.
      y_label: of its axis.
      share_x: whether x are shares in [0, 1].
    """
    with drawn(3.4) as (canvas, axes):
        axes.plot(
            x,
            y,
            "o",
            color=BLUE,
            alpha=0.35 if len(x) <= MOST_POINTS else 0.08,
            markersize=3.5,
            markeredgewidth=0,
            linestyle="none",
            rasterized=len(x) > MOST_POINTS,
        )
        axes.plot(means.x, means.y, "-s", color="black", markersize=5, label=means.name)
        if share_x:
            _percent(axes.xaxis)
        else:
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=-0.3)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _thousands(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        _percent(axes.yaxis)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        said = ", ".join(
            f"{_said(b, True)} at {_said(a, share_x)}"
            for a, b in zip(means.x, means.y, strict=True)
        )
        return figure(canvas, name, caption, f"{caption} {means.name}: {said}.")


def heat(
    name: str,
    caption: str,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str,
    y_label: str,
) -> Figure:
    """Draws a table of shares as a heat map with its numbers.

    Args:
      name: of the files.
      caption: what it shows.
      values: [R, C], shares in [0, 1]; NaN where there is nothing.
      texts: of the cells.
      rows: their names.
      columns: their names.
      x_label: of the columns.
      y_label: of the rows.
    """
    with drawn(0.46 * len(rows) + 1.1, width=max(WIDTH, 0.95 * len(columns) + 1.6)) as pair:
        canvas, axes = pair
        axes.grid(visible=False)
        masked = np.ma.masked_invalid(values)
        # Up to 1.6: the darkest blue is then light enough for black numbers.
        axes.imshow(masked, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
        for row, line in enumerate(texts):
            for column, text in enumerate(line):
                axes.text(column, row, text, ha="center", va="center", fontsize=8.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        said = "; ".join(
            f"{rows[row]}: "
            + ", ".join(
                f"{columns[column]} {_said(values[row, column], True)}"
                for column in range(len(columns))
                if not np.isnan(values[row, column])
            )
            for row in range(len(rows))
        )
        return figure(canvas, name, caption, f"{caption} {said}.")


def _short(name: str) -> str:
    """A name that leaves room for the figure; the table beside it has all of it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _thousands(count: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g} {name}"
    return f"{count:g}"


def _percent(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _said(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:,.4g}"


def _spoken(rows: Sequence[Dot], share: bool) -> str:
    def said() -> Iterator[str]:
        by = 100 if share else 1
        for row in rows:
            ends = "" if np.isnan(row.low) else f" ({by * row.low:.1f} to {by * row.high:.1f})"
            yield f"{row.name}: {by * row.value:.1f}{ends}"

    more = len(rows) - SPOKEN
    rest = f"; and {more} more" if more > 0 else ""
    return "; ".join(itertools.islice(said(), SPOKEN)) + rest + "."
