"""The page: sections made of tables, figures and words, as one HTML file that needs no network."""

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jinja2

from jaxcoder.report.canvas import Figure


@dataclasses.dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "words"


@dataclasses.dataclass(frozen=True)
class Absent:
    """What would be here, why it is not, and the command that makes it.

    Attributes:
      what: it is.
      reason: why it is not there.
      command: what makes it; empty where none does.
    """

    what: str
    reason: str
    command: str = ""
    kind: ClassVar[str] = "absent"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
      caption: what it is.
      columns: their heads; all but the first, and those of `texts`, stand to the right.
      rows: of cells as they are shown.
      texts: further columns of text.
      folded: whether it opens only when asked.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str] = ()
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Listing:
    """A large table that is searched, sorted and turned over page by page.

    Attributes:
      caption: what it is.
      columns: key, head, and `text`, `count` or `percent` (of a share in [0, 1]) of each.
      values: by key, one a row; None where there is none.
      file: where the same stands, for those without JavaScript.
    """

    caption: str
    columns: Sequence[tuple[str, str, str]]
    values: Mapping[str, Sequence[Any]]
    file: str
    kind: ClassVar[str] = "listing"

    @property
    def json(self) -> str:
        """Its content, safe inside a script element: no `<` can end that early."""
        columns = [{"key": key, "head": head, "kind": kind} for key, head, kind in self.columns]
        content = {"columns": columns, "values": self.values}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c")


@dataclasses.dataclass(frozen=True)
class Folded:
    """Text that opens only when asked, such as a config."""

    title: str
    text: str
    kind: ClassVar[str] = "folded"


@dataclasses.dataclass(frozen=True)
class Beside:
    """Parts side by side, as far as there is room."""

    parts: Sequence["Words | Table | Figure"]
    kind: ClassVar[str] = "beside"


Part = Words | Absent | Table | Figure | Listing | Folded | Beside


@dataclasses.dataclass(frozen=True)
class Section:
    """A section.

    Attributes:
      key: its anchor.
      title: its heading.
      lead: one sentence: what is seen, and how to read it.
      parts: what it is made of.
    """

    key: str
    title: str
    lead: str
    parts: Sequence[Part]

    @property
    def figures(self) -> list[Figure]:
        """Its figures, those that stand side by side too."""
        parts = [each for part in self.parts for each in getattr(part, "parts", (part,))]
        return [part for part in parts if isinstance(part, Figure)]


@dataclasses.dataclass(frozen=True)
class Tile:
    """One number at the head of the page."""

    name: str
    value: str
    note: str = ""


def render(title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """Makes the page.

    Args:
      title: its heading.
      subtitle: the line below.
      tiles: numbers that are looked at first.
      sections: in order.

    Returns:
      HTML with its style, script and figures inside.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcoder.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = _inline
    return environment.get_template("report.html.jinja").render(
        title=title, subtitle=subtitle, tiles=tiles, sections=sections
    )


def _inline(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(figure.svg).decode()
