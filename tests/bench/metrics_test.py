import re

from jaxcoder.bench import __main__ as bench


def test_streamed_metrics_are_those_of_scikit_learn(capsys):
    sizes = ["--labels=300", "--contacts=100", "--batch=32", "--compared=150"]
    bench.main(["metrics", *sizes])
    out = capsys.readouterr().out
    assert re.search(r"peak memory +0\.\d+ GiB", out)
    count, off = re.search(r"sklearn .* (\d+) metrics, differ by at most (\S+)", out).groups()
    assert int(count) == 9 and float(off) <= 1e-6
