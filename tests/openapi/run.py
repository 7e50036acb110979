#!/usr/bin/env python3
"""Tries what the OpenAPI document says against a gateway that runs.

    pip install schemathesis
    cargo demo                          # in another terminal
    python tests/openapi/run.py --url http://127.0.0.1:31313 --model sprout

Bodies are drawn from the document: right ones, and ones that are wrong in every way that it can
think of. No answer may be a 5xx, and every answer must have the shape that the document gives it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

CHECKS = "not_a_server_error,response_schema_conformance,status_code_conformance"


def document(url, model):
    """The served document, with answers bounded so that a run ends."""
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        found = json.load(answer)
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        fields = schema.get("properties", {})
        if "model" in fields and "maxLength" not in fields["model"]:
            # One half asks the model that is there, the other any.
            fields["model"] = {"anyOf": [{"const": model}, fields["model"]]}
        for name in ("max_tokens", "max_output_tokens", "max_completion_tokens"):
            for part in [fields.get(name, {}), *fields.get(name, {}).get("anyOf", [])]:
                if "maximum" in part:
                    part["maximum"] = 4
    return found


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--url", default="http://127.0.0.1:31313")
    options.add_argument("--model", default="sprout")
    options.add_argument("--examples", default="60", help="bodies for each route and kind")
    asked = options.parse_args()
    programs = os.path.dirname(os.path.abspath(sys.executable))
    program = os.path.join(programs, "schemathesis")
    # In a folder that goes away, since it leaves a cache where it runs.
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "openapi.json"), "w", encoding="utf-8") as file:
            json.dump(document(asked.url, asked.model), file)
        command = [program, "run", "openapi.json", "--url", asked.url, "--checks", CHECKS,
                   "--seed", "7", "--max-examples", asked.examples, "--mode", "all",
                   "--phases", "examples,coverage,fuzzing"]
        return subprocess.run(command, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
