"""Figures of the losses and metrics of runs."""

import pytest

from evaluation.findings import BadRequest, Faulty
from systems import curves, request_checks

HEADER = "epoch,learning_rate,loss,validation_loss,validation_mAP@10"


@pytest.fixture
def make_run(tmp_path):
    def make_run(name, values=(0.1, 0.2), header=HEADER):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").touch()
        lines = [f"{epoch},0.001,2.0,1.5,{value}" for epoch, value in enumerate(values, 1)]
        (folder / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
        return folder

    return make_run


@pytest.fixture
def sweep(make_run, tmp_path):
    """A sweep of two settings and two seeds, and a run that failed."""
    lines = ["run,size,seed,state,mAP@10"]
    for size in (1, 2):
        for seed in (0, 1):
            make_run(f"sweep/runs/{size}-{seed}", [size + seed, 5.0])
            lines.append(f"{size}-{seed},{size},{seed},done,5.0")
    lines.append("3-0,3,0,failed,")
    (tmp_path / "sweep" / "results.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "sweep"


def test_seeds_of_a_sweep_share_a_curve(sweep, make_run):
    table = curves.read_curves([sweep, make_run("other")])
    assert list(table["label"].unique()) == ["sweep: size=1", "sweep: size=2", "other"]
    first = table[(table["label"] == "sweep: size=1") & (table["name"] == "mAP@10")]
    assert first.groupby("epoch")["value"].mean().tolist() == [1.5, 5.0]
    assert set(table["kind"][table["name"] == "loss"]) == {"training", "validation"}


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_the_suffix_decides_the_format(make_run, tmp_path, suffix, start):
    file = tmp_path / f"figure.{suffix}"
    text = curves.draw_curves([make_run("run")], "mAP@10", file)
    assert text == f"{file}: loss, mAP@10; 1 curve of 1 run"
    assert file.read_bytes().startswith(start)


def test_a_figure_has_a_panel_for_each_value(sweep, make_run):
    table = curves.read_curves([sweep])
    figure = curves._figure(table, ["loss", "mAP@10"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mAP@10 (validation)"]
    assert len(figure.axes[1].collections) == 2  # a band for each setting
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["size=1", "size=2", "training loss", "validation loss"]


def test_equal_names_of_runs_are_told_apart(make_run):
    one, other = make_run("a/run"), make_run("b/run")
    assert list(curves.read_curves([one, other])["label"].unique()) == ["a/run", "b/run"]
    assert list(curves.read_curves([one, one])["label"].unique()) == ["run"]


def test_all_folders_without_values_are_listed(make_run, tmp_path):
    for name in ("staged/stage-1", "staged/stage-2"):
        make_run(name)
    (tmp_path / "begun").mkdir()
    for name in ("staged", "begun"):
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "metrics.csv").touch()
    names = ["metrics.csv", "nowhere", "photos", "begun", "staged"]
    folders = [make_run("empty", ()), make_run("damaged", ["much"]), *(tmp_path / name for name in names)]
    with pytest.raises(Faulty) as refusal:
        curves.read_curves(folders)
    assert refusal.value.status == 2
    messages = [finding.message for finding in refusal.value.findings]
    expected = [
        "must have a row for each epoch; found none",
        "must be a number; found 'much'",
        "no such folder",
        "must be a run folder or the folder of a sweep; found a file: give the folder",
        "must be a run folder or the folder of a sweep; found neither",
        "must have a metrics.csv; found none: no epoch has ended",
        f"must have a metrics.csv; found some for stages of the training: give {tmp_path}/staged/stage-1, ",
    ]
    for message, start in zip(sorted(messages), sorted(expected), strict=True):
        assert message.startswith(start)


def test_a_metric_with_a_typo_is_guessed(make_run, tmp_path):
    with pytest.raises(BadRequest, match=r"unknown metric 'mAP@1'; did you mean 'mAP@10'\?"):
        curves.draw_curves([make_run("run")], "mAP@1", tmp_path / "figure.svg")


def test_runs_that_lack_the_metric_are_listed(make_run, tmp_path):
    other = make_run("other", header=HEADER.replace("mAP@10", "CIDEr-D"))
    with pytest.raises(Faulty, match=r"other/metrics\.csv: error: must have a column for mAP@10; found learning"):
        curves.draw_curves([make_run("run"), other], "mAP@10", tmp_path / "figure.svg")


def test_many_curves_have_colours_of_their_own():
    assert len(set(curves._colours(20))) == 20


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(BadRequest, match=r"must end with \.svg, \.png, \.pdf"):
        request_checks.check_figure(tmp_path / "figure.gif")
