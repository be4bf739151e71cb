"""launch/dataflow.sh: both builds, by Beam, with options that jaxcoder takes."""

import pytest

OPTIONS = ["--project=p", "--region=r", "--bucket=gs://b", "--image=i", "--folder=/shared"]


def test_makes_contact_records_then_token_records(machine):
    machine.stand_in("jaxcoder")
    arguments = ["icd", *OPTIONS, "--config=configs/population.py"]
    assert machine.run("dataflow.sh", *arguments).returncode == 0
    records, tokens = machine.calls()
    assert records[:2] == ["jaxcoder", "records"] and tokens[:2] == ["jaxcoder", "tokens"]
    assert records[records.index("--source_dir") + 1] == "/shared/extract"
    assert records[records.index("--data_dir") + 1] == tokens[tokens.index("--data_dir") + 1]
    for call in (records, tokens):
        options = [call[i + 1] for i, word in enumerate(call) if word == "--beam_option"]
        assert call[call.index("--runner") + 1] == "DataflowRunner"
        assert options[:4] == ["project=p", "region=r", "temp_location=gs://b/dataflow"] + [
            "sdk_container_image=i"
        ]
    printed = machine.run("dataflow.sh", *arguments, "--dry-run").stdout
    assert len(machine.calls()) == 2, "a dry run calls nothing"
    assert machine.would_call(printed) == [records, tokens]


def test_token_records_wait_for_contact_records(machine):
    machine.stand_in("jaxcoder", "exit 3")
    result = machine.run("dataflow.sh", "icd", *OPTIONS, "--config=configs/population.py")
    assert result.returncode == 3
    assert len(machine.calls()) == 1


@pytest.mark.parametrize("missing", ["--project=", "--folder=", "--folder=shared"])
def test_says_what_is_missing(machine, missing):
    machine.stand_in("jaxcoder")
    result = machine.run("dataflow.sh", "icd", *OPTIONS, "--config=c", missing)
    assert (result.returncode, machine.calls()) == (2, [])
    assert missing.split("=")[0] in result.stderr
