#!/usr/bin/env python3
"""Renders deploy/kubernetes and checks what comes out: against the API's own schemas, against the
snapshots in deploy/kubernetes/rendered, and for what must hold of every pod.

usage: manifests.py KUBECTL [--update] [--crds FOLDER]
"""

import difflib
import json
import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
VERSIONS = ["1.31", "1.37"]
# Kinds that others define. kubernetes-validate has no schema of theirs; see check_custom.
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("postgresql.cnpg.io/v1", "Cluster"),
    ("postgresql.cnpg.io/v1", "Pooler"),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"),
    ("barmancloud.cnpg.io/v1", "ObjectStore"),
}

faults = []


def fault(where, what):
    faults.append(f"{where}: {what}")


def name_of(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def check_schema(where, thing):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            fault(where, f"{name_of(thing)}, Kubernetes {version}: {path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            fault(where, f"{name_of(thing)}, Kubernetes {version}: {error.message}")


def closed(schema):
    """The schema with every object closed, as the API server prunes or refuses what it does not know."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        open_end = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if "properties" in schema and isinstance(schema["properties"], dict) and not open_end:
            schema["additionalProperties"] = False
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("type", None)
        return schema
    return [closed(part) for part in schema] if isinstance(schema, list) else schema


def crds(folder):
    found = {}
    for path in pathlib.Path(folder).rglob("*.yaml"):
        for thing in yaml.safe_load_all(path.read_text()):
            if thing and thing.get("kind") == "CustomResourceDefinition":
                spec = thing["spec"]
                for version in spec["versions"]:
                    schema = closed(version["schema"]["openAPIV3Schema"])
                    schema["properties"]["metadata"] = {"type": "object"}
                    found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def check_custom(where, thing, schemas):
    """With their definitions at hand (--crds), against them; always, that the kind is one we mean."""
    import jsonschema

    key = (thing["apiVersion"], thing["kind"])
    if key not in CUSTOM:
        fault(where, f"{name_of(thing)}: no such kind as {key}")
    if key in schemas:
        for error in jsonschema.Draft7Validator(schemas[key]).iter_errors(thing):
            path = ".".join(str(part) for part in error.path)
            fault(where, f"{name_of(thing)}: {path}: {error.message}")
        return True
    return False


def pod_of(thing):
    return thing.get("spec", {}).get("template", {}).get("spec") if thing["kind"] in ("Deployment", "Job", "StatefulSet") else None


def check_pod(where, thing, pod):
    """The restricted profile of Kubernetes, and more than it asks for."""
    here = f"{where}: {name_of(thing)}"
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        fault(here, "must be runAsNonRoot with the seccomp profile RuntimeDefault")
    if pod.get("automountServiceAccountToken") is not False:
        fault(here, "needs no token of Kubernetes")
    for container in pod["containers"] + pod.get("initContainers", []):
        confined = container.get("securityContext", {})
        if confined != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
            fault(here, f"{container['name']} is not confined: {confined}")
        resources = container.get("resources", {})
        if "memory" not in resources.get("limits", {}) or set(resources.get("requests", {})) != {"cpu", "memory"}:
            fault(here, f"{container['name']} must say what it needs, and its limit of memory")
        for variable in container.get("env", []):
            secret = any(word in variable["name"] for word in ("PASSWORD", "SECRET", "KEY", "URL"))
            value = variable.get("value", "")
            if secret and value and "$(" not in value:
                fault(here, f"{container['name']}: {variable['name']} is written down; refer to a Secret")


def check_together(where, things):
    of_kind = lambda kind: [thing for thing in things if thing["kind"] == kind]
    if of_kind("Secret"):
        fault(where, "a Secret is rendered: they are the operator's to make, and in nobody's repository")
    server = next(thing for thing in of_kind("Deployment") if thing["metadata"]["name"] == "freehold")
    rolling = server["spec"]["strategy"]["rollingUpdate"]
    if rolling != {"maxUnavailable": 0, "maxSurge": 1}:
        fault(where, f"a rollout must not go below what is wanted: {rolling}")
    if "replicas" in server["spec"]:
        fault(where, "the autoscaler decides on replicas")
    settings = next(thing for thing in of_kind("ConfigMap") if thing["metadata"]["name"].startswith("freehold-") and "DRAIN_SECS" in thing["data"])["data"]
    needed = int(settings["DRAIN_SECS"]) + int(settings["SHUTDOWN_SECS"]) + 5
    given = server["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    if given < needed:
        fault(where, f"a server is killed after {given} s and needs {needed} s to stop")
    for thing in of_kind("Deployment"):
        labels = thing["spec"]["template"]["metadata"]["labels"].items()
        covered = [p for p in of_kind("PodDisruptionBudget") if p["spec"]["selector"]["matchLabels"].items() <= labels]
        if not covered:
            fault(where, f"{name_of(thing)} has no PodDisruptionBudget")
    denied = [p for p in of_kind("NetworkPolicy") if p["spec"]["podSelector"] == {} and p["spec"]["policyTypes"] == ["Ingress", "Egress"]]
    if not denied:
        fault(where, "nothing denies what is not allowed")
    hosts = [rule["host"] for ingress in of_kind("Ingress") for rule in ingress["spec"]["rules"]]
    if not any(host.startswith("*.") for host in hosts):
        fault(where, "the ingress has no host for every tenant")
    paths = [path["path"] for ingress in of_kind("Ingress") for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    if any("/metrics".startswith(path) for path in paths):
        fault(where, f"metrics are open to the public: {paths}")
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in things}
    for thing in things:
        for volume in (pod_of(thing) or {}).get("volumes", []):
            config = volume.get("configMap", {}).get("name")
            if config and ("ConfigMap", config) not in names:
                fault(where, f"{name_of(thing)} mounts the ConfigMap {config}, which there is not")


def check_copies(update):
    """kubectl reads nothing outside of an overlay's folder, so what is shipped for everybody is there once more."""
    shipped = (ROOT / "deploy/pgbouncer.ini").read_text()
    copy = KUBERNETES / "overlays/managed/pgbouncer.ini"
    entry = lambda text: [line for line in text.splitlines() if not line.startswith("freehold = host=")]
    if entry(copy.read_text()) != entry(shipped):
        fault(copy.name, "differs from deploy/pgbouncer.ini in more than where the database is")
    rules = ROOT / "deploy/prometheus/rules.yml"
    if rules.exists():
        resource = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "freehold"},
            "spec": yaml.safe_load(rules.read_text()),
        }
        head = "# Written by ./dev manifests --update from deploy/prometheus/rules.yml.\n"
        made = head + yaml.safe_dump(resource, sort_keys=False, allow_unicode=True, width=1000)
        copy = KUBERNETES / "base/prometheusrule.yaml"
        if update:
            copy.write_text(made)
        if not copy.exists() or copy.read_text() != made:
            fault(copy.name, "is not what deploy/prometheus/rules.yml says: ./dev manifests --update")


def main():
    kubectl, *rest = sys.argv[1:]
    update = "--update" in rest
    schemas = crds(rest[rest.index("--crds") + 1]) if "--crds" in rest else {}
    unchecked = set()
    check_copies(update)
    for overlay in sorted((KUBERNETES / "overlays").iterdir()):
        where = overlay.name
        rendered = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True)
        if rendered.returncode:
            fault(where, rendered.stderr)
            continue
        things = list(yaml.safe_load_all(rendered.stdout))
        for thing in things:
            if (thing["apiVersion"], thing["kind"]) in CUSTOM or "." in thing["apiVersion"].split("/")[0] and not thing["apiVersion"].split("/")[0].endswith("k8s.io"):
                if not check_custom(where, thing, schemas):
                    unchecked.add(thing["kind"])
            else:
                check_schema(where, thing)
            pod = pod_of(thing)
            if pod:
                check_pod(where, thing, pod)
        check_together(where, things)
        snapshot = KUBERNETES / "rendered" / f"{where}.yaml"
        if update:
            snapshot.parent.mkdir(exist_ok=True)
            snapshot.write_text(rendered.stdout)
        known = snapshot.read_text() if snapshot.exists() else ""
        if known != rendered.stdout:
            difference = difflib.unified_diff(known.splitlines(), rendered.stdout.splitlines(), "snapshot", "rendered", lineterm="", n=1)
            fault(where, "rendered otherwise than the snapshot (./dev manifests --update, and read the difference):\n" + "\n".join(list(difference)[:60]))
        print(f"{where}: {len(things)} objects", file=sys.stderr)
    if unchecked:
        print("without a schema here (--crds FOLDER): " + ", ".join(sorted(unchecked)), file=sys.stderr)
    for line in faults:
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
