"""The chat format: rendering prompts, splitting them into loss regions, judging answers."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

TEMPLATE_PATH = Path(__file__).resolve().parent.parent / "chat_template.jinja"


@dataclass
class Example:
    """One conversation that ends with a user or tool turn, and the answer to be learnt."""

    kind: str
    messages: list
    answer: str
    expect: dict
    tools: list | None = None
    reasoning: str | None = None

    def completion(self):
        """The text that follows the generation prompt, without the end-of-turn token."""
        if self.reasoning is None:
            return self.answer
        return f"{self.reasoning}\n</think>\n\n{self.answer}"


@dataclass
class Renderer:
    """Renders as HF transformers does; `compact` and `sort_keys` imitate other JSON writers."""

    compact: bool = False
    sort_keys: bool = False
    template: jinja2.Template = field(init=False)

    def __post_init__(self):
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = self.to_json
        self.template = environment.from_string(TEMPLATE_PATH.read_text())

    def to_json(self, value):
        separators = (",", ":") if self.compact else None
        return json.dumps(
            value, ensure_ascii=False, separators=separators, sort_keys=self.sort_keys
        )

    def prompt(self, example):
        return self.template.render(
            messages=example.messages,
            tools=example.tools,
            add_generation_prompt=True,
            enable_thinking=example.reasoning is not None,
        )


def parse_tool_call(text):
    """The single `<tool_call>` block of a text as an object, or None when there is none."""
    head, _, rest = text.partition("<tool_call>")
    body, closing, _ = rest.partition("</tool_call>")
    if head.strip() or not closing:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def judge(expect, text, thinking):
    """Whether a generated text is right. After reasoning only what follows the block counts."""
    if thinking:
        _, closing, text = text.partition("</think>")
        if not closing:
            return False
    text = text.strip()
    if "text" in expect:
        return text in [accepted.strip() for accepted in expect["text"]]
    if "json" in expect:
        try:
            return json.loads(text) == expect["json"]
        except ValueError:
            return False
    call = parse_tool_call(text)
    wanted = expect["tool_call"]
    return (
        isinstance(call, dict)
        and call.get("name") == wanted["name"]
        and call.get("arguments") == wanted["arguments"]
    )


def tool_call_text(name, arguments):
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"
