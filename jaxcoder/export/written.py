"""What a format has written, as the model card tells it."""

from typing import NamedTuple

from jaxcoder.export.parity import Parity


class Written(NamedTuple):
    """A folder's network and what is known of it.

    Attributes:
      format: its name for people.
      files: from the name of each file to what it holds.
      usage: Markdown: an example that runs, and what it needs.
      parity: how far it is from the coder in JAX.
    """

    format: str
    files: dict[str, str]
    usage: str
    parity: Parity
