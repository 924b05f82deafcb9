"""Requests that are refused before torch is imported."""

import importlib
import math
import sys
from pathlib import Path
from typing import get_args

import pytest
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
from lightning.pytorch.accelerators import AcceleratorRegistry

from evaluation.findings import BadRequest, Faulty
from systems import contract, listing, request_checks
from systems.config_source import Unreadable, read_config

BASE = """
from pydantic import BaseModel as Model
class Base(Model, extra="forbid", frozen=True):
    '''Docstring.'''
    first: int = 1
    second: int = 2
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write modules into a package on the path; they are gone from `sys.modules` afterwards."""
    folder = tmp_path / "early_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(BASE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        (folder / "module.py").write_text(source)
        return "early_package.module"

    yield write
    for name in [name for name in sys.modules if name.startswith("early_package")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", [system.name for system in listing.systems()])
def test_the_source_tells_the_fields_of_every_system(name):
    assert list(read_config(name).model_fields) == list(importlib.import_module(name).Config.model_fields)


VALUES = (
    -1,
    0,
    1,
    17,
    0.5,
    1.5,
    math.nan,
    math.inf,
    True,
    None,
    "",
    "word",
    "2",
    [],
    [1],
    ["a"],
    [["a"]],
    {},
    {"a": 1},
)


def messages(model, values):
    """Return the messages about keys with wrong values, without those about several keys."""
    try:
        contract.validate(model, values, str)
    except Faulty as refused:
        return [str(finding) for finding in refused.findings if finding.column]
    return []


@pytest.mark.parametrize("name", [system.name for system in listing.systems()])
def test_the_source_tells_which_values_a_key_can_have(name):
    early = read_config(name)
    config = importlib.import_module(name).Config
    accepted = set()  # keys with values that only the system refuses
    for key in early.model_fields:
        for value in VALUES:
            found = messages(early, {key: value})
            expected = messages(config, {key: value})
            if found != expected:
                assert found == []
                accepted.add(key)
    # Inner configs, and limits that are names, are only known to the system.
    assert accepted == {"systems.guided_gpt2": {"retrieval"}, "systems.clip_aac": {"text_width"}}.get(name, set())


def test_a_type_that_the_source_does_not_tell_takes_any_value(write):
    name = write("""
import datetime
from typing import Annotated
from pydantic import Field
from .base import Base
MOST = 3
class Config(Base):
    third: datetime.date | None = None
    fourth: Annotated[int, Field(ge=1)] = 1
    fifth: "int" = 1
    sixth: int = Field(1, ge=1, le=MOST)
""")
    accepted = {"third": "2020-13-45", "fourth": "x", "fifth": "x", "sixth": 9}
    assert messages(read_config(name), accepted) == []
    refused = messages(read_config(name), accepted | {"sixth": 0, "first": "x"})
    assert [message.partition(": ")[0] for message in refused] == ["first", "sixth"]


READABLE = {
    "a base of another module": "from early_package.base import Base\nclass Config(Base):\n    third: int = 3",
    "a base by its module": "from early_package import base\nclass Config(base.Base):\n    third: int = 3",
    "a relative import": "from .base import Base as Other\nclass Config(Other):\n    third: int = 3",
    "an imported class": "from .base import Base as Config",
    "a field again": "from . import base\nclass Config(base.Base):\n    third: int = 3\n    first: int = 4",
    "a constant": "from typing import ClassVar\nfrom .base import Base\nclass Config(Base):\n    X: ClassVar[int] = 3",
    "a private attribute": "from .base import Base\nclass Config(Base):\n    _hidden: int = 3",
    "two bases": """
from .base import Base
from pydantic import BaseModel
class Other(BaseModel):
    other: int = 0
class Config(Base, Other):
    third: int = 3
""",
}


@pytest.mark.parametrize("source", READABLE.values(), ids=READABLE)
def test_fields_come_in_the_order_of_pydantic(write, source):
    name = write(source)
    fields = list(read_config(name).model_fields)
    assert fields == list(importlib.import_module(name).Config.model_fields)


UNREADABLE = {
    "a validator in place of the type": """
from pydantic import field_validator
from .base import Base
class Config(Base):
    third: int = 3
    @field_validator("third", mode="plain")
    def read(cls, value):
        return value
""",
    "no class": "Config = None",
    "a class that is replaced": "from .base import Base\nclass Config(Base):\n    pass\nConfig = Base",
    "a choice": "from .base import Base\nif True:\n    class Config(Base):\n        third: int = 3",
    "a base that is made": "from pydantic import create_model\nclass Config(create_model('Base')):\n    pass",
    "other keys are taken": "from pydantic import BaseModel\nclass Config(BaseModel):\n    first: int = 1",
    "an alias": """
from pydantic import Field
from .base import Base
class Config(Base):
    third: int = Field(1, alias="other")
""",
    "settings": "from .base import Base\nclass Config(Base):\n    model_config = {'extra': 'allow'}",
    "other keys are taken again": "from .base import Base\nclass Config(Base, extra='allow'):\n    third: int = 3",
    "a module that is no Python": "class Config(:",
    "a validator of the keys": """
from pydantic import model_validator
from .base import Base
class Config(Base):
    @model_validator(mode="before")
    def rename(cls, values):
        return values
""",
}


@pytest.mark.parametrize("source", UNREADABLE.values(), ids=UNREADABLE)
def test_keys_pass_where_the_source_does_not_tell_them(write, source):
    name = write(source)
    with pytest.raises(Unreadable):
        read_config(name)
    request_checks.check_config(name, None, ["whatever=1"])


def test_every_unknown_key_is_reported_where_it_was_given(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("epoch: 3\nbatch: 4\n")
    with pytest.raises(Faulty) as refused:
        request_checks.check_config("baseline.retriever", file, ["bach=2", "seed.inner=1", "epochs=1"])
    places = [(finding.file, finding.column) for finding in refused.value.findings]
    assert places == [("--set", "bach"), ("--set", "seed"), (str(file), "epoch")]
    assert "unknown key 'epoch'; did you mean 'epochs'? there are: epochs, batch," in str(refused.value)
    assert refused.value.status == 2


SWEEP = """
system: systems.atae
config: {config}
set: {{epoch: 4}}
grid:
  loss: {{first: {{loss: nt_xent}}, second: {{marge: 3}}}}
search: optuna
ranges: {{sise: {{low: 4, high: 8}}}}
samples: 3
seeds: 3
metric: mAP
"""


def test_every_mistake_in_a_sweep_file_is_reported_in_its_file(tmp_path):
    file, config = tmp_path / "sweep.yaml", tmp_path / "config.yaml"
    config.write_text("bach: 8\n")
    file.write_text(SWEEP.format(config=config))
    with pytest.raises(Faulty) as refused:
        request_checks.check_sweep(file)
    assert refused.value.status == 2
    findings = {(finding.file, finding.column): finding.message for finding in refused.value.findings}
    places = [(str(config), "bach"), *((str(file), key) for key in ("epoch", "marge", "metric", "sise"))]
    assert sorted(findings) == places
    assert findings[places[0]].startswith("unknown key 'bach'; did you mean 'batch'?")
    assert findings[str(file), "epoch"].startswith("unknown key 'epoch'; did you mean 'epochs'?")


def test_a_sweep_of_a_misspelt_system_names_the_right_one(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("system: systems.attae\ngrid: {size: [8]}\nseeds: 1\nmetric: mAP@10\n")
    with pytest.raises(BadRequest, match=r"no module 'systems\.attae'; did you mean 'systems\.atae'\?"):
        request_checks.check_sweep(file)


def test_the_flags_are_those_of_lightning():
    assert {*request_checks.ACCELERATORS} == {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    assert {*request_checks.PRECISIONS} == {*get_args(_PRECISION_INPUT_STR), *get_args(_PRECISION_INPUT_STR_ALIAS)}


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("accelerator", "abacus", "accelerator must be one of auto, cpu, cuda, gpu, mps, tpu; found 'abacus'"),
        ("precision", "half", "precision must be one of transformer-engine, "),
        ("num_nodes", 0, "num_nodes must be 1 or more; found 0"),
        ("accumulate_grad_batches", -2, "accumulate_grad_batches must be 1 or more; found -2"),
    ],
)
def test_a_flag_that_lightning_lacks_is_refused(flag, value, message):
    flags = {"accelerator": "auto", "precision": "32-true", "num_nodes": 1, "accumulate_grad_batches": 1}
    request_checks.check_flags(flags)
    with pytest.raises(BadRequest) as refused:
        request_checks.check_flags({**flags, flag: value})
    assert str(refused.value).startswith(f"lightning's flags: {message}")


@pytest.mark.parametrize(
    ("query", "sound", "number", "message"),
    [
        (None, None, 10, "search needs a text or --sound FILE; found neither: give one of them"),
        ("rain", "no.wav", 10, "search needs a text or --sound FILE; found both: give one of them"),
        (" ", None, 10, "the text to search for must not be blank"),
        (None, "no.wav", 10, "--sound no.wav: no such file; give an audio file"),
        ("rain", None, 0, "-n must be 1 or more; found 0"),
    ],
)
def test_wrong_searches(query, sound, number, message):
    with pytest.raises(BadRequest) as refused:
        request_checks.check_search(query, Path(sound) if sound else None, number)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_demo_has_a_port_that_exists(port):
    request_checks.check_demo([Path("run")], None, 65535)
    with pytest.raises(BadRequest, match=f"--port must be from 1 to 65535; found {port}: give another port"):
        request_checks.check_demo([Path("run")], None, port)
