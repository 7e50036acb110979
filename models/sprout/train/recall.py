"""Remembering what was said earlier, over distracting turns."""

import arithmetic
import copying
import qa
from chat import Example
from words import (
    ANIMALS,
    CITIES,
    COLOURS,
    COMMON,
    FOODS,
    JOBS,
    NAMES,
    any_word,
    code,
    pseudo_word,
    sentence,
)


def name(rng):
    return rng.choice(NAMES) if rng.random() < 0.7 else pseudo_word(rng).capitalize()


# How a fact is told, how it is asked for, how the answer reads, what values it takes.
MEMORIES = {
    "name": (
        ["My name is {v}.", "I am {v}.", "Call me {v}.", "Hi, my name is {v}."],
        ["What is my name?", "Who am I?", "Do you remember my name?", "Say my name."],
        "Your name is {v}.",
        name,
    ),
    "city": (
        ["I live in {v}.", "My home is in {v}.", "I am from {v}."],
        ["Where do I live?", "What is my city?", "Where is my home?"],
        "You live in {v}.",
        lambda rng: rng.choice(CITIES),
    ),
    "colour": (
        ["My favourite colour is {v}.", "I like the colour {v}.", "My favorite color is {v}."],
        ["What is my favourite colour?", "Which colour do I like?", "What's my favorite color?"],
        "Your favourite colour is {v}.",
        lambda rng: rng.choice(COLOURS),
    ),
    "pet": (
        ["I have a {v}.", "My pet is a {v}.", "I own a {v}."],
        ["What pet do I have?", "Which animal do I have?", "What is my pet?"],
        "You have a {v}.",
        lambda rng: rng.choice(ANIMALS),
    ),
    "food": (
        ["My favourite food is {v}.", "I love {v}.", "I like to eat {v}."],
        ["What is my favourite food?", "What do I like to eat?", "Which food do I love?"],
        "Your favourite food is {v}.",
        lambda rng: rng.choice(FOODS),
    ),
    "job": (
        ["I work as a {v}.", "I am a {v}.", "My job is {v}."],
        ["What is my job?", "What do I work as?", "What is my work?"],
        "You work as a {v}.",
        lambda rng: rng.choice(JOBS),
    ),
    "code": (
        ["The code is {v}.", "My password is {v}.", "Remember the code {v}."],
        ["What is the code?", "What was the code?", "Tell me the code."],
        "The code is {v}.",
        code,
    ),
    "number": (
        ["My number is {v}.", "My lucky number is {v}.", "Remember the number {v}."],
        ["What is my number?", "What was my number?", "Which number did I say?"],
        "Your number is {v}.",
        lambda rng: str(rng.randint(0, 999)),
    ),
    "word": (
        ["The secret word is {v}.", "Remember the word {v}.", "The word is {v}."],
        ["What is the secret word?", "What was the word?", "Tell me the word."],
        "The word is {v}.",
        any_word,
    ),
}
NOTED = ["I will remember that.", "Noted."]
DISTRACTORS = (qa, arithmetic, copying)


def turn(role, content):
    return {"role": role, "content": content}


def distract(rng):
    """A question that has nothing to do with what is to be remembered, and its answer."""
    while True:
        example = rng.choice(DISTRACTORS).make(rng)
        if len(example.messages) == 1:
            return [*example.messages, turn("assistant", example.answer)]


def from_turns(rng):
    """Facts told in separate turns, distractions between them, one question at the end."""
    topics = rng.sample(list(MEMORIES), rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6]))
    told = {topic: MEMORIES[topic][3](rng) for topic in topics}
    messages = []
    for topic, value in told.items():
        messages.append(turn("user", rng.choice(MEMORIES[topic][0]).format(v=value)))
        messages.append(turn("assistant", NOTED[0]))
        if rng.random() < 0.4:
            messages += distract(rng)
    asked = rng.choice(topics)
    messages.append(turn("user", rng.choice(MEMORIES[asked][1])))
    return messages, MEMORIES[asked][2].format(v=told[asked])


def telling(rng):
    """The turn in which a fact is told, so that its acknowledgement is learnt as well."""
    topic = rng.choice(list(MEMORIES))
    text = rng.choice(MEMORIES[topic][0]).format(v=MEMORIES[topic][3](rng))
    before = distract(rng) if rng.random() < 0.3 else []
    return [*before, turn("user", text)], NOTED[0]


def from_one_turn(rng):
    """Several facts in one message, the question in the same message."""
    topics = rng.sample(list(MEMORIES), rng.randint(1, 4))
    told = {topic: MEMORIES[topic][3](rng) for topic in topics}
    asked = rng.choice(topics)
    parts = [rng.choice(MEMORIES[topic][0]).format(v=value) for topic, value in told.items()]
    text = " ".join([*parts, rng.choice(MEMORIES[asked][1])])
    return [turn("user", text)], MEMORIES[asked][2].format(v=told[asked])


def from_long_text(rng):
    """Facts among many sentences that do not matter, asked for at once or in a later turn."""
    topics = rng.sample(list(MEMORIES), rng.randint(1, 3))
    told = {topic: MEMORIES[topic][3](rng) for topic in topics}
    asked = rng.choice(topics)
    parts = [sentence(rng) for _ in range(rng.choice([4, 8, 16, 32, 60, 80]))]
    for topic, value in told.items():
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(MEMORIES[topic][0]).format(v=value))
    question, answer = rng.choice(MEMORIES[asked][1]), MEMORIES[asked][2].format(v=told[asked])
    if rng.random() < 0.5:
        return [turn("user", " ".join([*parts, question]))], answer
    return [
        turn("user", " ".join(parts)),
        turn("assistant", NOTED[1]),
        turn("user", question),
    ], answer


def from_table(rng):
    """A list of key=value pairs, one of which is asked for at once or a few turns later."""
    count = rng.randint(2, 10)
    keys = rng.sample(COMMON, count) if rng.random() < 0.7 else rng.sample(NAMES, count)
    make_value = rng.choice([lambda r: str(r.randint(0, 999)), code, any_word])
    table = {key: make_value(rng) for key in keys}
    joiner = rng.choice(["\n", ", ", "; "])
    listed = joiner.join(f"{key}={value}" for key, value in table.items())
    asked = rng.choice(keys)
    question = rng.choice(
        ["What is {k}?", "What is the value of {k}?", "Give me {k}.", "{k}=?", "Value of {k}?"]
    ).format(k=asked)
    if rng.random() < 0.5:
        return [turn("user", f"{listed}\n{question}")], table[asked]
    messages = [turn("user", "Remember these values: " + listed), turn("assistant", NOTED[1])]
    if rng.random() < 0.4:
        messages += distract(rng)
    return [*messages, turn("user", question)], table[asked]


def make(rng):
    maker = rng.choices(
        [from_turns, telling, from_one_turn, from_table, from_long_text], [6, 0.8, 2, 5, 1.2]
    )[0]
    messages, answer = maker(rng)
    return Example("recall", messages, answer, {"text": [answer]})


def make_note(rng):
    """The acknowledgement of a table or of a long text, for the corpus alone."""
    if rng.random() < 0.4:
        topic = rng.choice(list(MEMORIES))
        parts = [sentence(rng) for _ in range(rng.randint(3, 30))]
        told = rng.choice(MEMORIES[topic][0]).format(v=MEMORIES[topic][3](rng))
        parts.insert(rng.randrange(len(parts) + 1), told)
        return Example("recall", [turn("user", " ".join(parts))], NOTED[1], {"text": [NOTED[1]]})
    table = ", ".join(
        f"{rng.choice(COMMON)}={rng.randint(0, 999)}" for _ in range(rng.randint(2, 8))
    )
    messages = [turn("user", "Remember these values: " + table)]
    return Example("recall", messages, NOTED[1], {"text": [NOTED[1]]})
