#!/usr/bin/env python3
"""Checks deploy/compose.yaml, which no test starts: against the Compose specification, and that what it
names is there: files, services, volumes, and the variables of example.env.

usage: compose.py
"""

import json
import pathlib
import re
import sys

import compose_spec
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"

faults = []


def against_specification(whole):
    """Unknown keys, malformed values, configurations that are not defined."""
    try:
        parsed = compose_spec.PyCompose.from_json(json.dumps(whole))
        parsed.validate()
        parsed.validate_configs()
        parsed.to_spec()
    except ValueError as error:
        faults.append(str(error))


def check_names(whole):
    services = whole["services"]
    for name, service in services.items():
        needed = service.get("depends_on", {})
        faults.extend(f"{name} waits for {other}, which there is not" for other in needed if other not in services)
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            if not target.startswith("/"):
                faults.append(f"{name}: {mount} has no absolute target")
            if source.startswith("."):
                check_file(name, source)
            elif source not in whole["volumes"]:
                faults.append(f"{name}: the volume {source} is not defined")
        build = service.get("build")
        if build:
            context = (DEPLOY / build["context"]).resolve()
            if not (context / build["dockerfile"]).is_file():
                faults.append(f"{name}: {build} does not lead to a Containerfile")
    for name, config in whole["configs"].items():
        check_file(f"config {name}", config["file"])


def check_file(where, path):
    if not (DEPLOY / path).exists():
        faults.append(f"{where}: {path} is not there")


def check_variables(text):
    """Each is in example.env, and each there is used. `$$` is the container's own shell's."""
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", text))
    given = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "compose/example.env").read_text(), re.MULTILINE))
    if used != given:
        faults.append(f"example.env lacks {sorted(used - given)}, and has without need {sorted(given - used)}")


def main():
    text = (DEPLOY / "compose.yaml").read_text()
    whole = yaml.safe_load(text)
    against_specification(whole)
    check_names(whole)
    check_variables(text)
    for fault in faults:
        print(f"compose.yaml: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
