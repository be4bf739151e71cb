r"""From contact records to token records.

    jaxcoder tokens --config configs/demo.py --data_dir data
    jaxcoder tokens --config configs/codiesp.py:language=en --data_dir data \
        --config.tokens.tokenizer.vocab_size=16000

The config's groups `records` and `tokens` say which contacts and how; of the rest only
`model.encoder.init` is read, for its tokenizer. Contact records that are not there yet are built
first. Records, label space, tokenizer and tokens_report.json go to
DATA_DIR/token_records/NAME-HASH/VERSION, where the hash is that of everything that decides them:
another choice of options never overwrites them.
"""

import dataclasses
import signal
from collections.abc import Mapping
from typing import Any

from absl import flags

from jaxcoder import entry, hub
from jaxcoder.records import builder as records_builder
from jaxcoder.records import runner
from jaxcoder.records.builder import RecordsOptions
from jaxcoder.settings import build
from jaxcoder.tokens import builder
from jaxcoder.tokens.builder import TokensOptions
from jaxcoder.tokens.report import table


@dataclasses.dataclass(frozen=True)
class _Groups:
    """What this command reads of an experiment; all of it would bring JAX."""

    data_dir: str = "data"
    records: RecordsOptions = dataclasses.field(default_factory=RecordsOptions)
    tokens: TokensOptions = dataclasses.field(default_factory=TokensOptions)


@dataclasses.dataclass(frozen=True)
class _Encoder:
    init: str = ""


@dataclasses.dataclass(frozen=True)
class _Model:
    encoder: _Encoder = _Encoder()


@dataclasses.dataclass(frozen=True)
class _Known(_Groups):
    """With the key of the rest, which can be set whether the file has it or not."""

    model: _Model = _Model()


def define_flags() -> None:
    """Declares the command's flags."""
    entry.define_config_flag(_Known)
    flags.DEFINE_string("data_dir", "", "Folder of the data sets; the config's when empty.")
    flags.DEFINE_integer("jobs", 0, "Processes; all cores unless given.")
    flags.DEFINE_string("runner", "", f"{runner.RUNNER_HELP}.")
    flags.DEFINE_multi_string("beam_option", [], f"{runner.OPTION_HELP}.")
    flags.DEFINE_bool("rebuild", False, "Build token records even if they are there.")


def main() -> None:
    """Builds token records and prints their report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as at Ctrl-C
    config = flags.FLAGS.config.to_dict()
    known = {field.name for field in dataclasses.fields(_Groups)}
    groups = build(_Groups, {key: config[key] for key in known & config.keys()}, "config")
    groups = _with_tokenizer(groups, config)
    data_dir = flags.FLAGS.data_dir or groups.data_dir
    run = runner.open_runner(
        flags.FLAGS.runner, flags.FLAGS.jobs, flags.FLAGS.beam_option, data_dir
    )
    contacts = records_builder.build(
        groups.records.open(), data_dir, source_dir=groups.records.source_dir, runner=run
    )
    data = builder.build(contacts, data_dir, groups.tokens, rebuild=flags.FLAGS.rebuild, runner=run)
    print(table(data.report))
    print(f"Token records {data.path}")


def _with_tokenizer(groups: _Groups, config: Mapping[str, Any]) -> _Groups:
    """As training has it: an encoder that starts from a checkpoint brings its tokenizer."""
    name = config.get("model", {}).get("encoder", {}).get("init", "")
    if not name or groups.tokens.tokenizer.path:
        return groups
    tokenizer = dataclasses.replace(groups.tokens.tokenizer, path=str(hub.folder(name)))
    return dataclasses.replace(
        groups, tokens=dataclasses.replace(groups.tokens, tokenizer=tokenizer)
    )


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
