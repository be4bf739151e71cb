"""The coder as a model of transformers: from contacts to ICD codes with probabilities."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file

from jaxcoder.export.encoder import ENCODERS
from jaxcoder.export.label_attention import HEADS
from jaxcoder.export.reader import Reader

CODE, TOKENIZER_CONFIG = "modeling_jaxcoder.py", "tokenizer_config.json"
BATCH_TOKENS = 16_384
"""Tokens, padding included, that `predict` computes at a time."""


class JaxcoderConfig(PretrainedConfig):
    """What `config.json` says.

    Attributes:
      encoder: the shape of the encoder: family, width, layers, window, ...
      head: that of the label attention: kind, num_labels, width.
      reading: which sections of a contact are read, and how many tokens of them.
      special: ids of the start and the end token of a document.
      threshold: probability that an assigned code exceeds.
      fusion: how network and lexicon are fused; None where the network stands alone.
    """

    model_type = "jaxcoder"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        reading: Mapping[str, Any] | None = None,
        special: Mapping[str, int] | None = None,
        threshold: float = 0.5,
        fusion: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.encoder, self.head = dict(encoder or {}), dict(head or {})
        self.reading, self.special = dict(reading or {}), dict(special or {})
        self.threshold, self.fusion = threshold, fusion
        super().__init__(**kwargs)


class JaxcoderModel(PreTrainedModel):
    """Encoder and label attention; `predict` takes contacts as they are.

    Weights of the encoder have the names of the published models of its family. There is no
    dropout: training goes on in jaxcoder.
    """

    config_class = JaxcoderConfig
    reader_class = Reader

    def __init__(self, config: JaxcoderConfig) -> None:
        super().__init__(config)
        shape, head = config.encoder, config.head
        self.encoder = ENCODERS[shape["family"]](shape)
        self.head = HEADS[head["kind"]](
            head["num_labels"], shape["width"], head["width"] or shape["width"]
        )
        self._reader: Reader | None = None
        self._files: dict[str, str] = {}
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a coder; arguments as of `transformers.PreTrainedModel.from_pretrained`."""
        name = pretrained_model_name_or_path
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        where = {key: kwargs[key] for key in hub if key in kwargs}
        loaded = super().from_pretrained(name, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        needed = (*cls.reader_class.names, TOKENIZER_CONFIG, CODE)
        model._files = {file: str(cached_file(name, file, **where)) for file in needed}
        model._reader = cls.reader_class(model._files, model.config.to_dict())
        return loaded

    @property
    def reader(self) -> Reader:
        """What makes token ids of contacts, and codes of logits."""
        if self._reader is None:
            raise ValueError("this model has no tokenizer: load it with from_pretrained")
        return self._reader

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Saves a coder with all that belongs to it, to be loaded as this one was."""
        super().save_pretrained(save_directory, *args, **kwargs)
        for file, path in self._files.items():
            target = os.path.join(save_directory, file)
            if not (os.path.exists(target) and os.path.samefile(path, target)):
                shutil.copyfile(path, target)

    def _init_weights(self, module: nn.Module) -> None:
        """Weights are loaded; those of a coder made without them stay as PyTorch makes them."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Computes the network's logits.

        Args:
          input_ids: int64 [B, T], as from `Reader.batch`; padding stands at the end.
          attention_mask: int64 [B, T], 0 on padding; None for no padding.

        Returns:
          `logits` float32 [B, L].
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        real_BxT = attention_mask != 0
        h_BxTxD = self.encoder(input_ids, real_BxT)
        return SequenceClassifierOutput(logits=self.head(h_BxTxD, real_BxT))

    @torch.inference_mode()
    def predict(
        self,
        contacts: Sequence[str | Mapping[str, Any]],
        top: int = 15,
        *,
        threshold: float | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[dict[str, Any]]:
        """Codes contacts.

        Args:
          contacts: texts, or objects such as {"contact_id": "1", "notes": [{"kind": "discharge",
            "time": "2024-02-01", "text": "..."}], "medications": [{"code": "B01AC06"}], "labs":
            [{"name": "Troponin I", "value": "412", "unit": "ng/L", "high": 14}], "age": 63}.
          top: codes a contact, beside further assigned ones.
          threshold: probability that an assigned code exceeds; the tuned one when None.
          batch_tokens: tokens, padding included, computed at a time.

        Returns:
          For each contact {"contact_id", "codes": [{"code", "description", "probability",
          "assigned"}]}: the `top` most probable codes in falling order, and every assigned one.

        Raises:
          ValueError: a contact that is none, or holds nothing to code.
        """
        self.eval()
        documents = self.reader.documents(contacts)
        found: dict[int, dict[str, Any]] = {}
        batches = by_length([len(each.ids) for each in documents], batch_tokens)
        for rows in tqdm(batches, unit="batch", disable=None, leave=False):
            batch = [documents[row] for row in rows]
            tokens, mask = (torch.from_numpy(x).to(self.device) for x in self.reader.batch(batch))
            logits_BxL = self(tokens, mask).logits.float().cpu().numpy()
            predicted = self.reader.predictions(batch, logits_BxL, top, threshold)
            found.update(zip(rows, predicted, strict=True))
        return [found[row] for row in range(len(documents))]


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches of documents of like length, of at most so many tokens, padding included."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):  # the longest first
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
