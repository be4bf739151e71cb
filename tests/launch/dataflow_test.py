"""launch/dataflow.sh: both kinds of records, by Beam, with options that jaxcoder takes."""

import pytest

OPTIONS = ["--project=p", "--region=r", "--bucket=gs://b", "--image=i", "--folder=/shared"]


def test_one_command_makes_the_records_that_the_config_names(machine):
    machine.stand_in("jaxcoder")
    key = "--config.tokens.serialise.max_tokens=4096"
    arguments = ["icd", *OPTIONS, "--config=configs/population.py", key]
    result = machine.run("dataflow.sh", *arguments)
    assert result.returncode == 0
    (call,) = machine.calls()
    assert call[:4] == ["jaxcoder", "tokens", "--config", "configs/population.py"]
    assert call[call.index("--data_dir") + 1] == "/shared/data"
    silver = "--config.tokens.silver.enabled=False"  # its lexicon may exceed a job of Dataflow
    assert {"--config.records.source_dir=/shared/extract", silver, key} <= set(call)
    options = [call[i + 1] for i, word in enumerate(call) if word == "--beam_option"]
    assert call[call.index("--runner") + 1] == "DataflowRunner"
    assert options[:4] == ["project=p", "region=r", "temp_location=gs://b/dataflow"] + [
        "sdk_container_image=i"
    ]
    # Training has to name the same records.
    assert result.stderr.rstrip().endswith(f"{silver} {key}")
    printed = machine.run("dataflow.sh", *arguments, "--dry-run").stdout
    assert len(machine.calls()) == 1, "a dry run calls nothing"
    assert machine.would_call(printed) == [call]


def test_what_fails_is_not_said_to_be_made(machine):
    machine.stand_in("jaxcoder", "exit 3")
    result = machine.run("dataflow.sh", "icd", *OPTIONS, "--config=configs/population.py")
    assert (result.returncode, result.stderr) == (3, "")


@pytest.mark.parametrize(
    "missing", ["--project=", "--folder=", "--folder=shared", "--bucket=b", "--workers=few"]
)
def test_says_what_is_missing(machine, missing):
    machine.stand_in("jaxcoder")
    result = machine.run("dataflow.sh", "icd", *OPTIONS, "--config=c", missing)
    assert (result.returncode, machine.calls()) == (2, [])
    assert missing.split("=")[0] in result.stderr
