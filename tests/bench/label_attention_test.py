import re

from jaxcoder.bench import __main__ as bench


def test_reports_both_forms_and_that_they_agree(capsys):
    sizes = ["--labels=600", "--tokens=128", "--width=16", "--batch=2"]
    bench.main(["label_attention", *sizes, "--chunk=128", "--repeats=1"])
    out = capsys.readouterr().out
    peaks = {row[0]: int(row[1]) for row in re.findall(r"^(naive|chunked) +(\d+)", out, re.M)}
    assert peaks["chunked"] < peaks["naive"]
    assert float(re.search(r"losses differ by (\S+)", out)[1]) < 1e-5
