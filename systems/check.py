"""Does a module hold to the contract? Every finding at once, each with what must hold, what was found, and what to do.

The module is trained twice for an epoch on a tiny data folder whose names, captions and lengths are as awkward as real
ones; then its model answers sounds and texts alone, in batches, and with zeros behind their ends. A trained run spares
the training: its checkpoint is asked.
"""

import contextlib
import csv
import importlib
import random
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
import torch
from pydantic import BaseModel, ValidationError

from evaluation import yamlfiles
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, read_dataset
from evaluation.findings import BadRequest, Faulty, Finding, say
from evaluation.text import cut
from systems import contract, source
from systems.modules import UntrustedModule, trusting
from systems.parts.devices import default_device
from systems.training import Run

TOLERANCE = 1e-4  # of the largest value of an answer: rounding is below it, a neighbour's or padding's influence not
SECONDS = (0.1, 1.07, 1.98, 4.0, 30.0)
SPLITS = {DEVELOPMENT: 6, VALIDATION: 3, EVALUATION: 3}  # clips
RATE = 44100  # Hz of the data folder's sounds
NAMES = (  # one a clip, in this order; the same ones stand in every split, as four of Clotho's do in two
    " check, no.1 &amp; first.wav",
    "it's a 'check'; v1.2.wav",
    "Check.WAV.wav",
    "été – 鳥 🐦.wav",
    "check #5 100%.wav",
    "no trouble.wav",
)
TEXTS = (
    "A dog barks, and rain falls.",
    "  blanks at both ends, and  two within  ",
    "He says &quot;stop&quot; &amp; <b>leaves</b> &#39;now&#39;",
    "\"It's\", “it”, ‘is’, a dog's bark",
    "🐦🌧️ ünïcödé 鳥",
    "?!",
    " ".join(f"word{number % 37}" for number in range(200)),
)


class Report:
    """What was found, a finding a rule however many inputs show it."""

    def __init__(self, name: str):
        self.name = name
        self.rules: dict[tuple[str, str], tuple[str, str, list[str]]] = {}

    def __call__(self, part: str, must: str, found: str, do: str, where: str = "") -> None:
        """Say that `part` must do something, what was found (the first of each rule is kept), and what to do."""
        self.rules.setdefault((part, must), (found, do, []))[2].append(where)

    @property
    def findings(self) -> list[Finding]:
        """All that was found, in its order."""
        findings = []
        for (part, must), (found, do, wheres) in self.rules.items():
            places = list(dict.fromkeys(filter(None, wheres)))
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            given = f" for {', '.join(places[:3])}{more}" if places else ""
            findings.append(Finding(self.name, column=part, message=f"must {must}; found {found}{given}: {do}"))
        return findings

    @contextlib.contextmanager
    def catching(self, part: str, must: str, where: str = "") -> Iterator[None]:
        """Report whatever the team's code raises, with its place there."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if isinstance(error, UntrustedModule):
                raise
            if isinstance(error, BadRequest | Faulty):
                self(part, must, cut(str(error)), "mend it", where)
                return
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
            own = [frame for frame in frames if self.owns(frame.filename)] or frames
            at = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
            if isinstance(error, SyntaxError):
                at = f" at {error.filename}:{error.lineno}"
            raised = type(error).__name__
            if text := cut(" ".join(str(error).split())):
                raised += f" ({text})"
            self(part, must, raised + at, "mend it", where)

    def owns(self, file: str) -> bool:
        """Whether a source file is the module's, or lies in its package."""
        source = getattr(sys.modules.get(self.name), "__file__", None)
        if source and source.endswith("__init__.py"):
            package = Path(source).parent
        else:
            package = None
        return file == source or package in Path(file).parents


def check(
    name: str,
    run_folder: Path | None = None,
    file: Path | None = None,
    settings: Sequence[str] = (),
    trusted: Collection[str] = (),
) -> tuple[str, list[Finding]]:
    """Check a system.

    Args:
        name: Import name of its module.
        run_folder: A trained run, whose best epoch is asked; without, the module is trained.
        file: YAML file of the config to train with; without, the defaults.
        settings: `key=value` of the config, which win.
        trusted: Import names of modules that the user allows the run to name, beside the kit's and installed ones.

    Returns:
        What it is, in words, and every finding.

    Raises:
        BadRequest: There is no such module, the run is none or names a module that it must not, or a config is given
            for it, which it has.
        Faulty: File or settings do not hold.
    """
    if run_folder and (file or settings):
        raise BadRequest("--run asks a trained run, which has its config; leave --config and --set out, or --run")
    best = run_folder / "checkpoints" / "best.ckpt" if run_folder else None
    if best and not best.is_file():
        raise BadRequest(f"{best}: no such file; give the folder of a trained run, or leave --run out")
    if run_folder and (trained := contract.read_run(run_folder).system) != name:
        raise BadRequest(f"{run_folder}: is a run of {trained}; check that, or give a run of {name}")
    report = Report(name)
    module = refusal = None
    with report.catching("import", "be importable"):
        try:
            module = contract.import_system_module(name)
        except BadRequest as error:  # not a fault of the module: there is none
            refusal = error
    if refusal:
        raise refusal
    if module is None:
        return "", report.findings
    config = _config(module, file, settings, report)
    for part, form in (("train", "train(config, dataset, run)"), ("load_model", "load_model(checkpoint)")):
        if not callable(getattr(module, part, None)):
            report(part, f"be a function, {form}", repr(getattr(module, part, None)), "write it")
    if run_folder:
        say(source.source_changes(run_folder, name))
    allowed = [*trusted]
    if config and not run_folder:
        allowed += contract.text_values(config)
    with (
        tempfile.TemporaryDirectory(prefix="check-") as temporary,
        contextlib.redirect_stdout(sys.stderr),
        trusting(allowed),
    ):
        runs = []
        if best:
            runs = [best]
        elif config and callable(getattr(module, "train", None)):
            runs = _train(module, config, Path(temporary), report)
        what = ""
        if runs and callable(getattr(module, "load_model", None)):
            what = _check_runs(name, runs, report)
    return what, report.findings


# Config and training -------------------------------------------------------------------------------------------------


def _config(module: ModuleType, file: Path | None, settings: Sequence[str], report: Report) -> BaseModel | None:
    """Check Config, and build one to train with for an epoch."""
    model = getattr(module, "Config", None)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        advice = 'write `class Config(pydantic.BaseModel, extra="forbid")`'
        report("Config", "be a pydantic model", repr(model), advice)
        return None
    for field, about in model.model_fields.items():
        if about.is_required():
            report("Config", "have a default for every field", "none", "write the one that you would use", field)
    try:
        model.model_validate({"no_such_key": 0})
        refused = False
    except ValidationError as error:
        refused = any(one["type"] == "extra_forbidden" for one in error.errors())
    if not refused:
        advice = 'write `class Config(pydantic.BaseModel, extra="forbid")`'
        report("Config", "refuse unknown keys", "that it takes no_such_key, as it would a misspelt one", advice)
    short = []
    if "epochs" in model.model_fields:
        short = ["epochs=1"]
    given = {setting.partition("=")[0] for setting in settings}
    if file:
        given |= yamlfiles.read_yaml(file).keys()
    if any(about.is_required() and field not in given for field, about in model.model_fields.items()):
        return None
    if file or settings:  # what does not hold is the request's fault
        return contract.configure(model, file, [*short, *settings])
    with report.catching("Config", "hold with its defaults"):
        return contract.configure(model, None, short)
    return None


def make_data(folder: Path) -> None:
    """Make a data folder of short noises whose names, captions and lengths are awkward."""
    rng = np.random.default_rng(0)
    for split, clips in SPLITS.items():
        (folder / split).mkdir(parents=True)
        rows = [["file_name", *(f"caption_{number}" for number in range(1, 6))]]
        for index, name in enumerate(NAMES[:clips]):
            samples = round(SECONDS[index % 4] * RATE)  # thirty seconds would make training long
            time = np.arange(samples) / RATE
            tone = np.sin(2 * np.pi * rng.uniform(100, 2000) * time)
            soundfile.write(folder / split / name, 0.2 * tone + rng.uniform(-0.2, 0.2, samples), RATE)
            captions = [f"{text} {split} {index}" for text in TEXTS[index % 3 + 1 : index % 3 + 5]]
            shared = TEXTS[0]  # belongs to two clips, as a few of Clotho's captions do
            if index >= 2:
                shared = f"{TEXTS[0]} {split} {index}"
            rows.append([name, *captions, shared])
        with (folder / f"captions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _train(module: ModuleType, config: BaseModel, folder: Path, report: Report) -> list[Path]:
    """Train twice with one seed, and return the checkpoints of runs that have one."""
    make_data(folder / "data")
    dataset = read_dataset(folder / "data")
    digests = {name: split.digest for name, split in dataset.splits.items()}
    found = []
    for number, name in enumerate(("first", "second")):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(number)  # each run begins elsewhere, as in another process
        flags = {"accelerator": "auto", "devices": 1}
        run = Run(folder / name, module.__name__, config, digests, 1, folder / "cache", flags)
        before = len(report.rules)
        with report.catching("train", "train on sounds, names and captions as awkward as real ones"):
            contract.train(module, config, dataset, run)
        if len(report.rules) > before:
            _check_started(run, report)
            break
        _check_folder(run, report)
        if not run.best.is_file():
            break
        found.append(run.best)
    return found


def _check_started(run: Run, report: Report) -> None:
    if not (run.folder / "config.yaml").is_file():
        advice = "call run.start() before anything else is written: it makes the folder"
        report("train", "write config.yaml into the run folder", "no such file", advice)


def _check_folder(run: Run, report: Report) -> None:
    _check_started(run, report)
    for path, advice in (
        (run.best, "save there what load_model needs, or let run.fit do it"),
        (
            run.folder / "system.yaml",
            "end with run.describe(model, {…}), or write what a submission's metadata asks for",
        ),
    ):
        if not path.is_file():
            name = path.relative_to(run.folder)
            report("train", f"write {name} into the run folder", "no such file", advice)


# What load_model gives -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _fresh_import(name: str, report: Report) -> Iterator[ModuleType | None]:
    """Import a module as a new process would: what it remembers of training is gone."""
    kept = {key: sys.modules.pop(key) for key in list(sys.modules) if f"{key}.".startswith(f"{name}.")}
    parent, _, last = name.rpartition(".")
    module = None
    try:
        with report.catching("import", "be importable again"):
            module = importlib.import_module(name)
        yield module
    finally:
        for key in [key for key in sys.modules if f"{key}.".startswith(f"{name}.")]:
            del sys.modules[key]
        sys.modules.update(kept)
        if parent:
            setattr(sys.modules[parent], last, kept[name])


def _check_runs(name: str, runs: Sequence[Path], report: Report) -> str:
    """Check the model of the first run, and that loading again and training again give its answers."""
    device = default_device()
    with _fresh_import(name, report) as module:
        first = _load(module, runs[0], device, report) if module else None
        if first is None:
            return ""
        probe = ModelProbe(first, device, report)
        if not probe.kind:
            return ""
        probe.check()
        also = probe.kind == "captioner" and _retrieves(first)
        if also:
            ModelProbe(first, device, report, "retriever").check()
        if not probe.probe:
            return ""
        before = len(report.rules)
        again = _load(module, runs[0], device, report)
        if again is not None and not probe.agrees(again):
            advice = "save all weights and settings, and load them: what is drawn at random anew differs"
            report("load_model", "give a model of the same answers whenever it is called", "others", advice)
        if len(runs) > 1 and len(report.rules) == before:
            other = _load(module, runs[1], device, report)
            if other is not None and not probe.agrees(other):
                advice = "seed every generator by run.seed before the weights are made and batches are drawn"
                report("train", "give the same model for the same seed", "another at the second time", advice)
    what = f"a {probe.kind}{' and retriever' * also} of sounds at {first.sample_rate} Hz"
    if len(probe.texts) == 1:
        what += ", which said the same of all sounds, so that whether an answer hangs on its batch could not be told"
    return what


def _load(module: ModuleType, checkpoint: Path, device: torch.device, report: Report) -> object | None:
    """Load a model, and move it as `systems predict` does, ready to use."""
    model = None
    with report.catching("load_model", "load the checkpoint with nothing but what lies in its run folder"):
        model = module.load_model(checkpoint)
    if model is None:
        if not any(part == "load_model" for part, _ in report.rules):
            report("load_model", "give a model", "None", "return it")
        return None
    moved = None
    with report.catching("load_model", "give a model that can be moved to a device"):
        moved = model.to(device) if hasattr(model, "to") else None
        if moved is None:
            advice = "make it a torch.nn.Module, or write `def to(self, device): return self`"
            report("load_model", "give a model whose to(device) gives it back there", "none", advice)
    model = moved if moved is not None else model
    inside = [model, *getattr(model, "__dict__", {}).values()]
    learning = [one for one in inside if isinstance(one, torch.nn.Module) and any(m.training for m in one.modules())]
    if learning:
        advice = "end with `return model.eval()`"
        report("load_model", "give a model that is ready to use", "one in training mode", advice)
        for one in learning:
            one.eval()  # so that what else is found is not of this
    return model


def _retrieves(captioner: object) -> bool:
    """Whether a captioner embeds texts and sounds, too; of some configs a system may refuse to."""
    if not all(callable(getattr(captioner, name, None)) for name in ("embed_audio", "embed_text")):
        return False
    try:
        with torch.inference_mode():
            captioner.embed_text(TEXTS[:1])
    except Exception as fault:
        return not isinstance(fault, BadRequest)  # any other is a fault, which asking finds
    return True


class ModelProbe:
    """A model that is asked sounds and texts of every kind; one that does both, as what `kind` says."""

    def __init__(self, model: object, device: torch.device, report: Report, kind: str = ""):
        self.model, self.device, self.report = model, device, report
        self.probe: dict[str, object] = {}  # answers by which another model is compared
        self.size: int | None = None  # of an embedding
        self.texts: set[str] = set()  # captions
        self.values: set[float | None] = set()  # their log-probabilities
        self.kind = kind or self._kind()

    def _kind(self) -> str:
        has = [name for name in ("embed_audio", "embed_text", "caption") if callable(getattr(self.model, name, None))]
        if "caption" not in has and len(has) < 2:
            must = "give a retriever, with embed_audio and embed_text, or a captioner, with caption"
            self.report("load_model", must, f"only {has[0]}" if has else "none of them", "write what is missing")
            return ""
        rate = getattr(self.model, "sample_rate", None)
        if type(rate) is not int or rate <= 0:
            advice = "say how many samples a second it takes, such as `sample_rate = 44100`"
            self.report("sample_rate", "be a whole number above 0", repr(rate), advice)
            return ""
        if "caption" in has:
            return "captioner"
        return "retriever"

    def check(self) -> None:
        """Ask everything."""
        self._check_sounds()
        if self.kind == "retriever":
            self._check_texts()

    def agrees(self, model: object) -> bool:
        """Whether another model gives the same answers to the sound and the text of `probe`."""
        other = ModelProbe(model, self.device, Report(self.report.name))
        asked = {"sound": lambda: other.ask_audio([_sounds(self.model.sample_rate)["1.98 s"]], "", "")}
        asked["text"] = lambda: other.ask_texts(TEXTS[:1], "", "")
        for what, mine in self.probe.items():
            theirs = asked[what]()
            if not theirs or not self._same(mine, theirs[0]):
                return False
        return True

    def _check_sounds(self) -> None:
        part, sounds, alone = self._audio_part, _sounds(self.model.sample_rate), {}
        for label, sound in sounds.items():
            if answers := self.ask_audio([sound], "take sounds of any length, silence too", label):
                alone[label] = answers[0]
        usual = [label for label in sounds if label in alone][:5]
        if "1.98 s" not in alone:
            return
        again = self.ask_audio([sounds["1.98 s"]], "take a sound twice", "1.98 s")
        if not again or not self._same(again[0], alone["1.98 s"]):
            advice = "leave out what is drawn at random, or draw it from a seed of its own"
            self.report(part, "give the same answer to the same sound", "another at the second time", advice, "1.98 s")
            return
        self.probe["sound"] = alone["1.98 s"]
        faulty = False
        for label in usual[:-1]:
            must = "take sounds with zeros behind their ends"
            padded = self.ask_audio([sounds[label]], must, label, behind=self.model.sample_rate)
            if padded and not self._same(padded[0], alone[label]):
                faulty = True
                advice = "use `lengths`: leave what lies behind a clip's end out of convolutions, norms and means"
                must, found = (
                    "answer a sound alike whatever zeros lie behind its end",
                    _difference(padded[0], alone[label]),
                )
                self.report(part, must, found, advice, f"{label} and 1 s of zeros")
        pair = [label for label in ("1.98 s", "other 1.98 s") if label in alone]
        batches = [pair]
        if not faulty:
            batches += [usual[:2], usual]
        for labels in batches:
            where = f"a batch of {len(labels)}"
            batch = self.ask_audio([sounds[label] for label in labels], "take batches of 1, 2 and 5 sounds", where)
            for label, answer in zip(labels, batch or [], strict=False):
                if not self._same(answer, alone[label]):
                    advice = "let nothing be computed over the batch: no norm, mean or maximum over its clips"
                    found = _difference(answer, alone[label])
                    self.report(part, "answer a sound in a batch as alone", found, advice, f"{label} in {where}")

    def _check_texts(self) -> None:
        alone = {}
        for text in (*TEXTS, ""):
            where = _quoted(text)
            if answers := self.ask_texts([text], "take any text", where):
                alone[text] = answers[0]
        if TEXTS[0] in alone:
            self.probe["text"] = alone[TEXTS[0]]
        for count in sorted({min(count, len(alone)) for count in (2, 5, len(alone))} - {0}):
            texts = list(alone)[:count]
            batch = self.ask_texts(texts, "take batches of 1, 2 and 5 texts", f"a batch of {count}")
            for text, answer in zip(texts, batch or [], strict=False):
                if not self._same(answer, alone[text]):
                    advice = "let nothing be computed over the batch, and mask the padding of shorter texts"
                    found = _difference(answer, alone[text])
                    where = f"{_quoted(text)} in a batch of {count}"
                    self.report("embed_text", "embed a text among others as alone", found, advice, where)

    def _same(self, one: object, other: object) -> bool:
        if isinstance(one, torch.Tensor):
            return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
        (text, value), (other_text, other_value) = one, other
        # Two captions of one probability are as good: which comes first is for rounding to say. One value for whatever
        # is heard says nothing.
        alike = value is not None and abs(value - other_value) <= TOLERANCE * abs(value)
        return text == other_text or (alike and len(self.values) > 1)

    @property
    def _audio_part(self) -> str:
        if self.kind == "retriever":
            return "embed_audio"
        if hasattr(self.model, "caption_scored"):
            return "caption_scored"
        return "caption"

    def ask_audio(self, sounds: Sequence[torch.Tensor], must: str, where: str, behind: int = 0) -> list | None:
        """Ask for sounds with zeros behind their ends; an answer each, or None where there is none to go on with."""
        if not sounds:
            return None
        lengths = torch.tensor([len(sound) for sound in sounds])
        padded = torch.zeros(len(sounds), int(lengths.max()) + behind)
        for row, sound in enumerate(sounds):
            padded[row, : len(sound)] = sound
        function, answer = getattr(self.model, self._audio_part), None
        with self.report.catching(self._audio_part, must, where), torch.inference_mode():
            answer = function(padded.to(self.device), lengths.to(self.device))
            if self.kind == "retriever":
                return self._embeddings("embed_audio", answer, len(sounds), where)
            return self._captions(answer, len(sounds), where)
        return None

    def ask_texts(self, texts: Sequence[str], must: str, where: str) -> list | None:
        """Ask for texts, as `ask_audio` does for sounds."""
        with self.report.catching("embed_text", must, where), torch.inference_mode():
            return self._embeddings("embed_text", self.model.embed_text(tuple(texts)), len(texts), where)
        return None

    def _embeddings(self, part: str, answer: object, count: int, where: str) -> list[torch.Tensor] | None:
        if not isinstance(answer, torch.Tensor):
            self.report(part, "give a torch.Tensor", type(answer).__name__, "convert it", where)
            return None
        if answer.ndim != 2 or len(answer) != count or not answer.shape[1]:
            what = "clips" if part == "embed_audio" else "texts"
            advice = f"give a row of values for each of the {what}"
            self.report(part, f"give a tensor of ({what}, size)", f"{tuple(answer.shape)}", advice, where)
            return None
        if self.size is not None and answer.shape[1] != self.size:
            must = "give as many values whatever it is given, and for sounds as many as for texts"
            self.report(part, must, f"{answer.shape[1]} after {self.size}", "bring both to one size", where)
            return None
        self.size = answer.shape[1]
        if answer.dtype != torch.float32:
            self.report(part, "give float32", f"{answer.dtype}", "end with .float()", where)
        if answer.device.type != self.device.type:
            advice = "keep weights and answers where the model was moved"
            self.report(part, f"answer on the device that it is on, {self.device}", f"{answer.device}", advice, where)
        if answer.requires_grad:
            advice = "leave out enable_grad and inference_mode(False)"
            self.report(part, "give values without gradients in inference mode", "requires_grad", advice, where)
        if not answer.isfinite().all():
            found = "NaN" if answer.isnan().any() else "infinity"
            advice = "look for a logarithm of 0, or a division by a length, norm or deviation of 0"
            self.report(part, "give finite values", found, advice, where)
            return None
        return list(answer.detach().float().cpu())

    def _captions(self, answer: object, count: int, where: str) -> list[tuple[str, float | None]] | None:
        values: list[float | None] = [None] * count
        part = self._audio_part
        if part == "caption_scored":
            if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], torch.Tensor)):
                advice = "return captions, log_probabilities"
                self.report(part, "give captions and a tensor of (clips,)", type(answer).__name__, advice, where)
                return None
            if answer[1].shape != (count,) or not answer[1].isfinite().all():
                found = f"{answer[1].tolist()}"
                self.report(part, "give each clip a finite log-probability", found, "give (clips,) values", where)
                return None
            values, answer = answer[1].tolist(), answer[0]
            self.values.update(values)
        must = "give a list of one caption for each clip"
        if not isinstance(answer, list):
            self.report(part, must, type(answer).__name__, "return a list", where)
            return None
        if len(answer) != count:
            self.report(part, must, f"{len(answer)}", "give as many as clips", where)
            return None
        for text in answer:
            if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                advice = "say at least one word, and join lines"
                self.report(part, "give captions of one line that are not empty", repr(text), advice, where)
                return None
        self.texts.update(answer)
        return list(zip(answer, values, strict=True))


def _sounds(sample_rate: int) -> dict[str, torch.Tensor]:
    """Sounds of all lengths, another of one that is there already, and silence."""
    generator = torch.Generator().manual_seed(0)
    lengths = {f"{seconds:g} s": seconds for seconds in SECONDS} | {"other 1.98 s": 1.98}
    sounds = {}
    for number, (label, seconds) in enumerate(lengths.items()):
        samples = max(1, round(seconds * sample_rate))
        tone = torch.sin(2 * torch.pi * 150 * (number + 1) * torch.arange(samples) / sample_rate)
        sounds[label] = 0.3 * tone + 0.3 * (torch.rand(samples, generator=generator) - 0.5)
    return sounds | {"1 s of silence": torch.zeros(sample_rate)}


def _difference(one: object, other: object) -> str:
    if isinstance(one, torch.Tensor):
        return f"a difference of {float((one - other).abs().max() / other.abs().max()):.2g} of the largest value"
    return f"{cut(one[0], 40)!r} and not {cut(other[0], 40)!r}"


def _quoted(text: str) -> str:
    """A text in quotes, short."""
    return repr(cut(text, 20))
