from jaxcoder.report import groups


def test_a_figure_has_the_largest_groups_in_their_order():
    rows = [{"group": str(number), "contacts": str(number % 7)} for number in range(70)]
    largest, more = groups._largest(rows)
    assert len(largest) == 60 and more.endswith("the table has all 70.")
    assert {row["contacts"] for row in rows if row not in largest} == {"0"}
    assert largest == sorted(largest, key=lambda row: int(row["group"]))
    assert groups._largest(rows[:60]) == (rows[:60], "")


def test_codes_a_contact_have_their_interval_where_there_is_one():
    row = {"codes_per_contact": "2.8822", "codes_per_contact_low": "2.81"}
    row["codes_per_contact_high"] = "2.95"
    assert groups._prevalence(row) == "2.88 (2.81–2.95)"
    assert groups._prevalence(row | {"codes_per_contact_low": ""}) == "2.88"
    assert groups._prevalence({"codes_per_contact": "2.8822"}) == "2.88"
