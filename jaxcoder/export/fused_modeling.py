"""The coder with its lexicon, as a model of transformers."""

from jaxcoder.export.fused_reader import FusedReader
from jaxcoder.export.modeling import JaxcoderModel


class FusedJaxcoderModel(JaxcoderModel):
    """A coder that is fused with a lexicon of what stood for its codes in training."""

    reader_class = FusedReader
