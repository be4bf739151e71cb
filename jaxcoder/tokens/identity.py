"""What decides token records: the name of a data set comes from it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.data import ContactData
from jaxcoder.tokens.data import VERSION

# Options that name a file or a folder: its content counts, not its place.
_PATHS = (("tokenizer", "path"), ("labels", "extra"), ("labels", "descriptions"))


def of(contacts: ContactData, options: Any) -> dict[str, Any]:
    """What decides every record, as JSON values.

    Args:
      contacts: the contact records.
      options: `builder.TokensOptions`.

    Raises:
      UserError: a file that an option names is not there.
    """
    chosen = dataclasses.asdict(options)
    for group, key in _PATHS:
        if chosen[group][key]:
            chosen[group][key] = _digest(epath.Path(chosen[group][key]), f"{group}.{key}")
    content = {"contacts": contacts.identity, "options": chosen, "version": VERSION}
    return json.loads(json.dumps(content))


def _digest(path: epath.Path, key: str) -> str:
    """A hash of a file's content, or of the JSON files in a folder."""
    if not path.exists():
        raise UserError(f"config.tokens.{key} = {path}: not found")
    digest = hashlib.blake2b(digest_size=8)
    files = [path]
    if path.is_dir():
        files = sorted((each for each in path.iterdir() if each.name.endswith(".json")), key=str)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def name(contacts: ContactData, identity: Mapping[str, Any]) -> str:
    """The name of token records: that of their contacts, and a hash of what decides them."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return f"{contacts.name}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
