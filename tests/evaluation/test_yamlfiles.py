"""YAML files of any content are read in bounded time and memory, or refused with a line number."""

import pytest
import yaml

from evaluation import yamlfiles
from evaluation.findings import BadRequest, Faulty

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)

REFUSED = {
    "nine levels of aliases": (
        LAUGHS.encode(),
        ":4: error: must not hold more than 10000 values, with aliases written out",
    ),
    "3000 brackets": (b"a: " + b"[" * 3000, ":1: error: must not be nested more than 50 levels deep"),
    "an alias of what it stands in": (b"a: &a [1, *a]", ":1: error: must not be an alias of a value that contains it"),
    "not UTF-8": (b"a: 1\nname: \xe9t\xe9\n", ":2: error: must be UTF-8; byte 0xE9 is not (Latin-1 'é'?)"),
    "UTF-16": ("a: 1".encode("utf-16"), ": error: must be UTF-8; this is UTF-16: save it as UTF-8"),
    "a NUL byte": (b"a: 1\nb: \0", ":2: error: must be text; found a NUL byte"),
    "an open bracket": (b"a: 1\nb: [2", ":2: error: the '[' here is never closed"),
    "a list": (b"- 1\n- 2", ": error: must be a mapping of keys to values; found a list"),
    "a text": (b"hello", ": error: must be a mapping of keys to values; found 'hello'"),
    "an object": (
        b"a: !!python/object/apply:os.system ['true']",
        ":1: error: is not valid YAML: could not determine a",
    ),
    "a tag with the words of another error": (
        b"a: !duplicate_anchor 1",
        ":1: error: is not valid YAML: could not determine a constructor for the tag '!duplicate_anchor'",
    ),
    "an anchor twice": (b"a: &x 1\nb: &x 2", ":2: error: the anchor in line 1 has the same name"),
    "a key twice": (b"a: 1\nb: {c: 1,\n  c: 2}", ":3: error: the key 'c' is already in line 2; keep one of them"),
    "a key that is a list": (b"a: 1\n? [1]\n: 2", ":2: error: is not valid YAML: found unhashable key"),
    "a number of 5000 digits": (b"a: 1\nb: " + b"9" * 5000, ":2: error: is read as int but is not a valid int: '999"),
    "no number": (
        b"a: !!int abc",
        ":1: error: is read as int but is not a valid int: 'abc'; correct it, or put it in quotes",
    ),
    "too large": (b"#" * 2**19, ": error: must not be larger than 262144 bytes: is it a YAML file?"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_cannot_be_read_gets_one_line(content, message, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(Faulty) as fault:
        yamlfiles.read_yaml(file)
    (finding,) = fault.value.findings
    assert str(finding).startswith(f"{file}{message}")
    assert fault.value.status == 2


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_no_file(name, tmp_path):
    with pytest.raises(BadRequest, match="no such file; give a YAML file"):
        yamlfiles.read_yaml(tmp_path / name)


def test_plain_values_are_read_as_pyyaml_reads_them(tmp_path):
    content = (
        "rate: 1e-5\nlow: 1.0e-5\nwords: ~\non: yes\n16: {a: [1, 0x10, 1:30, .inf]}\n"
        "base: &base {x: 1, y: 2}\nouter: {inner: &inner {<<: *base, x: 3}}\nlast: {<<: *inner, y: 4}\n"
    )
    file = tmp_path / "config.yaml"
    file.write_text(content)
    assert yamlfiles.read_yaml(file) == yaml.safe_load(content)
    file.write_text("# nothing\n")
    assert yamlfiles.read_yaml(file) == {}
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert yamlfiles.read_yaml(file) == {"a": 1}


@pytest.mark.parametrize("date", ["2020-12-31", "2020-13-45"])
def test_a_date_is_a_text(date, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"system: {date}\n")
    assert yamlfiles.read_yaml(file) == {"system": date}
    assert yamlfiles.parse_yaml_value(date, "--set") == date


def test_a_value_that_cannot_be_read_gets_one_line():
    for text, message in (
        ("[1", "the '[' here is never closed"),
        ("[" * 3000, "must not be nested more than 50 levels deep"),
        ("9" * 5000, "is read as int but is not a valid int"),
        ("x" * 2**19, "must not be longer than 262144 characters"),
    ):
        with pytest.raises(BadRequest, match=r"^--set a: the value is not YAML: ") as refusal:
            yamlfiles.parse_yaml_value(text, "--set a")
        assert message in str(refusal.value)
    assert yamlfiles.parse_yaml_value("", "--set a") is None
    assert yamlfiles.parse_yaml_value("[1, yes]", "--set a") == [1, True]
