"""`jaxcoder report`: the numbers of the page are those of the files, and mistakes are one line."""

import csv
import html
import html.parser
import json
import re
import shutil

import pytest

from jaxcoder import cli, evaluate
from jaxcoder.report import __main__ as command
from jaxcoder.report import inputs


def report(*arguments):
    """Runs the command, returns its exit status."""
    try:
        cli.main(["report", *map(str, arguments)])
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    """The folder of a report."""
    folder = tmp_path_factory.mktemp("written")
    assert report("--workdir", finished, "--output", folder, "--no_evaluate") == 0
    return folder


@pytest.fixture(scope="module")
def page(written):
    return (written / "index.html").read_text()


class Reader(html.parser.HTMLParser):
    """Collects tables as rows of cells, headings, images and what the page would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.headings, self.images, self.fetched, self.heads = [], [], [], [], []
        self._cell = self._caption = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th", "caption", "h1", "h2", "h3"):
            self._cell = ""
        if tag == "th":
            self.heads.append(attributes.get("scope"))
        if tag == "img":
            self.images.append(attributes)
        for name in ("src", "href"):
            if name in attributes:
                self.fetched.append(attributes[name])

    def handle_data(self, data):
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell)
        elif tag in ("h1", "h2", "h3"):
            self.headings.append((tag, self._cell))
        if tag in ("td", "th", "caption", "h1", "h2", "h3"):
            self._cell = None

    def table(self, head):
        """The one whose first head this is, from the name of a row to its cells."""
        (found,) = [each for each in self.tables if each and each[0][0] == head]
        return {row[0]: dict(zip(found[0], row, strict=True)) for row in found[1:]}


@pytest.fixture(scope="module")
def read(page):
    return Reader(page)


def rows(folder, name):
    with (folder / "eval" / "test" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def per_cent(value):
    return f"{100 * float(value):.1f}"


def test_the_headline_is_that_of_the_files(finished, read):
    metrics = json.loads((finished / "eval" / "test" / "metrics.json").read_text())
    everybody = rows(finished, "groups")[0]
    table = read.table("measure")
    for name, title in (("micro_f1", "micro-F1"), ("recall_at_10", "recall@10"), ("map", "MAP")):
        assert table[title]["this run"] == per_cent(metrics[name])
        low, high = everybody[f"{name}_low"], everybody[f"{name}_high"]
        assert table[title]["95 % interval"] == f"{per_cent(low)}–{per_cent(high)}"
    assert table["macro-F1"]["this run"] == per_cent(metrics["macro_f1"])
    assert table["micro-F1"]["Edin et al. 2026"] == "71.8"
    assert table["recall@10"]["Edin et al. 2026"] == "95.5"
    values = [
        float(row["micro_f1"])
        for row in rows(finished, "groups")
        if row["grouping"] == "specialty" and row["group"] != "unknown" and row["micro_f1_low"]
    ]
    assert values
    both = f"{per_cent(min(values))}–{per_cent(max(values))}"
    what = f"micro-F1, lowest to highest of {len(values)} specialties with an interval"
    assert table[what]["this run"] == both
    assert read.table("coder")["baseline: lexicon"]["micro-F1"] == "12.3"


def test_every_group_is_in_a_table(finished, read):
    titles = {"sex": "sex", "age": "age in years", "year": "year", "notes": "number of notes"}
    titles |= {"tokens": "length in tokens"}
    cells = {row[0]: row for table in read.tables if table for row in table[1:]}
    seen = set()
    for row in rows(finished, "groups")[1:]:
        seen.add(row["grouping"])
        title = titles.get(row["grouping"])
        found = cells[f"{title}: {row['group']}" if title else row["group"]]
        assert found[1:3] == [f"{int(row['contacts']):,}", f"{int(row['patients']):,}"]
        assert found[4] == per_cent(row["micro_f1"])
    assert seen == {"specialty", *titles}


def test_roles_and_granularity_are_those_of_the_files(finished, read):
    table = read.table("share secondary")
    (row,) = [
        row
        for row in rows(finished, "roles")
        if (row["share_low"], row["train_low"]) == ("0.8", "10")
    ]
    (found,) = [
        cells
        for cells in next(each for each in read.tables if each[0][0] == "share secondary")[1:]
        if cells[:2] == ["80–100 % secondary", "10–99"]
    ]
    assert len(table) == 5
    assert found[2:] == [
        row["codes"],
        row["occurrences"],
        per_cent(row["macro_f1"]),
        per_cent(row["micro_f1"]),
    ]
    table = read.table("granularity")
    for row in rows(finished, "granularity"):
        assert table[row["granularity"]]["micro-F1"] == per_cent(row["micro_f1"])
        assert table[row["granularity"]]["macro-F1"] == per_cent(row["macro_f1"])


def test_calibration_and_cuts_are_those_of_the_metrics(finished, read):
    from jaxcoder.metrics import automation, calibration
    from jaxcoder.report.inputs import Run

    test, validation = (Run(finished).evaluation(split) for split in ("test", "validation"))
    one, other = (
        calibration.Reliability.of(each.table("reliability")) for each in (validation, test)
    )
    ece = calibration.scores(other, calibration.fit_isotonic(one))["ece_adaptive"]
    assert read.table("probabilities")["isotonic"]["adaptive ECE, %"] == f"{100 * ece:.2f}"
    points = automation.operating_points(
        *(automation.Contacts.of(each.contacts) for each in (validation, test))
    )
    table = read.table("quality, at least")
    assert len(table) == len(points) == 9
    for row in points:
        title = {"exact_match": "exact match", "jaccard": "Jaccard", "f1": "F1 of the contact"}
        found = table[f"{title[row['quality']]} {row['target']:.0%}".replace("%", " %")]
        assert found["recall@10"] == per_cent(row["rest_recall_at_10"])
        certified = row["confidence"] is not None
        expected = per_cent(row["test_share"]) if certified else "not certified"
        assert found["share automated"] == expected


def test_every_code_is_in_the_listing(finished, page):
    content = re.search(r'type="application/json" id="listing-codes">(.*?)</script>', page)[1]
    values = json.loads(content)["values"]
    for place, row in enumerate(rows(finished, "codes")):
        assert values["code"][place] == row["code"]
        assert values["support"][place] == int(row["support"])
        assert values["predicted"][place] == int(row["tp"]) + int(row["fp"])
        assert values["f1"][place] == pytest.approx(float(row["f1"]), abs=5e-4)
        known = row["share_secondary"] != ""
        assert (values["share_secondary"][place] is not None) == known


def test_what_is_not_there_is_named_with_its_command(finished, page):
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "Learning curve: not here." in text
    assert "jaxcoder learning_curve --config CONFIG" in text
    assert "By kind: not here. The records do not know it of any contact" in text


def test_all_sections_stand_even_where_nothing_is_known(workdir, tmp_path):
    """An evaluation of an older version has metrics.json and little else."""
    for name in ("contacts.parquet", "groups.csv", "roles.csv", "granularity.csv", "codes.csv"):
        (workdir / "eval" / "test" / name).unlink()
    (workdir / "eval" / "test" / "reliability.csv").unlink()
    for path in (workdir / "eval" / "test").glob("*_*"):
        shutil.rmtree(path)
    (workdir / "train_metrics.jsonl").unlink()
    shutil.rmtree(workdir / "data")
    assert report("--workdir", workdir, "--output", tmp_path / "out", "--no_evaluate") == 0
    text = (tmp_path / "out" / "index.html").read_text()
    titles = [title for level, title in Reader(text).headings if level == "h2"]
    assert titles == SECTIONS
    absent = re.findall(r"<strong>(.*?): not here\.</strong>", text)
    for what in ("Intervals", "By specialty", "Roles and frequency", "Granularity", "Codes"):
        assert what in absent
    for what in ("Calibration", "Automation", "Training curves", "Data summary", "Baselines"):
        assert what in absent
    assert f"jaxcoder evaluate --workdir {workdir} --split test" in text


SECTIONS = [
    "Scores",
    "By specialty and other groups",
    "Secondary diagnoses and rare codes",
    "Granularity",
    "Calibration",
    "Automation",
    "Each code",
    "Training",
    "Data",
    "How this was made",
]


def test_headings_are_in_order_and_all_is_described(read):
    assert [level for level, _ in read.headings] == ["h1", *["h2"] * len(SECTIONS)]
    assert [title for _, title in read.headings[1:]] == SECTIONS
    assert set(read.heads) == {"col", "row"}
    assert len(read.images) == 14 and all(len(image["alt"]) > 40 for image in read.images)


def test_the_page_stands_alone(read):
    own = [each for each in read.fetched if not each.startswith(("#", "data:"))]
    assert own == []


def test_figures_lie_beside_the_page(written, read):
    svg, png = ({path.stem for path in written.glob(f"*.{kind}")} for kind in ("svg", "png"))
    assert svg == png and len(svg) == len(read.images)


def test_nobody_is_named(written):
    """Neither patients nor contacts, nor the examples of a data report, nor a password."""
    for path in written.iterdir():
        content = path.read_bytes()
        assert b"secret" not in content and b"word@" not in content, path
        assert b"password=word" not in content


def test_what_was_left_out_is_told(read):
    assert read.table("reason")["rows of no contact"]["rows"] == "17"
    assert read.table("split")["test"]["contacts"] == "240"


def test_a_report_is_the_same_again(finished, written, tmp_path):
    again = tmp_path / "again"
    assert report("--workdir", finished, "--output", again, "--no_evaluate") == 0
    for path in written.iterdir():
        one, other = (each.read_bytes() for each in (path, again / path.name))
        one, other = (
            each.replace(str(each_folder).encode(), b"")
            for each, each_folder in ((one, written), (other, again))
        )
        assert one == other, path.name


def test_beside_another_run_and_a_learning_curve(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "better")
    (tmp_path / "learning_curve.csv").write_text(
        "share,patients,contacts,micro_f1,recall_at_10\n0.1,9,20,0.4,0.5\n1,90,200,0.7,0.8\n"
    )
    out = tmp_path / "out"
    flags = ["--workdir", workdir, "--no_evaluate", "--output", out]
    assert report(*flags, "--compare", tmp_path / "better") == 0
    found = Reader((out / "index.html").read_text())
    assert found.headings[2] == ("h2", "Beside better")
    (table,) = [each for each in found.tables if each[0][:3] == ["measure", "run", "better"]]
    assert table[1][3:] == ["+0.0", "+0.0 to +0.0", "may be alike"]
    assert (out / "difference.svg").exists()
    texts = set(re.findall(r">([^<>]+)</text>", (out / "learning_curve.svg").read_text()))
    assert inputs.read_curve(tmp_path) == inputs.read_curve(tmp_path / "learning_curve.csv")
    assert {"9", "90", "training patients"} <= texts and not {"20", "200"} & texts


def test_without_roles_their_absence_is_said(make_workdir, tmp_path):
    workdir = make_workdir(tmp_path / "run", contacts=60, roles=False)
    assert report("--workdir", workdir, "--no_evaluate") == 0
    text = (workdir / "report" / "index.html").read_text()
    assert "F1 by share secondary: not here.</strong> No code has a known role" in text
    assert not (workdir / "report" / "f1_by_share_secondary.svg").exists()
    (found,) = [each for each in Reader(text).tables if each[0][0] == "share secondary"]
    assert {row[0] for row in found[1:]} == {"role unknown"}


def test_validation_is_not_judged_on_itself(workdir):
    assert report("--workdir", workdir, "--split", "validation", "--no_evaluate") == 0
    text = (workdir / "report" / "index.html").read_text()
    assert "Calibration: not here." in text and "Automation: not here." in text


def test_what_was_never_evaluated_is_evaluated(workdir, monkeypatch):
    """By `jaxcoder evaluate`, with the same flags as a user would give."""
    kept = workdir / "kept"
    (workdir / "eval").rename(kept)
    (workdir / "eval").mkdir()
    asked = []

    def main():
        from absl import flags

        asked.append((flags.FLAGS.workdir, flags.FLAGS.split, flags.FLAGS.data_dir))
        (kept / flags.FLAGS.split).rename(workdir / "eval" / flags.FLAGS.split)

    monkeypatch.setattr(evaluate, "main", main)
    assert report("--workdir", workdir, "--data_dir", workdir / "data") == 0
    data = str(workdir / "data")
    assert asked == [(str(workdir), split, data) for split in ("validation", "test")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no_evaluate"], r"eval/test: not there; run `jaxcoder evaluate --workdir .* --split t"),
        (["--no_evaluate", "--split", "train"], "eval/train: not there; run `jaxcoder evaluate"),
        (["--split", "tset"], "argument --split: invalid choice"),
        (["--curve", "nowhere.csv"], "--curve nowhere.csv: not found; expected a CSV file"),
        (["--compare", "nowhere"], "nowhere/config.json: not found; --workdir must name"),
    ],
)
def test_mistakes_are_one_line(workdir, capsys, arguments, message):
    shutil.rmtree(workdir / "eval" / "test")
    assert report("--workdir", workdir, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and re.search(message, error), error
    assert not (workdir / "report").exists()


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_is_one_line(finished, tmp_path, capsys, monkeypatch, library):
    find = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda name: None if name == library else find(name)
    )
    assert report("--workdir", finished, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith(
        f"needs {library}, which is not installed; pip install 'jaxcoder[report]'"
    )
