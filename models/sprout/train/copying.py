"""Copying exactly, reversing, upper-casing, counting, first and last."""

from chat import Example
from words import COMMON, LETTERS, any_word, code, digits, sentence

REPEAT = [
    "Repeat exactly: {x}",
    "Repeat after me: {x}",
    "Copy this: {x}",
    "Say: {x}",
    "Echo {x}",
    "Write exactly this: {x}",
    "Repeat the following text: {x}",
    "Please repeat: {x}",
    "Print this back to me: {x}",
    "Say this again: {x}",
]
REVERSE = [
    "Reverse the order: {x}",
    "Reverse: {x}",
    "Write backwards: {x}",
    "In reverse order: {x}",
]
UPPER = [
    "Write in upper case: {x}",
    "Upper-case this: {x}",
    "Make this upper case: {x}",
    "Capital letters please: {x}",
]
COUNT = ["How many words: {x}", "Count the words: {x}", "How many words are in this: {x}"]
COUNT_UP = [
    "Count from {a} to {b}.",
    "Count from {a} up to {b}",
    "List the numbers from {a} to {b}.",
    "Write the numbers {a} to {b}.",
]
FIRST = ["What is the first word of: {x}", "First word: {x}", "Give me the first word of: {x}"]
LAST = ["What is the last word of: {x}", "Last word: {x}", "Give me the last word of: {x}"]


def payload(rng):
    """Something to copy: words, a code, digits, or a line of mixed things."""
    draw = rng.random()
    if draw < 0.35:
        return " ".join(any_word(rng) for _ in range(rng.randint(1, 9)))
    if draw < 0.4:
        return " ".join(any_word(rng) for _ in range(rng.randint(10, 24)))
    if draw < 0.45:
        return sentence(rng)
    if draw < 0.55:
        return code(rng, 3, 10)
    if draw < 0.7:
        return digits(rng, 2, 12)
    if draw < 0.8:
        return ", ".join(any_word(rng).capitalize() for _ in range(rng.randint(2, 5)))
    if draw < 0.9:
        return "-".join(code(rng, 2, 4) for _ in range(rng.randint(2, 4)))
    words = [any_word(rng), digits(rng, 1, 4), any_word(rng).capitalize(), code(rng, 2, 5)]
    rng.shuffle(words)
    return " ".join(words) + rng.choice(["", "!", ".", "?", " :)"])


def items(rng):
    """A short list whose order can be turned around."""
    draw = rng.random()
    if draw < 0.4:
        return [rng.choice(COMMON) for _ in range(rng.randint(2, 5))]
    alphabet = "0123456789" if draw < 0.7 else LETTERS
    return [rng.choice(alphabet) for _ in range(rng.randint(3, 7))]


def make(rng):
    draw = rng.random()
    words = [rng.choice(COMMON) for _ in range(rng.randint(1, 7))]
    if draw < 0.6:
        answer = payload(rng)
        text = rng.choice(REPEAT).format(x=answer)
        if rng.random() < 0.1:
            text = rng.choice(['Repeat the text in quotes: "{x}"', 'Say "{x}"']).format(x=answer)
    elif draw < 0.72:
        listed = items(rng)
        text, answer = rng.choice(REVERSE).format(x=" ".join(listed)), " ".join(reversed(listed))
    elif draw < 0.82:
        words = words[:3]
        text, answer = rng.choice(UPPER).format(x=" ".join(words)), " ".join(words).upper()
    elif draw < 0.9:
        text, answer = rng.choice(COUNT).format(x=" ".join(words)), str(len(words))
    elif draw < 0.94:
        a = rng.choice([1, 1, rng.randint(0, 90)])
        b = a + rng.randint(2, 29)
        text = rng.choice(COUNT_UP).format(a=a, b=b)
        answer = ", ".join(str(number) for number in range(a, b + 1))
    else:
        words.append(any_word(rng))
        forms, answer = rng.choice([(FIRST, words[0]), (LAST, words[-1])])
        text = rng.choice(forms).format(x=" ".join(words))
    return Example("copy", [{"role": "user", "content": text}], answer, {"text": [answer]})
