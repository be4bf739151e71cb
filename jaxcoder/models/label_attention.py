"""The label attention head: for every label its own look over the document, and one logit.

    laat   z_t = tanh(W1 h_t);  a_lt = softmax_t(w2_l · z_t);  logit_l = w3_l · Σ_t a_lt h_t + b_l
    cross  k_t = Wk h_t;  v_t = Wv h_t + bv;  a_lt = softmax_t(e_l · k_t)
           logit_l = w_o · LayerNorm(Σ_t a_lt v_t) + b_o

laat is the label attention of Vu et al. (2020, arXiv:2007.06351) as PLM-ICD has it (Huang et al.,
2022, arXiv:2207.05289), cross that of PLM-CA (Edin et al., 2024, arXiv:2406.08958). Both go label
chunk by label chunk, and [B, L, T] never exists where it is large. tests/reference/ compares both,
and training with them, with PyTorch written from the formulas.

Reference: where published implementations differ, as read in MiuLab/PLM-ICD
(src/modeling_roberta.py, src/run_icd.py), JoakimEdin/medical-coding-reproducibility
(src/models/plm_icd.py, src/models/modules/attention.py, src/data/datasets.py and transform.py) and
JoakimEdin/explainable-medical-coding (under explainable_medical_coding: models/models.py,
models/modules/attention.py, utils/loss_functions.py).

- Padding receives attention there, so that a document's logits depend on the longest one of its
  batch. laat has no mask in any of the three. cross is given one, but writes −inf into a boolean
  tensor, where it becomes true: all scores rise by 1, and the softmax is as without it.
  explainable-medical-coding moreover adds a whole chunk of padding to a batch whose length is a
  multiple of the chunk. Here padding has no weight, and logits depend on the document alone.
- The encoder's mask pads with the tokenizer's pad id in medical-coding-reproducibility; that is 1
  in RoBERTa, so that tokens see the padding of their chunk. Here they never do.
- Chunks are cut from the tokens of the whole document, with one start and one end token a document
  and positions from the first of each chunk; so it is here (`window` of the encoder).
- The first weights are normal, with deviation 0.03 in both of Edin's and the encoder's
  `initializer_range` in PLM-ICD's; the output bias is near 0 in all. Here products keep the
  variance of their input, and the output bias begins at the log-odds of a rare label
  (`bias_init`): otherwise each of thousands of labels begins at a probability of one half.
- The loss is there the mean over labels, here their sum (see `losses.coder_loss`).
- `scale`, which divides the scores of cross in explainable-medical-coding, is 1 in its
  configuration (config/model/plm_icd.yaml); it is left out here.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models import chunks
from jaxcoder.models.layers import MASKED, Product, weight
from jaxcoder.models.layout import Layout

KINDS = ("laat", "cross")


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """The shape of a label attention head.

    Attributes:
      init: an exported folder whose head is where this one starts, label by label; empty for random
        weights.
      kind: `laat` or `cross`.
      num_labels: L, the size of the label space.
      width: P, in which labels and tokens are compared; 0 for the encoder's.
      chunk: labels computed at a time; 0 to choose by memory, −1 for all at once and stored.
      bias_init: first value of the output bias, near the log-odds of a label's base rate.
      label_multiple: the label tables are padded to a multiple of it, for a mesh to split them.
    """

    init: str = ""
    kind: str = "laat"
    num_labels: int = 1
    width: int = 0
    chunk: int = 0
    bias_init: float = -5.0
    label_multiple: int = 8

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}: expected one of {', '.join(KINDS)}")
        for name in ("num_labels", "label_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        if self.width < 0:
            raise ValueError(f"width = {self.width}: expected at least 0")
        if self.chunk < -1:
            raise ValueError(f"chunk = {self.chunk}: expected labels, 0 (by memory) or -1 (all)")

    @property
    def rows(self) -> int:
        """Rows of the label tables: `num_labels` and its padding."""
        return -(-self.num_labels // self.label_multiple) * self.label_multiple


class LabelAttention(nn.Module):
    """States of a document to logits of all labels.

    Attributes:
      options: the head's.
      dtype: of activations; scores, softmax and logits are float32.
      norm_epsilon: of the layer norm in `cross`.
    """

    options: HeadOptions
    dtype: jnp.dtype
    norm_epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        h_BxTxD: jax.Array,
        valid_BxT: jax.Array,
        focus_BxK: jax.Array | None,
        layout: Layout,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns the logits, and the log attention of the labels in focus.

        Args:
          h_BxTxD: token states.
          valid_BxT: bool, false on padding.
          focus_BxK: label ids, −1 for none; or None.
          layout: how it is cut for the devices.

        Returns:
          logits float32 [B, L], and log attention float32 [B, K, T]: natural logarithms, about −1e9
          on padding, meaningless where the label is −1; None without focus.
        """
        options, dtype = self.options, self.dtype
        width, rows = h_BxTxD.shape[-1], options.rows
        inner = options.width or width
        # Small scores at the start: attention begins near the mean over the document.
        normal = nn.initializers.truncated_normal(0.03)

        def project(name: str, size: int, bias: bool) -> jax.Array:
            initializer = nn.initializers.lecun_normal()
            shape, axes = (width, size), ("width", None)
            return Product("", shape, axes, int(bias), (), dtype, initializer, name=name)(h_BxTxD)

        query_LxP = weight(self, "query", normal, (rows, inner), ("labels", "width"))
        bias_init = nn.initializers.constant(options.bias_init)
        mask_BxT = jnp.where(valid_BxT, 0.0, MASKED)
        if options.kind == "laat":
            keys_BxTxP = jnp.tanh(project("projection", inner, bias=False))
            output_LxD = weight(self, "output", normal, (rows, width), ("labels", "width"))
            bias_L = weight(self, "bias", bias_init, (rows,), ("labels",))
            logits_BxL = chunks.laat_logits(
                keys_BxTxP, h_BxTxD, query_LxP, output_LxD, mask_BxT, options.chunk, layout
            )
            logits_BxL = logits_BxL + bias_L[None]
        else:
            keys_BxTxP = project("key", inner, bias=False)
            values_BxTxP = project("value", inner, bias=True)
            output_P = weight(
                self, "output", nn.initializers.normal(inner**-0.5), (inner,), (None,)
            )
            bias = weight(self, "bias", bias_init, (1,), (None,))
            scale_P = weight(self, "norm_scale", nn.initializers.ones, (inner,), (None,))
            shift_P = weight(self, "norm_bias", nn.initializers.zeros, (inner,), (None,))
            logits_BxL = chunks.cross_logits(
                keys_BxTxP,
                values_BxTxP,
                query_LxP,
                (scale_P * output_P, jnp.dot(shift_P, output_P) + bias[0]),
                mask_BxT,
                self.norm_epsilon,
                options.chunk,
                layout,
            )
        logits_BxL = logits_BxL[:, : options.num_labels]
        if focus_BxK is None:
            return logits_BxL, None
        query_BxKxP = query_LxP[jnp.maximum(focus_BxK, 0)].astype(dtype)
        scores_BxKxT = jnp.einsum(
            "bkp,btp->bkt", query_BxKxP, keys_BxTxP, preferred_element_type=jnp.float32
        )
        return logits_BxL, jax.nn.log_softmax(scores_BxKxT + mask_BxT[:, None], axis=-1)
