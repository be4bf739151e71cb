import itertools
import random

import pytest

from jaxcoder.records.schema import Condition, Contact
from jaxcoder.records.sources.synthetic.ceiling import Ceiling


def ceiling_of(*probabilities):
    ceiling = Ceiling()
    for number, probability in enumerate(probabilities):
        truth = (Condition(f"A{number:02d}", True, probability),)
        ceiling.add(Contact(f"c{number}", "p", conditions=truth))
    return ceiling


def test_hand_worked_case():
    # Gold is 1 + 0.5 + 0.2 = 1.7 codes on average. Predicting the first: 2·1 / (1 + 1.7); the first
    # two: 2·1.5 / (2 + 1.7), the best; all three: 2·1.7 / (3 + 1.7).
    ceiling = ceiling_of(0.5, 1.0, 0.2)
    assert ceiling.micro_f1() == pytest.approx(3 / 3.7)
    assert ceiling.predicted_share() == pytest.approx(2 / 3)


def test_nothing_is_left_out_when_everything_is_coded():
    assert ceiling_of(1.0, 1.0).micro_f1() == 1.0
    assert ceiling_of().micro_f1() == 0.0
    assert ceiling_of().predicted_share() == 0.0


def test_no_other_set_of_predictions_does_better():
    draw = random.Random(0)
    for _ in range(50):
        chances = [draw.choice((0.1, 0.25, 0.4, 0.6, 0.9, 1.0)) for _ in range(7)]
        scores = [
            2 * sum(chosen) / (size + sum(chances))
            for size in range(1, len(chances) + 1)
            for chosen in itertools.combinations(chances, size)
        ]
        assert ceiling_of(*chances).micro_f1() == pytest.approx(max(scores))


def test_what_lies_above_half_of_the_ceiling_is_predicted():
    chances = [0.05 * number for number in range(1, 21)]
    ceiling = ceiling_of(*chances)
    predicted = sum(chance > ceiling.threshold() for chance in chances)
    assert ceiling.predicted_share() == pytest.approx(predicted / len(chances))


def test_a_coder_that_knows_the_truth_reaches_it_and_not_more():
    draw = random.Random(1)
    ceiling, right, predicted, gold = Ceiling(), 0, 0, 0
    rows = [draw.choice((0.2, 0.5, 0.8, 1.0)) for _ in range(50_000)]
    for chance in rows:
        ceiling.add(Contact("c", "p", conditions=(Condition("A00", False, chance),)))
    for chance in rows:
        coded = draw.random() < chance
        gold += coded
        predicted += chance > ceiling.threshold()
        right += coded and chance > ceiling.threshold()
    assert 2 * right / (predicted + gold) == pytest.approx(ceiling.micro_f1(), abs=0.005)


def test_memory_does_not_grow_with_contacts():
    ceiling = ceiling_of(*[0.5, 0.7] * 500)
    assert len(ceiling._pairs) == 2


def test_parts_merge_to_the_same_bits_in_any_order():
    draw = random.Random(2)
    chances = [draw.random() for _ in range(200)]
    whole = ceiling_of(*chances)
    for _ in range(20):
        draw.shuffle(chances)
        merged = ceiling_of(*chances[:71])
        merged.merge(ceiling_of(*chances[71:]))
        assert merged.micro_f1() == whole.micro_f1()
        assert merged.predicted_share() == whole.predicted_share()
