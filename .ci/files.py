"""Whether the files that no test of ours reads can be read by those they are for."""

import json
import subprocess
import sys
from pathlib import Path

import yaml


def readers():
    for path in [*Path("ops").rglob("*.y*ml"), Path("docker-compose.yml")]:
        yield path, lambda text: list(yaml.safe_load_all(text))
    for path in Path("ops").rglob("*.json"):
        yield path, json.loads
    for path in Path(".ci").iterdir():
        if path.read_text().startswith("#!/usr/bin/env bash"):
            yield path, lambda text: subprocess.run(["bash", "-n"], input=text.encode(), check=True)


failed = 0
for path, read in readers():
    try:
        read(path.read_text())
        print(f"ok  {path}")
    except Exception as error:
        failed += 1
        print(f"bad {path}: {error}", file=sys.stderr)
sys.exit(failed != 0)
