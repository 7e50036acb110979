"""What agents are asked to do, and what the scripted models then say."""

import dataclasses
import secrets
from pathlib import Path

import scenes

SEARCHED = "Nothing is scheduled."
THOUGHT = "I should read the file first."
# Where the template has told the model not to think, the prompt ends like this.
NO_THOUGHTS = "<think>\n\n</think>\n\n"


@dataclasses.dataclass
class Task:
    """One agent's errands in a folder of its own: a greeting, and the secret of a file.

    The model can only say the secret once the file's words stand in its prompt, where nothing but
    the agent's tool can have brought them.
    """

    agent: str
    folder: Path
    tool: str
    argument: str
    command: str
    secret: str = dataclasses.field(default_factory=lambda: f"heron-{secrets.token_hex(4)}")

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        (self.folder / "note.txt").write_text(f"The secret is {self.secret}.\n")

    @property
    def greeting(self):
        return f"Greet {self.agent}."

    @property
    def errand(self):
        return f"Tell {self.agent} the secret in note.txt."

    @property
    def answer(self):
        return f"{self.agent}, the file says {self.secret}."

    def scenes(self, call, thinks):
        """`call` writes a call in the model's form; one that thinks does so before its call."""
        made = call(self.tool, {self.argument: self.command.format(file=self.folder / "note.txt")})
        told = [
            scenes.scene(self.errand, self.secret, say=self.answer),
            scenes.scene(self.errand, say=made),
            scenes.scene(self.greeting, say=scenes.GREETING),
        ]
        if self.agent == "claude":
            told += self.scenes_of_a_search(call)
        if thinks:
            thought = f"<think>\n{THOUGHT}\n</think>\n\n{made}"
            told.insert(1, scenes.scene(self.errand, unless=[NO_THOUGHTS], say=thought))
        return told


    @property
    def search(self):
        return f"Tell {self.agent} what is scheduled."

    def scenes_of_a_search(self, call):
        """A tool whose name is told and whose definition is only sent once it was searched."""
        said = call("ToolSearch", {"query": "select:CronList", "max_results": 5})
        return [
            scenes.scene(self.search, call("CronList", {}), say=SEARCHED),
            scenes.scene(self.search, said, say=call("CronList", {})),
            scenes.scene(self.search, say=said),
        ]


def tasks(directory):
    """Each agent's own tool for reading a file, as its requests offer it."""
    folder = directory / "errands"
    return [
        Task("claude", folder / "claude", "Read", "file_path", "{file}"),
        Task("codex", folder / "codex", "exec_command", "cmd", "cat {file}"),
        Task("qwen", folder / "qwen", "read_file", "file_path", "{file}"),
    ]
