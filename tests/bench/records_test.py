from jaxcoder.bench import records


def test_both_layouts_give_back_what_they_were_given(capsys):
    records.main(["--contacts", "20", "--tables", "30"])  # raises where they do not
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["layout", "nested", "rows", "cores"]
