"""The section that is read first."""

from jaxcoder.report import headline, inputs


def test_the_range_of_specialties_is_of_those_with_an_interval(workdir):
    test = inputs.Run(workdir).evaluation("test")
    row = next(row for row in test.groups if row["group"] == "surgery")
    row["micro_f1"] = "0"

    def shown():
        table = headline.section(test, None).parts[0]
        return next(cells[1] for cells in table.rows if "specialties with" in cells[0])

    assert shown().startswith("0.0–")
    row["micro_f1_low"] = row["micro_f1_high"] = ""
    assert not shown().startswith("0.0–")
