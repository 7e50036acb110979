"""Two-step problems whose steps are written out before the answer."""

from chat import Example
from words import NAMES, THINGS


def chain(rng):
    """a + b - c and its kin, worked from left to right, never below zero."""
    value, text, steps = rng.randint(0, 60), "", []
    text = str(value)
    for _ in range(rng.choice([2, 2, 3])):
        operand = rng.randint(0, 39)
        if operand <= value and rng.random() < 0.5:
            sign, after = "-", value - operand
        else:
            sign, after = "+", value + operand
        steps.append(f"{value} {sign} {operand} = {after}.")
        text, value = f"{text} {sign} {operand}", after
    ask = rng.choice(["What is {t}?", "{t}", "Compute {t}.", "How much is {t}?", "Calculate {t}."])
    return ask.format(t=text), steps, str(value)


def story(rng):
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    a, b = rng.randint(2, 60), rng.randint(1, 39)
    c = rng.randint(1, min(39, a + b))
    text = rng.choice(
        [
            "{w} has {a} {t}, gets {b} more and gives {c} away. How many {t} are left?",
            "{w} had {a} {t}. {w} found {b} and lost {c}. How many {t} does {w} have now?",
        ]
    ).format(w=who, a=a, b=b, c=c, t=things)
    return text, [f"{a} + {b} = {a + b}.", f"{a + b} - {c} = {a + b - c}."], str(a + b - c)


def product(rng):
    a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(0, 50)
    text = rng.choice(["What is {a} * {b} + {c}?", "{a} * {b} + {c}", "Compute {a} * {b} + {c}."])
    steps = [f"{a} * {b} = {a * b}.", f"{a * b} + {c} = {a * b + c}."]
    return text.format(a=a, b=b, c=c), steps, str(a * b + c)


def comparison(rng):
    a, b, c = rng.randint(0, 60), rng.randint(0, 39), rng.randint(0, 99)
    text = rng.choice(["Which is larger: {a} + {b} or {c}?", "Which is bigger, {a} + {b} or {c}?"])
    total = a + b
    sign = ">" if total > c else "<" if total < c else "="
    steps = [f"{a} + {b} = {total}.", f"{total} {sign} {c}."]
    return text.format(a=a, b=b, c=c), steps, str(max(total, c))


def make(rng):
    maker = rng.choices([chain, story, product, comparison], [4, 3, 2, 1.5])[0]
    text, steps, answer = maker(rng)
    messages = [{"role": "user", "content": text}]
    return Example("reasoning", messages, answer, {"text": [answer]}, None, " ".join(steps))
