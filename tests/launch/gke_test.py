"""launch/gke.sh: the manifest is one that Kubernetes and JobSet take, and says what was asked."""

import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

OPTIONS = [
    "--image=europe-docker.pkg.dev/p/r/jaxcoder:1",
    "--workdir=gs://b/runs/x",
    "--bucket=gs://b",
    "--accelerator=tpu-v5-lite-podslice",
    "--topology=4x4",
]
WORDS = ["jaxcoder", "train", "--config.train.total='5 epochs'", 'say "a\\b" & {{NAME}} $(X)']
WORDS += ["--workdir", "gs://b/runs/x", "--distributed"]
OTHER = ["jaxcoder", "tokens", "--config", "configs/demo.py"]


def manifest(machine, *options, words=WORDS):
    result = machine.run("gke.sh", "show", "icd", *OPTIONS, *options, "--", *words)
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)


def lost(sent, kept, path=""):
    """Paths of what was sent and not kept: a key that the API does not know, or knows elsewhere."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [each for key in sent for each in lost(sent[key], kept.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            each
            for i, pair in enumerate(zip(sent, kept, strict=True))
            for each in lost(*pair, f"{path}[{i}]")
        ]
    return [] if sent == kept else [path]


def check(content):
    """Checks a manifest against the models that are generated from the API's own description."""
    model = JobsetV1alpha2JobSet.from_dict(content)  # wrong types raise
    return lost(content, model.to_dict())  # unknown keys are not in it


@pytest.mark.parametrize("options", [[], ["--spot"], ["--slices=2", "--chips=8"]])
def test_manifest_fits_the_api(machine, options):
    content = manifest(machine, *options)
    assert (content["apiVersion"], content["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert check(content) == []


def test_the_check_sees_what_is_wrong(machine):
    content = manifest(machine)
    job = content["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["backOffLimit"] = 0
    job["template"]["spec"]["containers"][0]["volumeMount"] = []
    where = ".spec.replicatedJobs[0].template.spec"
    assert sorted(check(content)) == [
        f"{where}.backOffLimit",
        f"{where}.template.spec.containers[0].volumeMount",
    ]
    job["parallelism"] = "4"
    with pytest.raises(ValueError, match="parallelism"):
        check(content)


def test_failure_policy_has_values_that_jobset_knows(machine):
    # Enumerations of https://github.com/kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go
    policy = manifest(machine)["spec"]["failurePolicy"]
    assert policy["restartStrategy"] in {"Recreate", "BlockingRecreate", "InPlaceRestart"}
    (rule,) = policy["rules"]
    assert rule["action"] in {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
    # https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    job = manifest(machine)["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert job["podFailurePolicy"]["rules"][0]["action"] == "FailJob"
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # which a pod failure policy demands


@pytest.mark.parametrize(
    ("options", "slices", "hosts", "chips"),
    [
        ([], 1, 4, 4),
        (["--accelerator=tpu7x", "--topology=2x2x2"], 1, 2, 4),
        (["--topology=2x4", "--chips=8"], 1, 1, 8),
    ]
    + [(["--accelerator=tpu-v5p-slice", "--topology=4x4x8", "--slices=3"], 3, 32, 4)],
)
def test_every_host_of_every_slice_gets_a_pod(machine, options, slices, hosts, chips):
    (job,) = manifest(machine, *options)["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == slices
    assert spec["parallelism"] == spec["completions"] == hosts
    (container,) = spec["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips}


def pod(content):
    return content["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_the_pod_runs_exactly_the_command_given(machine):
    command = pod(manifest(machine))["containers"][0]["command"]
    assert command == ["launch/supervise.sh", "--once", "gs://b/runs/x", *WORDS]


def test_refuses_a_command_that_would_not_be_one_run(machine):
    def show(*options, words):
        return machine.run("gke.sh", "show", "icd", *OPTIONS, *options, "--", *words)

    other = ["jaxcoder", "train", "--workdir", "gs://b/runs/y", "--distributed"]
    assert "runs/y: expected the same" in show(words=other).stderr
    alone = ["jaxcoder", "train", "--workdir", "gs://b/runs/x"]
    assert "needs --distributed" in show(words=alone).stderr
    assert show("--chips=16", words=alone).returncode == 0, "one host needs nobody"


def test_without_a_workdir_the_command_is_not_supervised(machine):
    found = manifest(machine, "--workdir=", words=OTHER)
    assert pod(found)["containers"][0]["command"] == OTHER


def test_spot_is_asked_for_only_where_it_is_wanted(machine):
    key = "cloud.google.com/gke-spot"
    assert key not in pod(manifest(machine))["nodeSelector"]
    assert "tolerations" not in pod(manifest(machine))
    spot = pod(manifest(machine, "--spot"))
    assert spot["nodeSelector"][key] == "true"
    assert spot["tolerations"][0]["key"] == key


def test_starts_what_it_shows(machine):
    machine.stand_in("kubectl", "cat >manifest")
    result = machine.run("gke.sh", "start", "icd", *OPTIONS, "--namespace=n", "--", *WORDS)
    assert result.returncode == 0
    assert machine.calls() == [["kubectl", "--namespace=n", "create", "--filename=-"]]
    assert yaml.safe_load((machine.folder / "manifest").read_text()) == manifest(machine)


def test_status_follow_and_stop_name_one_jobset(machine):
    machine.stand_in("kubectl")
    for action in ("status", "follow", "stop"):
        assert machine.run("gke.sh", action, "icd").returncode == 0
    jobset, pods, logs, delete = machine.calls()
    assert jobset == ["kubectl", "get", "jobset", "icd"]
    assert pods[-1] == "--selector=jobset.sigs.k8s.io/jobset-name=icd"
    assert logs[-1] == (
        "--selector=jobset.sigs.k8s.io/jobset-name=icd,jobset.sigs.k8s.io/job-index=0,"
        "batch.kubernetes.io/job-completion-index=0"
    )
    assert delete == ["kubectl", "delete", "jobset", "icd"]


def test_dry_run_prints_the_command_and_the_manifest(machine):
    machine.stand_in("kubectl")
    result = machine.run("gke.sh", "start", "icd", *OPTIONS, "--dry-run", "--", *WORDS)
    assert machine.calls() == []
    comment, command, content = result.stdout.split("\n", 2)
    assert command.split() == ["kubectl", "create", "--filename=-"]
    assert yaml.safe_load(content) == manifest(machine)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--image=", "needs --image"),
        ("--image=a: b", "--image=a: b: expected a name"),
        ("--bucket=gs://b/data", "without a folder"),
        ("--accelerator=v5e", "expected such as tpu-v5-lite-podslice"),
        ("--accelerator=tpu-v5p-slice", "expected such as 2x2x2"),
        ("--topology=08x4", "expected such as 4x4"),
        ("--slices=0", "--slices=0: expected a whole number from 1"),
        ("--workdir=runs/x", "expected gs://"),
        ("--topology=4", "expected such as 4x4"),
        ("--chips=3", "do not make up the 16 chips"),
        ("--slices=two", "whole number"),
    ],
)
def test_refuses_what_makes_no_manifest(machine, option, message):
    machine.stand_in("kubectl")
    result = machine.run("gke.sh", "start", "icd", *OPTIONS, option, "--", *WORDS)
    assert (result.returncode, machine.calls()) == (2, [])
    assert message in result.stderr
