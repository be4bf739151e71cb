"""`jaxcoder bench tokens`: how fast contact records become token records, against the tokenizer.

`bare` is `encode_batch` of Hugging Face tokenizers, on all cores, of the serialised contacts held
in memory. The others are all that `jaxcoder tokens` does once everything is fitted, in one process
or, their start included, in one for every core: contacts are read from disk, serialised and
tokenised, get labels and evidence, with silver search or without, and are written. Each time they
start with no text seen. Contacts are those of the synthetic cohort with notes of 500 words and 20
laboratory rows. Runs alternate; `of bare` is the median of the repeats' ratios of wall time.
"""

import dataclasses
import itertools
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from etils import epath
from tokenizers import Tokenizer

from jaxcoder import entry
from jaxcoder.records import builder as records_builder
from jaxcoder.records.runner import Local
from jaxcoder.records.schema import Contact
from jaxcoder.records.sources.synthetic.source import Synthetic
from jaxcoder.tokens.builder import TokensBuild, TokensOptions
from jaxcoder.tokens.lexicon import SilverOptions
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.report import SplitReport
from jaxcoder.tokens.serialise import serialise

_LABS = 20
_AT_A_TIME = 512  # texts that the bare tokenizer is given; more were no faster
_CHUNK = 64


class Ward(Synthetic):
    """The synthetic cohort, with more laboratory rows: each contact's own, over and over."""

    def patient(self, number: int) -> Iterator[Contact]:
        """The contacts of one patient."""
        for contact in super().patient(number):
            labs = itertools.islice(itertools.cycle(contact.labs), _LABS)
            yield dataclasses.replace(contact, labs=tuple(labs))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time and of CPU time, of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def steps(build: TokensBuild, contacts: Sequence[Contact]) -> dict[str, float]:
    """Microseconds of CPU time a contact in each step up to the record, without silver search."""
    maker, report = build.preprocessor, SplitReport()
    spent = dict.fromkeys(("read, decode", "serialise", "tokenise", "labels, evidence"), 0.0)
    clock = time.process_time
    for start in range(0, len(contacts), _CHUNK):
        marks = [clock()]
        chunk = contacts[start : start + _CHUNK]
        marks.append(clock())
        texts = [serialise(contact, build.options.serialise) for contact in chunk]
        marks.append(clock())
        documents = maker.encoder.join(texts)
        marks.append(clock())
        for contact, document in zip(chunk, documents, strict=True):
            maker.record(contact, document, report, silver=False)
        marks.append(clock())
        for name, (begin, end) in zip(spent, itertools.pairwise(marks), strict=True):
            spent[name] += end - begin
    return {name: seconds / len(contacts) * 1e6 for name, seconds in spent.items()}


def main(argv: Sequence[str]) -> None:
    """Prints contacts and tokens a second of both, their ratio, and where the time goes."""
    parser = entry.Parser(prog="jaxcoder bench tokens", description=__doc__)
    parser.add_argument(
        "--patients", type=int, default=8000, help="of the cohort, 2.7 contacts each"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each")
    parser.add_argument("--vocab_size", type=int, default=8000, help="of the tokenizer")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        _bench(epath.Path(name), arguments.patients, arguments.repeats, arguments.vocab_size)


def _bench(folder: epath.Path, patients: int, repeats: int, vocab_size: int) -> None:
    source = Ward(None, {"patients": patients, "note_words": 500})
    data = records_builder.build(source, folder, runner=Local(0), say=lambda line: None)
    options = TokensOptions(mini=MiniOptions(per_contact=0.0))
    options = dataclasses.replace(
        options, tokenizer=dataclasses.replace(options.tokenizer, vocab_size=vocab_size)
    )
    plain = dataclasses.replace(options, silver=SilverOptions(enabled=False))
    builds = {"plain": TokensBuild(data, plain), "silver": TokensBuild(data, options)}
    forms = {
        "one process": ("plain", Local(1)),
        "all cores": ("plain", Local(0)),
        "one, silver": ("silver", Local(1)),
        "all, silver": ("silver", Local(0)),
    }
    texts, words, labs = [], 0, 0  # contacts are not held: the stage holds none either
    for contact in itertools.chain.from_iterable(map(data.split, data.splits)):
        texts.append(serialise(contact, options.serialise).text)
        words += sum(len(note.text.split()) for note in contact.notes)
        labs += len(contact.labs)
    builds["plain"].tokenizer.save(folder / "tokenizer")
    backend = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))

    def bare() -> int:
        return sum(
            len(each)
            for start in range(0, len(texts), _AT_A_TIME)
            for each in backend.encode_batch(
                texts[start : start + _AT_A_TIME], add_special_tokens=False
            )
        )

    def stage(form: str) -> None:
        name, runner = forms[form]
        build = builds[name]
        build.preprocessor = pickle.loads(pickle.dumps(build.preprocessor))  # has seen no text
        build.write(folder / "token_records" / name / "1.0.0", {}, folder, runner)

    tokens = bare()
    times: dict[str, list[tuple[float, float]]] = {"bare": [], **{form: [] for form in forms}}
    for _ in range(repeats):
        times["bare"].append(timed(bare))
        for form in forms:
            times[form].append(timed(lambda form=form: stage(form)))  # type: ignore[misc]
    count = len(texts)
    print(
        f"{os.cpu_count()} cores; {count:,} contacts; {words / count:.0f} words, "
        f"{labs / count:.0f} laboratory rows, {tokens / count:.0f} tokens a contact"
    )
    print(f"{'':<12}{'contacts/s':>12}{'tokens/s':>12}{'of bare':>9}")
    for form, runs in times.items():
        wall = statistics.median(wall for wall, _ in runs)
        ratio = statistics.median(
            bare / run for (bare, _), (run, _) in zip(times["bare"], runs, strict=True)
        )
        print(f"{form:<12}{count / wall:>12,.0f}{tokens / wall:>12,.0f}{ratio:>9.2f}")
    build = builds["plain"]
    build.preprocessor = pickle.loads(pickle.dumps(build.preprocessor))
    spent = steps(build, data.split("train"))
    bare_us, whole, with_silver = (
        statistics.median(cpu for _, cpu in times[form]) / count * 1e6
        for form in ("bare", "one process", "one, silver")
    )
    spent |= {"encode, write": whole - sum(spent.values()), "silver search": with_silver - whole}
    print(
        f"CPU us a contact: bare {bare_us:.0f}; one process {whole:.0f}: "
        + ", ".join(f"{name} {us:.0f}" for name, us in spent.items())
    )


if __name__ == "__main__":
    entry.run(main)
