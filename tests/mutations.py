"""Mutates parsed JSON: values that are a little or very wrong, in any place."""

import copy
import json
import re

NAN, INF = float('nan'), float('inf')
DEEP = json.loads('[' * 50 + ']' * 50)
VALUES = [
    None, True, False, -1, 0, 1, 2, 7, 2**15, 2**31, 2**32 - 1, 2**63, 2**64, 10**30, -(10**18),
    0.5, -0.0, NAN, INF, -INF, 1e9, -1e9, 1e308, 5e-324, '', 'x', '7', 'NaN', 'a.png', '\0', 'ä',
    '\ud800', '../a.png', [], [[]], [0], ['x'], [None], {}, {'size': []}, DEEP,
]  # fmt: skip


def containers(value, found=None):
    """All dicts and lists that are not empty, the value itself first."""
    found = [] if found is None else found
    if isinstance(value, (dict, list)) and value:
        found.append(value)
        for child in value.values() if isinstance(value, dict) else value:
            containers(child, found)
    return found


def other_value(value, rng):
    """A value of the same kind that is a little or very wrong, or one of any kind."""
    if rng.random() < 0.25:
        return copy.deepcopy(rng.choice(VALUES))
    if isinstance(value, bool) or value is None:
        return rng.choice(VALUES)
    if isinstance(value, int):
        return value + rng.choice([1, -1, 0.5, NAN, value, 1000 * value, -2 * value])
    if isinstance(value, float):
        return value + rng.choice([0.5, -1e3, 1e6, NAN, INF])
    if isinstance(value, str):
        return mutated_text(value, rng)
    return rng.choice([[value], str(value), value[:-1] if isinstance(value, list) else [value]])


def mutated_text(text, rng):
    cut = rng.randrange(len(text) + 1)
    return rng.choice(
        [
            text[:cut],
            text[cut:],
            text * 2,
            text[:cut] + chr(rng.randrange(1, 200)) + text[cut + 1 :],
            ''.join(chr(48 + rng.randrange(64)) for _ in range(rng.randrange(1, 30))),
        ]
    )


def mutate(content, rng, dangerous=()):
    """Change one place of a parsed file; in half of the cases one of what is dangerous."""
    places = containers(content)
    if dangerous and rng.random() < 0.5:
        places = containers(list(dangerous))[1:]
    place = rng.choice(places)
    key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    action = rng.random()
    if action < 0.15:
        del place[key]
    elif action < 0.3 and isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))
    elif action < 0.5 and isinstance(place, list) and isinstance(place[key], int):
        # runs keep their sum
        number = rng.choice([1, 2, place[key]])
        place[key] -= number
        place[rng.randrange(len(place))] += number
    else:
        place[key] = other_value(place[key], rng)


def mutated_bytes(content, rng):
    """The bytes of a file that is mutated, some of them once more in the text itself."""
    text = json.dumps(content)
    if rng.random() < 0.5:  # JSON's own constants are refused at once
        text = re.sub(r'(?<=[\[ ])NaN', '"nan"', text.replace('Infinity', '1e999'))
    data = text.encode()
    if rng.random() < 0.05:
        cut = rng.randrange(len(data))
        data = data[:cut] + rng.randbytes(rng.randrange(3)) + data[cut + rng.randrange(3) :]
    return data
