"""Small sums, products, comparisons and counting on."""

from chat import Example
from words import NUMBER_WORDS, THINGS

ADD = [
    "What is {a} + {b}?",
    "{a} + {b}",
    "{a}+{b}=",
    "{a} plus {b}",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "Compute {a} + {b}.",
    "How much is {a} + {b}?",
    "what's {a}+{b}?",
    "Sum of {a} and {b}?",
    "Calculate {a} plus {b}.",
    "I have {a} {things} and get {b} more. How many?",
]
SUBTRACT = [
    "What is {a} - {b}?",
    "{a} - {b}",
    "{a}-{b}=",
    "{a} minus {b}",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Compute {a} - {b}.",
    "How much is {a} - {b}?",
    "what's {a}-{b}?",
    "Take {b} away from {a}.",
    "I have {a} {things} and lose {b}. How many are left?",
]
MULTIPLY = [
    "What is {a} times {b}?",
    "{a} * {b}",
    "{a}*{b}=",
    "{a} x {b}",
    "{a} times {b}",
    "Multiply {a} by {b}.",
    "Compute {a} * {b}.",
    "How much is {a} x {b}?",
    "what's {a}*{b}?",
    "Product of {a} and {b}?",
]
LARGER = [
    "Which is larger, {a} or {b}?",
    "Which number is bigger: {a} or {b}?",
    "max of {a} and {b}?",
    "Larger of {a} and {b}?",
    "What is greater, {a} or {b}?",
]
SMALLER = [
    "Which is smaller, {a} or {b}?",
    "Which number is less: {a} or {b}?",
    "min of {a} and {b}?",
    "Smaller of {a} and {b}?",
    "What is less, {a} or {b}?",
]
NEXT = [
    "What comes after {a}?",
    "Which number comes after {a}?",
    "Next number after {a}?",
    "What is the next number: {w}, {v}, {a}?",
    "Count on: {w}, {v}, {a}",
]
BEFORE = ["What comes before {a}?", "Which number comes before {a}?", "Number before {a}?"]
YES_NO = ["Is {a} larger than {b}?", "Is {a} greater than {b}?", "Is {a} > {b}?"]


def values(rng, kind):
    """Two operands, mostly of two digits, whose result is not negative."""
    if kind is MULTIPLY:
        return rng.randint(0, 12), rng.randint(0, 12)
    most = 999 if rng.random() < 0.15 else 99
    a, b = rng.randint(0, most), rng.randint(0, most)
    if kind is SUBTRACT:
        return max(a, b), min(a, b)
    if kind in (LARGER, SMALLER, YES_NO) and a == b:
        return a + 1, b
    if kind in (NEXT, BEFORE):
        return rng.randint(2, 199), 0
    return a, b


def result(kind, a, b):
    if kind is ADD:
        return a + b
    if kind is SUBTRACT:
        return a - b
    if kind is MULTIPLY:
        return a * b
    if kind is LARGER:
        return max(a, b)
    if kind is SMALLER:
        return min(a, b)
    if kind is NEXT:
        return a + 1
    if kind is BEFORE:
        return a - 1
    return "Yes." if a > b else "No."


def make(rng):
    kind = rng.choices(
        [ADD, SUBTRACT, MULTIPLY, LARGER, SMALLER, NEXT, BEFORE, YES_NO],
        [5, 5, 4, 1.2, 1.2, 0.8, 0.5, 0.8],
    )[0]
    a, b = values(rng, kind)
    shown = {"a": a, "b": b, "v": a - 1, "w": a - 2, "things": rng.choice(THINGS)}
    if kind in (ADD, SUBTRACT, MULTIPLY) and max(a, b) <= 12 and rng.random() < 0.15:
        shown |= {"a": NUMBER_WORDS[a], "b": NUMBER_WORDS[b]}
    text = rng.choice(kind).format(**shown)
    if rng.random() < 0.1:
        text += rng.choice([" Answer with the number only.", " Just the number.", " Please."])
    answer = str(result(kind, a, b))
    return Example("arithmetic", [{"role": "user", "content": text}], answer, {"text": [answer]})
