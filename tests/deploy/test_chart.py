"""The Helm chart, rendered: what comes out is valid for Kubernetes, and its parts fit together and the kernel."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentscope.runtime.settings import Settings, load_settings
from agentscope_cli._run import run
from deploy.chart import CHART, Renderer, TemplateError, rendered, values_of
from deploy.schemas import check_manifest, problems

ROOT = Path(__file__).parents[2]
SECRETS = {
    "session-url": "postgresql://u:p@db.example.com/agents",
    "tokens": "ops a-token-of-forty-characters-for-the-tests",
}
OWN: dict[str, Any] = {"secrets": {"values": SECRETS}}
EXISTING: dict[str, Any] = {"secrets": {"existing": "agents"}}
EVERYTHING: dict[str, Any] = {
    **OWN,
    "image": {"repository": "registry.example.com/agents", "tag": "7", "pullSecrets": [{"name": "registry"}]},
    "project": {
        "files": {name: (ROOT / "examples" / "quickstart" / name).read_text() for name in ("app.py", "agentapp.yaml")},
        "set": ["models.main.provider=offline", "session.lease_ttl=20"],
    },
    "server": {"workers": 4, "shutdownTimeout": 90, "endpointSeconds": 10, "metrics": False},
    "autoscaling": {"enabled": True, "min": 3, "max": 20, "cpu": 60},
    "disruptionBudget": {"maxUnavailable": "25%"},
    "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"example.com/zone": "a"}},
    "ingress": {"enabled": True, "className": "nginx", "host": "agents.example.com", "tlsSecret": "certificate"},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "serviceAccount": {"annotations": {"example.com/role": "agents"}},
    "podAnnotations": {"example.com/scrape": "true"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "agents", "operator": "Exists"}],
}
NEITHER: dict[str, Any] = {
    **EXISTING,
    "auth": {"tokensFile": False},
    "migration": {"enabled": False},
    "disruptionBudget": {"enabled": False},
}
EACH = pytest.mark.parametrize(
    "changes", [OWN, EXISTING, EVERYTHING, NEITHER], ids=["own secret", "existing secret", "everything", "the least"]
)


def documents(changes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for found in rendered(changes).values():
        yield from found


def one(changes: dict[str, Any], kind: str) -> dict[str, Any]:
    [found] = [document for document in documents(changes) if document["kind"] == kind]
    return found


def pod(changes: dict[str, Any], kind: str = "Deployment") -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod's specification, and that of its container."""
    specification = one(changes, kind)["spec"]["template"]["spec"]
    [container] = specification["containers"]
    return specification, container


def pods(changes: dict[str, Any]) -> list[str]:
    """The kinds of what has pods."""
    return [document["kind"] for document in documents(changes) if document["kind"] in {"Deployment", "Job"}]


def refused(changes: dict[str, Any]) -> list[str]:
    """The paths of what the chart's schema has against these values."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return list(problems(values_of(changes), schema))


def settings_of(changes: dict[str, Any], folder: Path) -> Settings:
    """What the kernel makes of a pod's arguments: they go to the real command, with the secrets in ``folder``."""
    _, container = pod(changes)
    (folder / "secrets").mkdir()
    for name, value in SECRETS.items():
        (folder / "secrets" / name).write_text(value)
    arguments = [
        argument.replace("/run/secrets/agentscope", str(folder / "secrets")) for argument in container["args"]
    ]
    project = shutil.copytree(ROOT / "examples" / "quickstart", folder / "project")
    with run.make_context("run", [str(project), "--host", "0.0.0.0", *arguments]) as context:
        given = context.params
    assert (given["port"], given["log_format"], given["workers"]) == (
        8080,
        "json",
        values_of(changes)["server"]["workers"],
    )
    return load_settings(project, assignments=given["assignments"], environment={}).settings


@EACH
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_what_is_rendered(changes: dict[str, Any], version: str) -> None:
    assert refused(changes) == []
    found = list(documents(changes))
    for document in found:
        check_manifest(document, version)
    names = [(document["kind"], document["metadata"]["name"]) for document in found]
    assert len(names) == len(set(names))


def test_a_template_s_mistake_is_an_error() -> None:
    for mistake in (
        "{{ .Values.replica }}",
        "{{ lookup }}",
        "{{- if .Values.replicas }}",
        "{{.Values.replicas}}",
        "{{ upper 1 }}",
    ):
        with pytest.raises(TemplateError):
            Renderer(values_of(OWN)).render(mistake)


@EACH
def test_what_a_pod_mounts_is_there(changes: dict[str, Any]) -> None:
    names = {(document["kind"], document["metadata"]["name"]) for document in documents(changes)}
    names.add(("Secret", "agents"))
    assert ("ServiceAccount", pod(changes)[0]["serviceAccountName"]) in names
    for kind in pods(changes):
        specification, container = pod(changes, kind)
        volumes: list[dict[str, Any]] = specification["volumes"]
        for volume in volumes:
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in volumes}


@EACH
def test_what_selects_pods_selects_those_of_the_deployment_alone(changes: dict[str, Any]) -> None:
    labels = one(changes, "Deployment")["spec"]["template"]["metadata"]["labels"]
    found: dict[str, dict[str, str]] = {
        "Deployment": one(changes, "Deployment")["spec"]["selector"]["matchLabels"],
        "Service": one(changes, "Service")["spec"]["selector"],
    }
    for document in documents(changes):
        if document["kind"] == "PodDisruptionBudget":
            found["PodDisruptionBudget"] = document["spec"]["selector"]["matchLabels"]
        if document["kind"] == "NetworkPolicy":
            found["NetworkPolicy"] = document["spec"]["podSelector"]["matchLabels"]
    assert len(found) == {id(NEITHER): 2, id(EVERYTHING): 4}.get(id(changes), 3)
    for selector in found.values():
        assert selector.items() <= labels.items()
        if "Job" in pods(changes):
            job = one(changes, "Job")["spec"]["template"]["metadata"]["labels"]
            assert not selector.items() <= job.items()


def test_the_autoscaler_and_the_ingress_lead_to_the_deployment() -> None:
    deployment, service = one(EVERYTHING, "Deployment"), one(EVERYTHING, "Service")
    target = one(EVERYTHING, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    # It would be set back with each upgrade.
    assert "replicas" not in deployment["spec"]
    [rule] = one(EVERYTHING, "Ingress")["spec"]["rules"]
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {service["metadata"]["name"]}
    # Each pod's own, and for the operator alone.
    assert "/metrics" not in {path["path"] for path in rule["http"]["paths"]}


@EACH
def test_a_pod_is_no_root_writes_nowhere_and_has_no_token(changes: dict[str, Any]) -> None:
    for kind in pods(changes):
        specification, container = pod(changes, kind)
        assert specification["securityContext"]["runAsNonRoot"] is True
        assert specification["securityContext"]["runAsUser"] > 0
        assert specification["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert specification["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert written <= {"/tmp", "/data"}
        # Secrets are files: what is in the environment is told to every child process.
        assert "env" not in container
        assert "envFrom" not in container


@EACH
def test_a_pod_ends_after_its_answers(changes: dict[str, Any], tmp_path: Path) -> None:
    specification, container = pod(changes)
    [sleep, seconds] = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    drain = settings_of(changes, tmp_path).server.shutdown_timeout
    assert drain == values_of(changes)["server"]["shutdownTimeout"]
    # What closes after the drain has its own time limits, of 20 seconds together in the usual case.
    assert specification["terminationGracePeriodSeconds"] >= int(seconds) + drain + 20


@EACH
def test_the_probes_ask_what_they_are_for(changes: dict[str, Any]) -> None:
    _, container = pod(changes)
    port = {port["name"]: port["containerPort"] for port in container["ports"]}
    asked = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["httpGet"]["path"] for name, probe in asked.items()} == {
        "startup": "/health",
        "liveness": "/health",
        "readiness": "/ready",
    }
    assert {port[probe["httpGet"]["port"]] for probe in asked.values()} == {8080}
    # A start may load models and tools; a loop that stands still for a moment is no reason to lose every stream.
    assert asked["startup"]["periodSeconds"] * asked["startup"]["failureThreshold"] >= 120
    assert asked["liveness"]["periodSeconds"] * asked["liveness"]["failureThreshold"] >= 60


@EACH
def test_the_kernel_takes_the_arguments(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_of(changes, tmp_path)
    assert settings.session.url is not None
    assert settings.session.url.get_secret_value() == SECRETS["session-url"]
    assert settings.server.auth.is_on == values_of(changes)["auth"]["tokensFile"]
    assert settings.server.metrics == values_of(changes)["server"]["metrics"]
    assert settings.session.lease_ttl == (20 if changes is EVERYTHING else Settings().session.lease_ttl)


@pytest.mark.parametrize("changes", [OWN, EXISTING, EVERYTHING], ids=["own secret", "existing secret", "everything"])
def test_the_migration_needs_nothing_that_is_not_there_yet(changes: dict[str, Any], tmp_path: Path) -> None:
    hooks = [
        document for document in documents(changes) if "helm.sh/hook" in document["metadata"].get("annotations", {})
    ]
    about = {document["kind"]: document["metadata"]["annotations"] for document in hooks}
    assert {annotations["helm.sh/hook"] for annotations in about.values()} == {"pre-install,pre-upgrade"}
    specification, container = pod(changes, "Job")
    assert "serviceAccountName" not in specification
    assert specification["restartPolicy"] == "Never"
    for kind in ("ConfigMap", "Secret"):
        if kind in about:
            assert int(about[kind]["helm.sh/hook-weight"]) < int(about["Job"]["helm.sh/hook-weight"])
    needed = {volume.get("secret", {}).get("secretName") for volume in specification["volumes"]} - {None}
    assert needed == ({"agents"} if changes is EXISTING else {"shop-migration"})
    # It knows what it needs: the database alone, whatever the project's own settings are.
    [project] = [document["data"] for document in hooks if document["kind"] == "ConfigMap"]
    (tmp_path / "session-url").write_text(SECRETS["session-url"])
    (tmp_path / "agentapp.yaml").write_text(project["agentapp.yaml"].replace("/run/secrets/agentscope", str(tmp_path)))
    url = load_settings(tmp_path, environment={}).settings.session.url
    assert url is not None
    assert url.get_secret_value() == SECRETS["session-url"]
    assert container["command"] == ["agentscope", "db", "upgrade", "/app"]


def test_a_change_of_project_or_secrets_starts_new_pods() -> None:
    def annotations(changes: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = one(changes, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return found

    first = annotations(OWN)
    assert annotations({**OWN, "replicas": 5}) == first
    assert annotations({**OWN, "project": {"files": {"app.py": ""}}}) != first
    assert annotations({"secrets": {"values": {**SECRETS, "tokens": "another"}}}) != first


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "$.secrets.values"),
        ({"secrets": {"values": {"session-url": "postgresql://db.example.com/a"}}}, "$.secrets.values"),
        ({"secrets": {"existing": "agents", "values": SECRETS}}, "$.secrets.values"),
        ({**OWN, "replcas": 3}, "$"),
        ({**OWN, "project": {"files": {"tools/search.py": ""}}}, "$.project.files"),
        ({**OWN, "project": {"set": ["nothing"]}}, "$.project.set[0]"),
        ({**OWN, "ingress": {"enabled": True}}, "$.ingress.host"),
        ({**OWN, "networkPolicy": {"enabled": True}}, "$.networkPolicy.from"),
        ({**OWN, "server": {"shutdownTimeout": -1}}, "$.server.shutdownTimeout"),
    ],
    ids=["no secret", "no token", "two secrets", "typo", "folder", "no setting", "no host", "lets all in", "negative"],
)
def test_values_that_can_not_work_are_refused(changes: dict[str, Any], path: str) -> None:
    assert path in refused(changes)


def test_the_chart_is_of_this_version() -> None:
    from agentscope import __version__

    assert Renderer(values_of(OWN)).render("{{ .Chart.AppVersion }}") == __version__
