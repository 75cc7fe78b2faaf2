"""A cluster of two nodes, and the manifests that ask for larger ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bucket import BUCKET, S3Server
from visavis.pipeline.plan.graph import Graph
from visavis.schemas.config import BuildConfig, StageResources
from visavis.schemas.recipes import load_config, parse_config

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs" / "cluster"
GB = 1e9


@pytest.mark.nightly("a cluster of two nodes; workers that die are in test_run.py")
def test_a_node_that_is_lost_loses_no_item(tmp_path: Path) -> None:
    """The script is `two_nodes.py`."""
    with tempfile.TemporaryDirectory(prefix="ray") as short:  # sockets lie there, whose paths must not be long
        done = subprocess.run(
            [sys.executable, "-m", "tests.pipeline.two_nodes", str(tmp_path)],
            env=os.environ | {"RAY_TMPDIR": short},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    story = json.loads((tmp_path / "story.json").read_text())

    assert [rows[0][0] for rows in story["fast"].values()] == ["other"] * 3  # the node with the label

    assert sorted(story["done"]) == sorted(f"k{n}" for n in range(12))
    rows = [row for rows in story["done"].values() for row in rows]
    assert len(rows) == 12  # one each
    assert {attempt for _, attempt in rows} == {1}  # a lost machine is not the item's fault
    nodes = Counter(node for node, _ in rows)
    assert nodes["head"] > nodes["other"] > 0
    assert story["lost"]  # it was taken away while it worked


def manifests() -> dict[str, Any]:
    """What `rayjob.yaml` holds, by kind; the last of each."""
    return {found["kind"]: found for found in documents()}


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCS / "rayjob.yaml").read_text()))


def recipe() -> BuildConfig:
    return parse_config(manifests()["ConfigMap"]["data"]["cluster.yaml"], BuildConfig)


def pods() -> dict[str, dict[str, float]]:
    """What a pod of each worker group gives to Ray, by group."""
    given = {}
    for group in manifests()["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits, params = container["resources"]["limits"], group["rayStartParams"]
        assert container["resources"]["requests"] == limits
        assert limits["memory"].endswith("Gi")
        memory = float(limits["memory"].removesuffix("Gi")) * 2**30 - float(params["object-store-memory"])
        given[group["groupName"]] = {
            "cpus": float(params.get("num-cpus", limits["cpu"])),
            "gpus": float(limits.get("nvidia.com/gpu", 0)),
            "memory": memory,
            "pods": group["maxReplicas"],
        }
    return given


def fits(needs: StageResources, pod: Mapping[str, float]) -> bool:
    wanted = {"cpus": needs.cpus, "gpus": needs.gpus, "memory": (needs.memory_gb or 0) * GB}
    return all(amount <= pod[name] for name, amount in wanted.items())


@pytest.mark.parametrize("config", [load_config(REPOSITORY / "configs" / "cluster.yaml", BuildConfig), recipe()])
def test_the_pods_hold_a_worker_of_every_stage(config: BuildConfig) -> None:
    assert set(config.run.resources) == set(Graph(config).steps)
    for stage, needs in config.run.resources.items():
        assert any(fits(needs, pod) for pod in pods().values()), stage


def test_the_job_asks_for_workers_and_they_all_fit_at_once() -> None:
    shapes = {needs.model_dump_json(): needs for needs in recipe().run.resources.values()}  # one pool each
    assert all(needs.max_workers for needs in shapes.values())
    pod = pods()["cpu"]
    for name, wanted in (("cpus", lambda n: n.cpus), ("memory", lambda n: (n.memory_gb or 0) * GB)):
        assert sum(n.max_workers * wanted(n) for n in shapes.values()) <= pod["pods"] * pod[name]
    on_gpus = StageResources(cpus=0, gpus=0.25, memory_gb=4)  # as the recipe's comment has it
    assert fits(on_gpus, pods()["gpu"])
    assert not any(fits(needs, pods()["gpu"]) for needs in shapes.values())


def test_the_job_is_what_kuberay_knows() -> None:
    job = manifests()["RayJob"]
    spec = job["spec"]
    assert job["apiVersion"] == "ray.io/v1"
    assert set(spec) <= {
        *("entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"),
        *("submitterPodTemplate", "rayClusterSpec"),
    }
    assert set(spec["rayClusterSpec"]) <= {
        *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
        "workerGroupSpecs",
    }
    assert spec["entrypoint"].split()[:3] == ["visavis", "build", "/etc/visavis/cluster.yaml"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {"name": "recipe", "mountPath": "/etc/visavis", "readOnly": True} in head["containers"][0]["volumeMounts"]
    volumes = {volume["name"]: volume for volume in head["volumes"]}
    assert volumes["recipe"]["configMap"]["name"] == manifests()["ConfigMap"]["metadata"]["name"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    assert all(v.__class__ is str for group in groups for v in group["rayStartParams"].values())  # or it is refused


def templates() -> list[dict[str, Any]]:
    """Of all pods: the submitter's, the head's, and the workers'."""
    spec = manifests()["RayJob"]["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def test_nobody_without_a_token_is_heard() -> None:
    cluster = manifests()["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert [int(part) for part in cluster["rayVersion"].split(".")] >= [2, 59, 0]


@pytest.mark.parametrize("template", templates(), ids=["submitter", "head", "cpu", "gpu"])
def test_a_pod_has_no_keys_no_privileges_and_nothing_to_write_but_its_scratch(template: dict[str, Any]) -> None:
    spec = template["spec"]
    (container,) = spec["containers"]
    assert "envFrom" not in container
    assert all("value" in variable for variable in container.get("env", []))  # none of a secret
    assert not any("secret" in volume for volume in spec["volumes"])
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp", "/home/visavis"}
    assert all("emptyDir" in volumes[m["name"]] for m in container["volumeMounts"] if not m.get("readOnly"))
    assert "kubernetes" not in {m["name"] for m in container["volumeMounts"]}  # the autoscaler's alone


def test_the_roles_that_pods_have_are_there() -> None:
    accounts = {found["metadata"]["name"]: found for found in documents() if found["kind"] == "ServiceAccount"}
    named = {template["spec"].get("serviceAccountName") for template in templates()} - {None}
    assert named == set(accounts)
    for account in accounts.values():
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["annotations"]


def test_every_pod_is_behind_the_network_policy() -> None:
    """Pods talk to each other, to name servers and to a store; from outside comes the operator alone."""
    policies = {found["metadata"]["name"]: found["spec"] for found in documents() if found["kind"] == "NetworkPolicy"}
    everybody = {"matchLabels": {"app.kubernetes.io/name": "visavis"}}
    policy = policies["visavis"]
    assert policy["podSelector"] == everybody
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    for template in templates():
        assert template["metadata"]["labels"].items() >= everybody["matchLabels"].items()
    ours, operator = policy["ingress"]
    assert ours == {"from": [{"podSelector": everybody}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert all(len(each["from"]) == 1 for each in policy["ingress"])  # two would be either, not both
    assert [{p["port"] for p in each.get("ports", [])} for each in policy["egress"]] == [set(), {53}, {443}]
    outside = policy["egress"][2]["to"][0]["ipBlock"]
    metadata_server, node = ip_address("169.254.169.254"), ip_address("10.1.2.3")
    for address in (metadata_server, node):
        assert any(address in ip_network(refused) for refused in outside["except"])
    (kubernetes,) = policies["visavis-head"]["egress"]
    assert policies["visavis-head"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "head"
    assert kubernetes["to"] == [{"ipBlock": {"cidr": "API-SERVER/32"}}]  # to be filled in


@pytest.mark.parametrize("name", ["ray-up.yaml", "ray-up-local.yaml"])
def test_machines_start_with_a_token_that_nobody_else_can_read(name: str) -> None:
    config = yaml.safe_load((DOCS / name).read_text())
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    for command in starts:
        assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in command
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host" not in starts[0]  # loopback


@pytest.mark.parametrize("name", ["ray-up.yaml", "ray-up-local.yaml"])
def test_ray_up_accepts_the_cluster(name: str) -> None:
    """By the steps that `ray up` takes before it speaks to anybody."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DOCS / name).read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] <= sum(t["max_workers"] for t in prepared["available_node_types"].values())


def test_s3_takes_the_rule_against_uploads_that_were_cut_off(server: S3Server) -> None:
    import boto3

    shown = re.search(r"--lifecycle-configuration '(.*?)'\n", (DOCS / "README.md").read_text(), re.DOTALL)
    assert shown
    client = boto3.client("s3")
    client.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=json.loads(shown[1]))
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    client.delete_bucket_lifecycle(Bucket=BUCKET)
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}
