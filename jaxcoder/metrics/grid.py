"""The grid of thresholds at which predictions are counted."""

import numpy as np

# Above this many labels the grid is four times coarser, so that the counts of 70,000 labels take
# 130 MB, not 500.
MANY_LABELS = 8192

# Of the bins between thresholds the first holds probabilities of exactly 0, the last of exactly 1.
EXACT_BINS = (0, -1)


def threshold_grid(num_labels: int, threshold: float | None = None) -> np.ndarray:
    """Returns the thresholds at which everything is counted, exactly, in one pass.

    They lie evenly in log-odds, which is where probabilities of rare codes differ: 1/64 apart from
    −4 to 4 (steps of at most 0.004 in probability) and 1/16 apart from there to −16 and 12; four
    times as far apart for more than `MANY_LABELS` labels. Rounded to six digits, so that what a
    file shows is what was compared with. The first is 0 and the last the number before 1.

    Args:
      num_labels: L.
      threshold: one more threshold, in [0, 1], to count at; None puts 0.5 there twice.

    Returns:
      float32 [E], ascending; E depends on the number of labels alone.
    """
    coarser = 4 if num_labels > MANY_LABELS else 1
    inner = np.arange(-4 * 64, 4 * 64 + 1, coarser) / 64
    outer = np.arange(4 * 16 + coarser, 16 * 16 + 1, coarser) / 16
    log_odds = np.concatenate([-outer[::-1], inner, outer[outer <= 12]])
    probabilities = [float(f"{1 / (1 + np.exp(-x)):.6g}") for x in log_odds]
    probabilities += [0.0, np.nextafter(np.float32(1), np.float32(0))]
    probabilities.append(0.5 if threshold is None else threshold)
    return np.sort(np.array(probabilities, np.float32))


def place(edges_E: np.ndarray, threshold: float) -> int:
    """Returns the index of a threshold in a grid.

    Args:
      edges_E: float32 [E], from `threshold_grid`.
      threshold: in [0, 1].

    Raises:
      ValueError: it is not one that was counted at.
    """
    at = int(np.searchsorted(edges_E, np.float32(threshold)))
    if at == len(edges_E) or edges_E[at] != np.float32(threshold):
        raise ValueError(f"threshold = {threshold}: expected one of the thresholds counted at")
    return at


def tune(true_positives_E: np.ndarray, predicted_E: np.ndarray, gold: int) -> int:
    """Chooses the threshold with the highest micro-F1.

    Args:
      true_positives_E: predictions above each threshold that are gold.
      predicted_E: predictions above each threshold.
      gold: gold codes, those outside the label space included.

    Returns:
      Index of the best threshold; of several equally good ones the middle one, which is about
      0.5 when none finds a gold code.
    """
    f1_E = f1(true_positives_E, predicted_E, gold)
    best = np.flatnonzero(f1_E == f1_E.max())
    return int(best[len(best) // 2])


def f1(true_positives: np.ndarray, predicted: np.ndarray, gold: np.ndarray | int) -> np.ndarray:
    """Returns 2 tp / (predicted + gold), 0 where both are 0."""
    return 2 * true_positives / np.maximum(predicted + gold, 1)
