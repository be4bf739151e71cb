"""What a report says of other evaluations of the run."""

import json

from jaxcoder.report import history, inputs


def test_what_is_outdated_comes_with_the_command_at_its_threshold(workdir):
    folder = workdir / "eval" / "test"
    for name, changes in (
        ("metrics", {"threshold": 0.5}),
        ("details", {"threshold_from": "given"}),
    ):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (absent,) = history._ablations(inputs.Run(workdir).evaluation("test"))
    assert absent.command.endswith("--split test --threshold 0.5 --without labs,medications")
