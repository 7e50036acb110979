#!/usr/bin/env python3
"""Renders published chat templates, with transformers and with this project, byte for byte.

    pip install transformers jinja2
    python tests/templates/run.py              # needs PyPI once
    python tests/templates/run.py --work ~/templates   # keeps what was fetched

The templates are those that model publishers ship, as a source distribution on PyPI collects them;
they are fetched, not kept here. Each renders the sixty conversations of `crates/text`. Those of the
families that are served have to agree on every one, refusals included; of the others, the table
says on how many they agree.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/text/tests/fixtures/qwen"
sys.dont_write_bytecode = True
sys.path.insert(0, str(FIXTURES))
import make  # noqa: E402

PACKAGE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
FOLDER = "vendor/llama.cpp/models/templates/"
SERVED = ["Qwen-Qwen3-0.6B", "Qwen3-Coder", "Qwen3.5-4B", "Qwen-QwQ-32B",
          "Qwen-Qwen2.5-7B-Instruct"]
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def templates(work):
    """Name -> source, of the pinned distribution."""
    found = list(work.glob("*.tar.gz"))
    if not found:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
               ":all:", "--dest", str(work), PACKAGE]
        # Its metadata is made with a build tool, which may be a wheel.
        pip[pip.index(":all:")] = PACKAGE.split("==")[0]
        subprocess.run(pip, check=True)
        found = list(work.glob("*.tar.gz"))
    archive = found[0]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{archive}: its SHA-256 is {digest}, not {SHA256}")
    sources = {}
    with tarfile.open(archive) as files:
        for file in files:
            if FOLDER in file.name and file.name.endswith(".jinja"):
                name = Path(file.name).stem
                sources[name] = files.extractfile(file).read().decode()
    return sources


def reference(source, bodies):
    """What transformers makes of each body: a text, or `None` if it refuses."""
    template = _compile_jinja_template(source)

    def render(body):
        try:
            return template.render(
                messages=make.prepared(body), tools=body.get("tools"), documents=None,
                add_generation_prompt=True, **SPECIAL_TOKENS, **make.variables(body))
        except Exception:  # whatever stops a template is a refusal
            return None

    return [render(body) for body in bodies]


def ours(sources, bodies):
    """The same by `crates/text/examples/render.rs`, and the words of each refusal."""
    lines = "".join(json.dumps({"template": source, "bodies": bodies}) + "\n"
                    for source in sources.values())
    command = ["cargo", "run", "--quiet", "--package", "text", "--example", "render"]
    ran = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(ran.stderr)
    # Prompts hold other characters that Python ends a line with.
    told = ran.stdout.removesuffix("\n").split("\n")
    return dict(zip(sources, map(json.loads, told), strict=True))


def difference(body, expected, got):
    """Where two renderings part, in words."""
    if expected is None or "refused" in got:
        return f"reference {expected is None and 'refuses' or 'renders'}, here: {got}"
    said = got["rendered"]
    at = len(os.path.commonprefix([expected, said]))
    return (f"at {at} of {json.dumps(body)}:\n    {expected[at - 40:at + 60]!r}\n"
            f"    {said[at - 40:at + 60]!r}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--work", type=Path, help="a folder that keeps what was fetched")
    options.add_argument("--all", action="store_true", help="tell every difference of every family")
    asked = options.parse_args()
    cases = json.loads((FIXTURES / "conversations.json").read_text())
    bodies = [case["body"] for case in cases]
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        sources = templates(work)
    rendered = ours(sources, bodies)
    failed = [name for name in SERVED if name not in sources]
    for name, source in sources.items():
        expected = reference(source, bodies)
        pairs = list(zip(bodies, expected, rendered[name], strict=True))
        differ = [(b, e, g) for b, e, g in pairs if e != g.get("rendered")]
        texts = sum(1 for text in expected if text is not None)
        served = name in SERVED
        verdict = "ok" if not differ else "FAILED" if served else "differs"
        print(f"{verdict:8} {len(bodies) - len(differ):3} of {len(bodies)} agree, {texts:2} of them"
              f" as texts: {name}{' (served)' if served else ''}")
        if differ and (served or asked.all):
            failed += [name] if served else []
            print("  " + difference(*differ[0]))
    print("FAILED: " + ", ".join(failed) if failed else f"all of {len(SERVED)} served agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
