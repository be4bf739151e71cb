"""Published splits: files of ids."""

import pyarrow as pa
from etils import epath
from pyarrow import csv, feather

from jaxcoder.errors import UserError

_IDS = ("contact_id", "hadm_id", "visit_occurrence_id", "_id")
_FIRST = "f0"
"""What pyarrow calls the first column of a file without a header."""


def read_splits(path: str) -> pa.Table:
    """Reads a published split.

    Args:
      path: as in `folder_source.FolderOptions`.

    Returns:
      Columns contact_id and split, text.

    Raises:
      UserError: a file that is not there, cannot be read, or lacks a column.
    """
    if "{}" in path:
        lists = []
        for split in ("train", "dev", "test"):
            ids = _read(path.replace("{}", split), header=False).column(0).cast(pa.string())
            lists.append(pa.table({"contact_id": ids, "split": pa.repeat(split, len(ids))}))
        return pa.concat_tables(lists)
    table = _read(path, header=True)
    found = [name for name in _IDS if name in table.column_names]
    if not found or "split" not in table.column_names:
        raise UserError(
            f"{path}: columns {', '.join(table.column_names)}; expected split, and "
            f"{' or '.join(_IDS)}"
        )
    return pa.table(
        {
            key: table.column(name).cast(pa.string())
            for key, name in (("contact_id", found[0]), ("split", "split"))
        }
    )


def _read(name: str, header: bool) -> pa.Table:
    path = epath.Path(name)
    try:
        with path.open("rb") as file:
            if path.suffix == ".feather":
                return feather.read_table(file)
            read = csv.ReadOptions(autogenerate_column_names=not header)
            # As text, so that ids keep their leading zeros.
            texts = dict.fromkeys((*_IDS, "split", _FIRST), pa.string())
            convert = csv.ConvertOptions(column_types=texts)
            return csv.read_csv(file, read_options=read, convert_options=convert)
    except FileNotFoundError:
        raise UserError(f"option splits = {name}: {path} is not there") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"option splits: {path} cannot be read ({type(error).__name__}); expected a feather or "
            "CSV file"
        ) from None
