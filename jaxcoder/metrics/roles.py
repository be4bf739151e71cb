"""F1 of codes by how often they are secondary, and by how often training had them.

Secondary diagnoses are rarer than primary ones, and rare codes are harder: only codes of like
frequency tell what the role does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FREQUENCIES = (0, 1, 10, 100, 1_000, 10_000, 100_000)


def role_rows(codes: Sequence[Mapping[str, Any]]) -> list[dict[str, float | int | str]]:
    """Sums the codes that the split holds up into bins of share × frequency.

    Args:
      codes: rows with support, tp, fp, fn, f1, share_secondary (NaN where no role is known) and
        train_support.

    Returns:
      A row for each bin with codes: share_low, share_high (the last bin holds both its ends; NaN
      for codes of unknown roles, which come last), train_low, train_high (occurrences in the
      training split, both ends within; NaN where there is no end), codes, occurrences, macro_f1,
      the mean of the codes' F1, and micro_f1, that of their counts together.
    """
    held = [row for row in codes if row["support"]]
    counts = ("support", "tp", "fp", "fn")
    support, tp, fp, fn = (np.array([row[key] for row in held], np.int64) for key in counts)
    keys = ("f1", "share_secondary", "train_support")
    f1, share, frequency = (np.array([row[key] for row in held], float) for key in keys)
    share_bin = np.searchsorted(_SHARES[:-1], share, side="right") - 1
    share_bin[np.isnan(share)] = len(_SHARES) - 1
    frequency_bin = np.searchsorted(_FREQUENCIES, frequency, side="right") - 1
    lows, highs = (*_SHARES[:-1], np.nan), (*_SHARES[1:], np.nan)
    lasts = [*(first - 1 for first in _FREQUENCIES[1:]), float("nan")]
    rows: list[dict[str, float | int | str]] = []
    for one, other in sorted(set(zip(share_bin.tolist(), frequency_bin.tolist(), strict=True))):
        mine = (share_bin == one) & (frequency_bin == other)
        hits = int(tp[mine].sum())
        rows.append(
            {
                "share_low": lows[one],
                "share_high": highs[one],
                "train_low": _FREQUENCIES[other],
                "train_high": lasts[other],
                "codes": int(mine.sum()),
                "occurrences": int(support[mine].sum()),
                "macro_f1": float(f1[mine].mean()),
                "micro_f1": 2 * hits / int(2 * hits + fp[mine].sum() + fn[mine].sum()),
            }
        )
    return rows
