"""Word lists and small random strings that the exercises are built from."""

COMMON = """apple river stone cloud green table window garden silver yellow winter summer morning
evening paper pencil bottle bridge candle castle circle coffee copper cotton desert dragon eagle
engine farmer finger flower forest friend guitar hammer island jacket jungle kitten ladder lemon
letter lion market meadow mirror monkey mountain needle ocean orange owl palace panda parrot
pepper piano pillow pirate planet pocket potato puzzle rabbit rain ribbon rocket saddle salmon
school shadow sheep ship shovel snow soup spider spoon spring square star station storm street
sugar sun tiger ticket tomato tower train tree truck tulip turtle valley velvet violin wagon wall
water whale wheat wheel wind wolf wood yarn zebra bread chair clock dance earth field flame glass
grape house juice knife lamp light maple night north onion pearl plant queen radio road salt sand
seed shelf shirt sky smile smoke south stairs tent thread tooth uncle voice west world""".split()

NAMES = """Mira Tom Ana Ben Cleo Dora Eli Finn Gina Hugo Ida Jack Kira Leo Mona Nils Olga Pia Quinn
Rosa Sam Tara Uma Vera Walt Xena Yara Zoe Adam Beth Carl Dana Emma Felix Greta Henry Iris Jonas
Karl Lena Max Nora Oscar Paul Rita Sven Tina Ursula Victor Wendy Alice Bob Carol Dave Erin Frank
Grace Heidi Ivan Judy Lucy Marco Peter Ruth Simon Theo""".split()

CITIES = """Paris London Berlin Madrid Rome Oslo Vienna Prague Lisbon Dublin Athens Warsaw Cairo
Tokyo Delhi Lima Boston Chicago Sydney Toronto Zurich Geneva Munich Hamburg Helsinki Stockholm
Kyoto Seoul Havana Nairobi""".split()

COLOURS = "red blue green yellow purple orange pink brown black white grey silver".split()
ANIMALS = "cat dog horse rabbit parrot hamster turtle fox goat duck lizard pony".split()
FOODS = "pizza pasta soup rice salad bread cheese cake noodles curry toast beans".split()
JOBS = "baker teacher doctor pilot farmer painter sailor writer nurse singer lawyer cook".split()
THINGS = "apples books coins pencils marbles stickers shells stamps cards balls".split()

ONSETS = "b c d f g h j k l m n p r s t v w z br cl dr fl gr pl st tr sh th".split()
VOWELS = "a e i o u ai ea oo ou".split()
CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "x", "nd", "sk"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def pseudo_word(rng):
    """A word that can be said and most likely means nothing."""
    return "".join(
        rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
        for _ in range(rng.randint(1, 3))
    )


def code(rng, shortest=3, longest=8):
    """Letters and digits, such as a password or a key."""
    return "".join(
        rng.choice(LETTERS + "0123456789") for _ in range(rng.randint(shortest, longest))
    )


def digits(rng, shortest=3, longest=9):
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(shortest, longest)))


NOUNS = COMMON[:120]
VERBS = "sees finds holds likes moves paints carries follows keeps wants".split()
ADJECTIVES = "old new small big quiet round cold warm bright heavy".split()
PLACES = ["near the {n}", "in {c}", "on the {n}", "with {p}", "under the {n}", "before {p} does"]


def sentence(rng):
    """A sentence that means little: background for what matters in a long prompt."""
    place = rng.choice(PLACES).format(
        n=rng.choice(NOUNS), c=rng.choice(CITIES), p=rng.choice(NAMES)
    )
    subject = f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    if rng.random() < 0.3:
        subject = rng.choice(NAMES)
    return f"{subject} {rng.choice(VERBS)} a {rng.choice(NOUNS)} {place}."


def any_word(rng):
    """A common word two times in three, else one that was made up."""
    return rng.choice(COMMON) if rng.random() < 0.66 else pseudo_word(rng)
