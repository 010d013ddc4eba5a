"""The line of every key, whatever TOML allows around it."""

import tomllib

from penstock.config.toml_positions import Positions

LINES = [
    "# head = 1",
    '[a."b c".d]  # x = 2',
    "k = 1",
    '"q\\u0041" = """',
    "not = 1",
    '""" # end',
    "l = [ # [",
    "  1, { in = 2 }, # ]",
    "  [ 'x]', \"}\" ],",
    "]",
    "m.n = { o.p = 1979-05-27 07:32:00, r = {} }",
    "",
    "[[t]]",
    "z = '''",
    "[no]",
    "'''''",
    "[[t]]",
    'z = """"quoted""""',
]
TEXT = "".join(f"{line}\n" for line in LINES)


def test_every_key_is_found_on_its_line() -> None:
    tomllib.loads(TEXT)
    positions = Positions(TEXT)
    base = ("a", "b c", "d")
    lines = {
        (): 0,
        ("a",): 2,
        base: 2,
        (*base, "k"): 3,
        (*base, "qA"): 4,
        (*base, "l"): 7,
        (*base, "l", "0"): 8,
        (*base, "l", "1", "in"): 8,
        (*base, "l", "2", "1"): 9,
        (*base, "m", "n"): 11,
        (*base, "m", "n", "o", "p"): 11,
        (*base, "m", "n", "r"): 11,
        (*base, "m", "n", "unknown"): 11,
        ("t", "z"): 14,
        ("not",): 0,
    }
    assert {path: positions.line(path) for path in lines} == lines


def test_statements_cover_their_lines_and_values() -> None:
    positions = Positions(TEXT)
    assert [statement.kind for statement in positions.statements] == [
        *("table", "pair", "pair", "pair", "pair", "array", "pair", "array", "pair")
    ]
    dates = positions.statements[4]
    assert TEXT[slice(*dates.value)] == "{ o.p = 1979-05-27 07:32:00, r = {} }"
    assert TEXT[dates.start : dates.end] == "m.n = { o.p = 1979-05-27 07:32:00, r = {} }\n"
    assert repr(positions) == f"<Positions 9 statements, {len(positions._offsets)} keys>"


def test_a_value_ends_before_its_comment() -> None:
    text = "a = 1 # one\r\nb = true"
    first, second = Positions(text).statements
    assert (text[slice(*first.value)], text[slice(*second.value)]) == ("1", "true")
