import re

from jaxcoder.bench import __main__ as bench


def test_reports_the_stage_beside_the_bare_tokenizer_and_every_step(capsys):
    bench.main(["tokens", "--patients=12", "--repeats=1", "--vocab_size=400"])
    out = capsys.readouterr().out
    assert re.search(r" 20 laboratory rows, [1-9]\d* tokens a contact", out)
    rates = re.findall(r"^(\w[\w, ]+?) +([\d,]+) +[\d,]+ +([\d.]+)$", out, re.M)
    assert [name for name, _, _ in rates] == [
        "bare",
        "one process",
        "all cores",
        "one, silver",
        "all, silver",
    ]
    assert float(rates[0][2]) == 1.0 and all(float(ratio) > 0 for _, _, ratio in rates)
    steps = re.findall(r"([a-z, ]+) -?\d+(?:,|$)", out.splitlines()[-1].rpartition(": ")[2])
    assert [step.strip() for step in steps] == [
        "read, decode",
        "serialise",
        "tokenise",
        "labels, evidence",
        "encode, write",
        "silver search",
    ]
