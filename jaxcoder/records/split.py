"""Which split a patient belongs to."""

import hashlib
from collections.abc import Sequence

from jaxcoder.records.schema import SPLITS


def split_of(patient_id: str, seed: int = 0, shares: Sequence[float] = (0.8, 0.1, 0.1)) -> str:
    """The split of a patient, and so of all of the patient's contacts, from a hash.

    It depends on nothing but the arguments: more patients, another order or another machine change
    no patient's split.

    Args:
      patient_id: the patient's id.
      seed: another seed gives an independent split.
      shares: of train, validation and test; they sum to 1.

    Returns:
      `train`, `validation` or `test`.

    Raises:
      ValueError: shares that are negative or do not sum to 1.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"shares = {tuple(shares)}: expected three shares from 0 to 1 that sum to 1"
        )
    digest = hashlib.blake2b(f"{seed}:{patient_id}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for split, share in zip(SPLITS, shares, strict=True):
        if place < share:
            return split
        place -= share
    return next(
        split for split, share in reversed(list(zip(SPLITS, shares, strict=True))) if share > 0
    )


def parse_shares(text: str) -> tuple[float, ...]:
    """Reads shares as a command line has them: `0.8,0.1,0.1`."""
    return tuple(float(share) for share in text.split(","))
