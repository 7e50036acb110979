"""Numbers of a training run, kept beside the weights for the model card."""

import json


def write_scores(folder, numbers):
    text = json.dumps(numbers, indent=1)
    (folder / "scores.json").write_text(text + "\n")
    print(text, flush=True)
