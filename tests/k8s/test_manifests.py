"""The Kubernetes manifests: valid against the operators' schemas, and the promises of the docs hold in them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tools
import yaml

from dataeng.recipe import load

PLACES = ("base", "overlays/local", "overlays/aws")


def kustomize(folder: Path) -> str:
    """What a kustomization renders to, by kustomize or the one in kubectl."""
    if built := tools.find("kustomize"):
        command = [built, "build", str(folder)]
    elif kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize", str(folder)]
    else:
        pytest.skip("neither kustomize nor kubectl: make k8s-tools (needs Go)")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=PLACES)
def rendered(request: pytest.FixtureRequest, repo: Path) -> str:
    return kustomize(repo / "k8s" / request.param)


@pytest.fixture
def objects(rendered: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered))


def conform(text: str, schemas: Path) -> subprocess.CompletedProcess[str]:
    program = tools.find("kubeconform")
    if program is None:
        pytest.skip("kubeconform is not built: make k8s-tools (needs Go)")
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [program, "-strict", "-summary", "-schema-location", location, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def test_every_object_is_valid_and_none_skipped(rendered: str, objects: list[dict[str, Any]], data_dir: Path) -> None:
    done = conform(rendered, data_dir / "k8s-crds" / "schemas")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Valid: {len(objects)}, Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("restartPolicy:\n    onFailureRetries", "restartPolicy:\n    onFailureRetrys"),
        ("backoffLimit: 3", "backofLimit: 3"),
        ("minAvailable: 1", "atLeast: 1"),
        ("rayVersion:", "rayVersions:"),
    ],
)
def test_a_wrong_field_is_found(repo: Path, data_dir: Path, right: str, wrong: str) -> None:
    text = kustomize(repo / "k8s" / "base")
    assert right in text
    done = conform(text.replace(right, wrong), data_dir / "k8s-crds" / "schemas")
    assert done.returncode != 0
    assert "Invalid: 0" not in done.stdout


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    found = [value for value in objects if value["kind"] == kind]
    assert found, f"no {kind}"
    return found


def ray_pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod templates of the training job: labels and spec by the name of the pod."""
    (job,) = of_kind(objects, "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    templates = [job["spec"]["submitterPodTemplate"], cluster["headGroupSpec"]["template"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    return {template["metadata"]["labels"]["millrace.dev/pod"]: template for template in templates}


def spark_pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    (job,) = of_kind(objects, "SparkApplication")
    return {job["spec"][part]["labels"]["millrace.dev/pod"]: job["spec"][part] for part in ("driver", "executor")}


def containers(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Security contexts of every pod and of each container in it."""
    for pod in spark_pods(objects).values():
        yield pod["podSecurityContext"], pod["securityContext"]
    for template in ray_pods(objects).values():
        for container in template["spec"]["containers"]:
            yield template["spec"]["securityContext"], container["securityContext"]


def test_nothing_runs_as_root_or_writes_its_image(objects: list[dict[str, Any]]) -> None:
    every = list(containers(objects))
    assert len(every) == 5
    for pod, container in every:
        assert pod["runAsNonRoot"]
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["readOnlyRootFilesystem"]
        assert container["allowPrivilegeEscalation"] is False
        assert container["capabilities"] == {"drop": ["ALL"]}


def test_only_the_driver_may_talk_to_the_api_server(objects: list[dict[str, Any]]) -> None:
    accounts = {value["metadata"]["name"]: value for value in of_kind(objects, "ServiceAccount")}
    assert {name for name, value in accounts.items() if value.get("automountServiceAccountToken") is not False} == {
        "data-driver"
    }
    (binding,) = of_kind(objects, "RoleBinding")
    (subject,) = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == ("data-driver", "millrace")
    assert not [value for value in objects if value["kind"].startswith("ClusterRole")]
    for rule in of_kind(objects, "Role")[0]["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    used = {pod["serviceAccount"] for pod in spark_pods(objects).values()}
    used |= {template["spec"]["serviceAccountName"] for template in ray_pods(objects).values()}
    assert used == set(accounts)


def test_policies_and_budgets_meet_the_pods_that_they_mean(objects: list[dict[str, Any]]) -> None:
    labels = [pod["labels"] for pod in spark_pods(objects).values()]
    labels += [template["metadata"]["labels"] for template in ray_pods(objects).values()]
    selectors = [value["spec"]["selector"] for value in of_kind(objects, "PodDisruptionBudget")]
    selectors += [value["spec"]["podSelector"] for value in of_kind(objects, "NetworkPolicy")]
    for selector in selectors:
        wanted = selector.get("matchLabels", {})
        sets = selector.get("matchExpressions", [])
        assert all(entry["operator"] == "In" for entry in sets)
        met = [
            pod
            for pod in labels
            if wanted.items() <= pod.items() and all(pod.get(entry["key"]) in entry["values"] for entry in sets)
        ]
        assert met, f"{selector} meets no pod"
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [
        value["spec"] for value in of_kind(objects, "NetworkPolicy")
    ]
    classes = {value["metadata"]["name"] for value in of_kind(objects, "PriorityClass")}
    used = {pod["priorityClassName"] for pod in spark_pods(objects).values()}
    used |= {template["spec"]["priorityClassName"] for template in ray_pods(objects).values()}
    assert used == classes


def test_training_retries_ends_and_cleans_up(objects: list[dict[str, Any]]) -> None:
    (job,) = of_kind(objects, "RayJob")
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"]["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > spec["preRunningDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert "deletionStrategy" not in spec
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for template in ray_pods(objects).values():
        for container in template["spec"]["containers"]:
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert not head.get("tolerations"), "a head never stands on spot"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_data_job_commits_by_magic_and_hands_its_blocks_on(objects: list[dict[str, Any]], repo: Path) -> None:
    from spark_jobs.session import _commit_settings

    (job,) = of_kind(objects, "SparkApplication")
    spec = job["spec"]
    conf = spec["sparkConf"] | {f"spark.hadoop.{key}": value for key, value in spec["hadoopConf"].items()}
    assert _commit_settings().items() <= conf.items()
    assert conf["spark.decommission.enabled"] == conf["spark.storage.decommission.enabled"] == "true"
    assert spec["restartPolicy"]["type"] == "OnFailure"
    assert spec["restartPolicy"]["onFailureRetries"] > 0
    assert int(conf["spark.executor.maxNumFailures"]) > 0
    assert spec["dynamicAllocation"]["shuffleTrackingEnabled"]
    assert spec["timeToLiveSeconds"] > 0
    assert not spec["driver"].get("tolerations")
    assert (repo / spec["mainApplicationFile"].removeprefix("local:///opt/millrace/")).is_file()


def test_pods_read_the_recipe_that_was_rendered(objects: list[dict[str, Any]], tmp_path: Path, repo: Path) -> None:
    (config,) = of_kind(objects, "ConfigMap")
    name = config["metadata"]["name"]
    assert name.startswith("recipe-"), "its contents' hash is in its name"
    (spark,), (ray,) = of_kind(objects, "SparkApplication"), of_kind(objects, "RayJob")
    volumes = [spark["spec"]["volumes"]]
    volumes += [pod["spec"]["volumes"] for key, pod in ray_pods(objects).items() if key != "training-submitter"]
    assert all({"name": "recipe", "configMap": {"name": name}} in named for named in volumes)
    path = tmp_path / "recipe.toml"
    path.write_text(config["data"]["recipe.toml"])
    recipe = load([str(path)], ("dataeng.", "training."))
    assert recipe.root.startswith("s3://")
    assert recipe.step("spark").packages is False
    workers = ray["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"]
    assert recipe.step("train").workers == workers
    entry = ray["spec"]["entrypoint"].split()
    assert (repo / entry[1].removeprefix("/opt/millrace/")).is_file()
    assert spark["spec"]["arguments"][0] == entry[2] == "/etc/millrace/recipe.toml"


def test_no_keys_stand_in_the_manifests(rendered: str, objects: list[dict[str, Any]]) -> None:
    assert not [value for value in objects if value["kind"] == "Secret"]
    assert "AWS_SECRET_ACCESS_KEY" not in rendered
    assert "secret.key" not in rendered


def test_spot_and_gpu_are_for_workers_alone(repo: Path) -> None:
    objects = list(yaml.safe_load_all(kustomize(repo / "k8s" / "overlays" / "aws")))
    spot = {"key": "millrace.dev/spot", "operator": "Exists", "effect": "NoSchedule"}
    assert spark_pods(objects)["data-executor"]["tolerations"] == [spot]
    worker = ray_pods(objects)["training-worker"]["spec"]
    assert spot in worker["tolerations"]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not ray_pods(objects)["training-head"]["spec"].get("tolerations")
