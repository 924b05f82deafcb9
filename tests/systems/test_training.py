"""A run that is interrupted and resumed ends with the same weights as one that is not."""

import contextlib
import csv
import errno
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.profilers import SimpleProfiler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from baseline import retriever
from evaluation.cli import command
from evaluation.data.dataset import read_dataset
from evaluation.findings import BadRequest, Faulty
from systems import atae, runs, source, training, weight_errors
from systems.__main__ import parser
from systems.training import Run, Schedule
from tests.brief import make_brief_soundscapes
from tests.systems.runs import (
    cut_off,
    interrupt,
    kill,
    kill_after,
    kill_half_way,
    lose_interrupt,
    rows,
    same,
    terminate,
    weights,
)

QUICK = ["--accelerator", "cpu", "--set", "epochs=3", "--set", "batch=4", "--set", "words_epochs=2"]


def arguments(data, run, *more):
    return [
        "train",
        "baseline.retriever",
        "--data",
        str(data),
        "--run",
        str(run),
        "--cache",
        str(data / "cache"),
        *QUICK,
        *more,
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "tiny"
    return make_brief_soundscapes(folder, seconds=0.4, development=14, validation=6, evaluation=11)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert command(parser(), arguments(data, run)) == 0
    return run


def test_a_run_folder_holds_these_files(undisturbed):
    files = {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*") if path.is_file()}
    expected = {
        "config.yaml",
        "system.yaml",
        "metrics.csv",
        "words.bin",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "sources.yaml",
        ".lock",
    }
    assert expected <= files
    assert all(path in expected or path.startswith("tensorboard/") for path in files)
    assert "tensorboard/hparams.yaml" in files
    epochs = rows(undisturbed)
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"]
    assert {"loss", "learning_rate", "validation_loss", "validation_mAP@10"} <= epochs[0].keys()
    system = yaml.safe_load((undisturbed / "system.yaml").read_text())
    assert system["complexity"]["trainable_parameters"] == 732_354
    assert system["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_tensorboard_shows_the_config_and_the_best_value(undisturbed):
    events = EventAccumulator(str(undisturbed / "tensorboard")).Reload()
    best = [event.value for event in events.Scalars("best_validation_mAP@10")]
    values = [float(row["validation_mAP@10"]) for row in rows(undisturbed)]
    assert best == pytest.approx(np.maximum.accumulate(values))
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert {b"margin", b"seed", b"precision"} <= set(re.findall(rb"[a-z]+", content))


def test_two_runs_with_one_seed_agree_and_with_another_do_not(data, undisturbed, tmp_path, capsys):
    assert command(parser(), arguments(data, tmp_path / "again")) == 0
    assert same(weights(tmp_path / "again"), weights(undisturbed))
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()
    assert f"{tmp_path}/again: the best of 3 epochs is epoch " in capsys.readouterr().out
    other = ["--seed", "1", "--set", "epochs=1", "--logger", "csv"]
    assert command(parser(), arguments(data, tmp_path / "other", *other)) == 0
    logged = (tmp_path / "other" / "csv" / "version_0" / "metrics.csv").read_text()
    assert "best_validation_mAP@10" in logged.splitlines()[0]
    assert not (tmp_path / "other" / "tensorboard").exists()
    assert not same(weights(tmp_path / "other"), weights(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "count", "how"),
    [
        (retriever.words, "write_vectors", 1, kill),
        (retriever.Training, "training_step", 7, kill),
        (torch, "save", 3, kill_half_way),  # best.ckpt of the second epoch
        (torch, "save", 4, kill_half_way),  # last.ckpt of the second epoch
        (training.AtomicCheckpoints, "save_checkpoint", 2, kill_after),  # between the two checkpoints
        (training, "write_rows", 3, kill),  # after the last checkpoint
    ],
)
def test_killed_at_any_moment_it_ends_with_the_same_weights(data, undisturbed, tmp_path, owner, name, count, how):
    run = tmp_path / "run"
    assert cut_off(arguments(data, run), owner, name, count, how) == -signal.SIGKILL
    assert command(parser(), arguments(data, run)) == 0
    for which in ("last", "best"):
        assert same(weights(run, which), weights(undisturbed, which))
    assert (run / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()
    assert (run / "system.yaml").exists()


def test_a_run_that_was_stopped_early_can_be_used_and_resumed(data, undisturbed, tmp_path, capsys):
    """What a sweep does with `stop_early`."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Run, "continues", lambda self, values: len(values) < 2)
        assert command(parser(), arguments(data, run)) == 130
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]
    assert command(parser(), ["predict", str(run), "--data", str(data)]) == 0
    assert "training has not ended (there is no system.yaml)" in capsys.readouterr().err
    change_code(run, "baseline.crnn")
    assert command(parser(), arguments(data, run)) == 2
    assert capsys.readouterr().err == (
        f"error: {run}: a training must resume with the code that it began with; found changes in baseline.crnn: undo "
        "them, train into a new folder, or add --code-changed to resume with the changed code\n"
    )
    assert command(parser(), arguments(data, run, "--code-changed")) == 0
    assert "the code changed since this run was trained: baseline.crnn; " in capsys.readouterr().err
    (change,) = yaml.safe_load((run / "system.yaml").read_text())["code_changes"]
    assert change["modules"] == ["baseline.crnn"]
    assert same(weights(run), weights(undisturbed))
    assert (run / "metrics.csv").read_bytes() == (undisturbed / "metrics.csv").read_bytes()


def test_a_run_that_has_ended_is_not_changed(data, undisturbed, capsys):
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "checkpoints").iterdir()}
    assert command(parser(), arguments(data, undisturbed)) == 0
    assert "already trained, 3 epochs" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (undisturbed / "checkpoints").iterdir()}


def change_code(run, module):
    """Make it look as if a module had other code when the training began."""
    sources = yaml.safe_load((run / "sources.yaml").read_text())
    sources["digests"][module] = "0"
    (run / "sources.yaml").write_text(yaml.safe_dump(sources))


def test_a_run_whose_code_changed_says_so(data, undisturbed, tmp_path, capsys):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    sources = yaml.safe_load((run / "sources.yaml").read_text())
    assert {"baseline.retriever", "systems.training"} <= sources["digests"].keys()
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["source_digests"] == sources["digests"]
    assert yaml.safe_load((run / "system.yaml").read_text())["source_digests"] == sources["digests"]
    assert command(parser(), arguments(data, run)) == 0
    assert "the code changed" not in capsys.readouterr().err
    change_code(run, "baseline.crnn")
    for asked in (arguments(data, run), ["predict", str(run), "--data", str(data)]):
        assert command(parser(), asked) == 0
        expected = f"{run}: warning: the code changed since this run was trained: baseline.crnn; the run's weights come"
        assert expected in capsys.readouterr().err


WROTE = "must be a checkpoint that training wrote"
ROWS = "must contain a row for each epoch with validation_mAP@10, in callbacks.Course.rows; found a checkpoint without"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["callbacks"].pop("Course"), ROWS),
        (lambda state: state.update(callbacks={"Course": {"rows": [{"epoch": 1}]}}), ROWS),
        (lambda state: state.update(callbacks={"Course": {"rows": 3}}), ROWS),
        (lambda state: state.pop("state_dict"), f"{WROTE}; found one without its state_dict"),
        (lambda state: state.pop("callbacks"), f"{WROTE}; found one without its callbacks"),
        (lambda state: (state.pop("loops"), state.pop("epoch")), f"{WROTE}; found one without its epoch, loops"),
        (lambda state: state.update(optimizer_states=1), f"{WROTE}; found one without its optimizer_states"),
    ],
)
def test_a_damaged_last_checkpoint_gets_one_clear_line(data, undisturbed, tmp_path, capsys, change, message):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    change(state)
    torch.save(state, run / "checkpoints" / "last.ckpt")
    assert command(parser(), arguments(data, run)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {run}/checkpoints/last.ckpt: {message}")
    assert line.endswith("or train into a new folder")


def test_weights_of_another_model_get_one_clear_line(data, undisturbed, tmp_path, capsys):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    for name in ("last", "best"):
        state = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        state["state_dict"]["model.text_encoder.weight"] = torch.zeros(2, 2)
        state["callbacks"]["Course"]["rows"] = state["callbacks"]["Course"]["rows"][:1]
        torch.save(state, run / "checkpoints" / f"{name}.ckpt")
    for asked, place in (
        (arguments(data, run), run),
        (["predict", str(run), "--data", str(data)], run / "checkpoints" / "best.ckpt"),
    ):
        assert command(parser(), asked) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: {place}: must contain weights of the model that the config and the present ")
        assert "; found weights that the model does not have: " in line
        assert line.endswith("text_encoder.weight: " + weight_errors.ADVICE)


def test_a_checkpoint_that_lacks_the_config_gets_one_clear_line(data, undisturbed, tmp_path, capsys):
    run = shutil.copytree(undisturbed, tmp_path / "run")
    for state, lacking in (({"state_dict": {}}, "found one without its config"), ([1], "found a list")):
        torch.save(state, run / "checkpoints" / "best.ckpt")
        assert command(parser(), ["predict", str(run), "--data", str(data)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {run}/checkpoints/best.ckpt: {WROTE}; {lacking}: put")


@pytest.fixture
def over(tmp_path):
    """The control of a run whose last epoch is over."""
    control = training.EpochControl(Run(tmp_path, "baseline.retriever", retriever.Config(), {}), Schedule(epochs=1))
    control.rows = [{"validation_loss": 1.0}]
    assert control.ended
    return control


@pytest.mark.parametrize(("monitor", "sign"), [("loss", -1), ("medR", -1), ("fer", -1), ("mAP@10", 1), ("epoch", 1)])
def test_the_direction_of_a_monitored_value_decides_its_sign(tmp_path, monitor, sign):
    run = Run(tmp_path, "baseline.retriever", retriever.Config(), {})
    control = training.EpochControl(run, Schedule(monitor=monitor))
    control.rows = [{f"validation_{monitor}": 3.0}, {f"validation_{monitor}": 2.0}]
    assert control.values == [3.0 * sign, 2.0 * sign]


def test_the_progress_bar_fits_80_columns(tmp_path, monkeypatch):
    control = training.EpochControl(Run(tmp_path, "mine", retriever.Config(), {}), Schedule(monitor="mAP@10"))
    control.rows = [{"validation_mAP@10": 0.25}, {"validation_mAP@10": 0.123456}]
    bar = training.Bar(control)
    trainer = SimpleNamespace(
        current_epoch=2, max_epochs=150, callback_metrics={"loss_step": torch.tensor(1.23456)}, is_global_zero=True
    )
    bar.setup(trainer, None, "fit")
    monkeypatch.setattr(training.Bar, "total_train_batches", 1200)
    monkeypatch.setattr(training.time, "monotonic", lambda: 0.0)
    bar.on_train_start()
    bar.on_train_epoch_start(trainer)
    monkeypatch.setattr(training.time, "monotonic", lambda: 60.0)
    shown = bar.train_progress_bar
    shown.n = 600
    shown.set_postfix(bar.get_metrics(trainer, None))
    line = shown.format_meter(**{**shown.format_dict, "ncols": 80})
    shown.close()
    assert line.startswith("epoch 3/150 █")
    assert line.endswith(" 600/1200, loss=1.235, best mAP@10=0.25, left=4:55:00")
    assert len(line) == 80


def test_an_interrupt_after_the_last_epoch_is_an_interrupt(over):
    with over.ending_on_interrupts():
        pass
    with pytest.raises(KeyboardInterrupt), over.ending_on_interrupts():
        raise SystemExit(1)  # as Lightning does
    with pytest.raises(KeyboardInterrupt), over.ending_on_interrupts(), contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_turned_into_an_error_ends_as_interrupt(over):
    profiler = SimpleProfiler()

    def start(action):  # interrupted before it begins, so that `stop` raises ValueError
        os.kill(os.getpid(), signal.SIGINT)

    profiler.start = start
    with pytest.raises(KeyboardInterrupt), over.ending_on_interrupts(), profiler.profile("a step"):
        pass
    over.interrupted = False
    with pytest.raises(ValueError, match="another"), over.ending_on_interrupts():
        raise ValueError("another")


def test_the_sources_of_an_encoder_are_noticed_too(tmp_path):
    Run(tmp_path / "run", "systems.atae", atae.Config(audio_encoder="yamnet"), {}).start()
    sources = yaml.safe_load((tmp_path / "run" / "sources.yaml").read_text())
    digests = sources["digests"]
    assert {"systems.atae", "systems.parts.encoders", "systems.parts.encoders.yamnet"} <= digests.keys()
    assert "systems.parts.encoders.cnn14" not in digests
    assert source.source_changes(tmp_path / "run") == []


def test_changed_code_is_no_obstacle_before_the_first_result(tmp_path):
    run = Run(tmp_path, "baseline.retriever", retriever.Config(), {})
    run.start()
    before = (tmp_path / "sources.yaml").read_text()
    change_code(tmp_path, "baseline.crnn")
    (tmp_path / "tensorboard").mkdir()
    run.check_code()
    run.start()
    assert (tmp_path / "sources.yaml").read_text() == before
    change_code(tmp_path, "baseline.crnn")
    (tmp_path / "words.bin").touch()
    with pytest.raises(BadRequest, match=r"found changes in baseline\.crnn"):
        run.check_code()


def test_a_run_without_digests_resumes_without_them(tmp_path):
    run = Run(tmp_path, "baseline.retriever", retriever.Config(), {})
    run.start()
    (tmp_path / "sources.yaml").unlink()
    (tmp_path / "words.bin").touch()
    run.check_code()
    run.start()
    assert not (tmp_path / "sources.yaml").exists()


def test_left_over_files_do_not_block_a_new_run(data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".DS_Store", ".config.yaml.1.part", ".lock"):
        (run / name).touch()
    assert command(parser(), arguments(data, run, "--set", "epochs=1")) == 0


def test_the_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    """A real one: torch's own writer would raise `unexpected pos 704 vs 598`."""

    @contextlib.contextmanager
    def on_a_full_disk(target):
        yield Path("/dev/full")

    monkeypatch.setattr(training, "replacing", on_a_full_disk)
    with pytest.raises(OSError, match="No space left on device") as failure:
        training.save_tensors({"a": torch.zeros(100_000)}, tmp_path / "best.ckpt")
    assert failure.value.filename == str(tmp_path / "best.ckpt")


def test_a_run_is_not_mixed_with_another_config(data, undisturbed, capsys):
    before = (undisturbed / "config.yaml").read_bytes()
    assert (
        command(parser(), arguments(data, undisturbed, "--set", "margin=0.5", "--set", "epochs=9", "--seed", "3")) == 1
    )
    lines = capsys.readouterr().err.splitlines()
    advice = " is given; give the same value, or a new run folder"
    place = f"{undisturbed}/config.yaml"
    assert lines == [
        f"{place}: config.epochs: error: the run has 3, but 9{advice}",
        f"{place}: config.margin: error: the run has 1.0, but 0.5{advice}",
        f"{place}: seed: error: the run has 0, but 3{advice}",
    ]
    assert (undisturbed / "config.yaml").read_bytes() == before


def test_a_run_does_not_resume_with_other_flags(data, undisturbed, capsys):
    more = ["--precision", "bf16-mixed", "--accumulate-grad-batches", "2"]
    assert command(parser(), arguments(data, undisturbed, *more)) == 1
    lines = capsys.readouterr().err.splitlines()
    advice = " is given; give the same value, or a new run folder"
    assert lines == [
        f"{undisturbed}/config.yaml: training.accumulate_grad_batches: error: the run has 1, but 2{advice}",
        f"{undisturbed}/config.yaml: training.precision: error: the run has 32-true, but bf16-mixed{advice}",
    ]


def test_a_run_is_not_mixed_with_other_data(data, undisturbed, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    captions = other / "captions_validation.csv"
    captions.write_text(captions.read_text().replace("a ", "one ", 1))
    assert command(parser(), arguments(other, undisturbed)) == 1
    assert "config.yaml: data.validation: error: the run has" in capsys.readouterr().err


def add_extra_captions(folder, *captions):
    """Write extra captions, each for every second development clip."""
    clips = read_dataset(folder, "development", sound=False)["development"].clips[::2]
    rows_of_file = [["file_name", "caption", "source"]]
    for caption in captions:
        rows_of_file += [[clip.file_name, caption, "test"] for clip in clips]
    with (folder / "captions_development.extra.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows_of_file)


@pytest.fixture(scope="module")
def data_with_extra(data, tmp_path_factory):
    """The data with two extra captions for each of seven development clips."""
    folder = tmp_path_factory.mktemp("extra") / "data"
    shutil.copytree(data, folder)
    add_extra_captions(folder, "a melodious ringing", "something is heard")
    return folder


EXTRA = ("--set", "extra_share=0.3", "--set", "epochs=3")


@pytest.fixture(scope="module")
def with_extra(data_with_extra, tmp_path_factory):
    """A run that draws extra captions, and the items of each epoch in the order of the training steps."""
    run, batches = tmp_path_factory.mktemp("runs") / "extra", []
    make_batch = retriever.make_batch

    def recording(items, truth):
        batches.append(items)
        return make_batch(items, truth)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever, "make_batch", recording)
        assert command(parser(), arguments(data_with_extra, run, *EXTRA)) == 0
    epochs: list[list] = [[]]
    for batch in batches:
        if batch[0].name in read_dataset(data_with_extra, "validation", sound=False)["validation"].file_names:
            if epochs[-1]:
                epochs.append([])
        else:
            epochs[-1] += [(item.name, item.captions) for item in batch]
    return run, epochs[:-1]


def test_an_epoch_sees_all_captions_and_a_share_of_extra_ones(data_with_extra, with_extra):
    split = read_dataset(data_with_extra, "development")["development"]
    regular = [(clip.file_name, clip.captions) for clip in split.clips]
    extra = []
    for clip in split.clips:
        extra += [(clip.file_name, (listed.caption,)) for listed in clip.extra]
    _, epochs = with_extra
    assert len(epochs) == 3
    drawn_in_epochs = []
    for epoch, seen in enumerate(epochs):
        generator = torch.Generator().manual_seed(epoch * 1_009)
        drawn = [extra[number] for number in torch.randperm(14, generator=generator)[:4]]  # 0.3 x 14 = 4.2
        assert sorted(seen) == sorted(regular + drawn)
        drawn_in_epochs.append(sorted(drawn))
    assert len(set(map(str, drawn_in_epochs))) == 3


def test_killed_between_epochs_it_draws_the_same_extra_captions(data_with_extra, with_extra, tmp_path):
    asked = arguments(data_with_extra, tmp_path / "run", *EXTRA)
    assert cut_off(asked, training, "write_rows", 2, kill_after) == -signal.SIGKILL
    assert command(parser(), asked) == 0
    assert same(weights(tmp_path / "run"), weights(with_extra[0]))
    assert rows(tmp_path / "run") == rows(with_extra[0])


def test_a_run_is_not_mixed_with_other_extra_captions(data_with_extra, with_extra, tmp_path, capsys):
    run, _ = with_extra
    other = tmp_path / "other"
    shutil.copytree(data_with_extra, other)
    add_extra_captions(other, "a melodious ringing", "nothing is heard")
    assert command(parser(), arguments(other, run, *EXTRA)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{run}/config.yaml: data.extra_captions: error: the run has ")
    data_of_run = yaml.safe_load((run / "config.yaml").read_text())["data"]
    dataset = read_dataset(other, "development", "validation")
    assert data_of_run.keys() == {"development", "validation", "extra_captions"}
    assert data_of_run["development"] == dataset["development"].digest


def test_extra_captions_that_are_not_used_change_nothing(data_with_extra, undisturbed, tmp_path):
    run = tmp_path / "run"
    assert command(parser(), arguments(data_with_extra, run)) == 0
    assert same(weights(run), weights(undisturbed))
    for name in ("metrics.csv", "config.yaml"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()


def test_extra_captions_that_are_missing_are_refused(data, tmp_path, capsys):
    assert command(parser(), arguments(data, tmp_path / "run", *EXTRA)) == 2
    message = "error: extra_share must be 0 for a development split without extra captions; found 0.3: add"
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_that_is_no_run_is_not_changed(data, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert command(parser(), arguments(data, tmp_path)) == 1
    assert (
        "must be a run folder or empty; found files, but no config.yaml: give a new folder" in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


BAD_REQUESTS = {
    "a key with a typo": (
        ["--set", "epoch=3"],
        2,
        "--set: epoch: error: unknown key 'epoch'; did you mean 'epochs'? there are: epochs, batch, learning_rate,",
    ),
    "a value of another kind": (["--set", "batch=many"], 2, "--set: batch: error: Input should be a valid integer"),
    "a value out of range": (
        ["--set", "batch=0"],
        2,
        "--set: batch: error: Input should be greater than or equal to 1",
    ),
    "no equals sign": (["--set", "epochs"], 2, "error: --set must be key=value; found 'epochs'"),
    "no config file": (["--config", "nowhere.yaml"], 2, "error: nowhere.yaml: no such file; give a YAML file"),
    "no word vectors": (
        ["--set", "words=nowhere.bin"],
        2,
        "error: words: nowhere.bin: no such file; give a word2vec .bin",
    ),
    "no data": (["--data", "nowhere"], 2, "error: nowhere: no such folder; give a folder in Clotho's layout"),
    "no such monitor": (["--set", "monitor=map"], 2, "--set: monitor: error: Input should be 'mAP@10' or 'loss'"),
    "no such accelerator": (["--accelerator", "abacus"], 2, "error: lightning's flags: "),
    "no such precision": (["--precision", "half"], 2, "error: lightning's flags: "),
    "fewer batches than one": (
        ["--accumulate-grad-batches", "-2"],
        2,
        "error: lightning's flags: accumulate_grad_batches must be 1 or more; found -2",
    ),
    "no batches": (
        ["--accumulate-grad-batches", "0"],
        2,
        "error: lightning's flags: accumulate_grad_batches must be 1 or more; found 0",
    ),
    "an infinite rate": (["--set", "learning_rate=.inf"], 2, "--set: learning_rate: error: Input should be a finite"),
}


@pytest.mark.parametrize(("more", "status", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(data, tmp_path, capsys, more, status, message):
    run = tmp_path / "run"
    assert command(parser(), arguments(data, run, *more)) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert not run.exists()


def test_word_vectors_of_another_length_are_refused_at_once(data, tmp_path, capsys):
    (tmp_path / "glove.txt").write_text("dog 0.1 0.2\nrain 0.3 0.4\n")
    assert command(parser(), arguments(data, tmp_path / "run", "--set", f"words={tmp_path}/glove.txt")) == 2
    expected = f"error: words: {tmp_path}/glove.txt: vectors must have 300 values; these have 2: give another file\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "run").exists()


def test_a_full_disk_while_a_checkpoint_is_written(data, tmp_path, capsys, monkeypatch, undisturbed):
    original, calls = torch.save, []

    def full(checkpoint, file):
        calls.append(file)
        original(checkpoint, file)
        if len(calls) == 2:  # the first epoch's best is written, its last is not
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    run = tmp_path / "run"
    monkeypatch.setattr(torch, "save", full)
    assert command(parser(), arguments(data, run)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("No space left on device; free some space and run the same command again")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
    monkeypatch.undo()
    assert command(parser(), arguments(data, run)) == 0
    assert same(weights(run), weights(undisturbed))


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(data, tmp_path, capsys):
    assert command(parser(), arguments(data, tmp_path / "run", "--set", "learning_rate=1e30")) == 1
    assert "is not finite; lower learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1], False),
        ([0.1, 0.2, 0.3], False),
        ([0.3, 0.2, 0.1], True),
        ([0.3, 0.3, 0.3], True),  # as good is no improvement
        ([0.3, 0.2, 0.1, 0.2], False),
        ([0.3, 0.2, 0.1, 0.2, 0.2], True),  # and again, since the last reduction
        ([0.3, 0.2, 0.4, 0.2, 0.2], True),
    ],
)
def test_the_rate_falls_after_two_epochs_without_improvement(values, expected):
    assert training.is_plateau(values, 2) is expected


def test_training_stops_and_slows_down_without_improvement(data, tmp_path, capsys):
    run = tmp_path / "run"
    patience = ["--set", "epochs=9", "--set", "plateau=1", "--set", "patience=2", "--set", "learning_rate=1e-12"]
    assert command(parser(), arguments(data, run, *patience, "--set", "dropout=0.0")) == 0
    epochs = rows(run)
    values = [float(row["validation_mAP@10"]) for row in epochs]
    assert len(values) - 1 - values.index(max(values)) == 2 or len(values) == 9
    assert float(epochs[-1]["learning_rate"]) < 1e-12
    improvements = [number for number, value in enumerate(values) if value > max(values[:number], default=-1.0)]
    assert len(improvements) < len(values)
    assert capsys.readouterr().out.count("(best)") == len(improvements)


@pytest.mark.parametrize("how", [terminate, interrupt, lose_interrupt])
def test_an_interrupted_run_does_not_look_finished(data, undisturbed, tmp_path, capfd, how):
    run = tmp_path / "run"
    assert cut_off(arguments(data, run), retriever.Training, "training_step", 6, how) not in (0, 99)
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted; run the same command again"
    assert not (run / "system.yaml").exists()
    assert command(parser(), arguments(data, run)) == 0
    assert same(weights(run), weights(undisturbed))


def test_unknown_settings_from_python_are_findings(data, tmp_path):
    with pytest.raises(Faulty, match="config: epoch: error: unknown key 'epoch'; did you mean 'epochs'"):
        runs.train("baseline.retriever", read_dataset(data), tmp_path / "run", {"epoch": 3})
    assert not (tmp_path / "run").exists()
