"""A figure of the similarity of clips and captions before and after training (Chen et al. 2022, Figure 2).

    python -m systems.clip_aac.figure RUN --data DIR --split evaluation

The figure shows eight clips and the first caption of each. The cosine of each clip and caption is divided by the
model's temperature. For each clip, a softmax is then computed over all captions in the figure, as in equation 2. The
clips are drawn at random with the run's seed; their first captions are all different. The model before training is made
again from the run's config and seed. This needs AudioCLIP's file, unless `init` is `random`.
"""

import argparse
import sys
from pathlib import Path

import lightning
import numpy as np
import torch

from evaluation.cli import command
from evaluation.data import audio
from evaluation.data.dataset import EVALUATION, Clip, read_dataset
from evaluation.files import replacing
from evaluation.findings import BadRequest
from systems.clip_aac import ClipAac, beginning, load_model
from systems.contract import read_run

PAIRS = 8  # pairs in the figure, as published


def main(options: argparse.Namespace) -> None:
    """Draw the similarity of clips and captions before and after training, in RUN/figures/similarity-SPLIT.png."""
    checkpoint = options.run_folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(
            f"{options.run_folder}: must be the folder of a trained run, but it has no checkpoints/best.ckpt; give the "
            "run folder of a trained run of systems.clip_aac"
        )
    run = read_run(options.run_folder)
    if run.system != "systems.clip_aac" or not run.config.get("alpha"):
        raise BadRequest(
            f"{options.run_folder}: must be a run of systems.clip_aac with a text head (alpha above 0); found a run of "
            f"{run.system}, with alpha={run.config.get('alpha', 'not set')}: give another run"
        )
    after = load_model(checkpoint)
    clips = drawn(read_dataset(options.data, options.split)[options.split].clips, run.seed)
    lightning.seed_everything(run.seed, verbose=False)
    before = beginning(after.config, after.vocabulary, after.tokenizer).eval()
    matrices = {"before training": similarity(before, clips), "after training": similarity(after, clips)}
    target = options.run_folder / "figures" / f"similarity-{options.split}.png"
    draw(matrices, clips, target)
    for name, matrix in matrices.items():
        correct = int((matrix.argmax(axis=1) == np.arange(len(clips))).sum())
        mean = matrix.diagonal().mean()
        print(f"{name}: a clip's own caption has a mean softmax of {mean:.3f}, and ranks first for {correct} clips")
    print(target)


def drawn(clips: tuple[Clip, ...], seed: int, number: int = PAIRS) -> list[Clip]:
    """Draw clips whose first captions differ.

    Raises:
        BadRequest: There are fewer than two such clips.
    """
    clip_of_caption: dict[str, Clip] = {}
    for index in np.random.default_rng(seed).permutation(len(clips)):
        if clips[index].captions:
            clip_of_caption.setdefault(clips[index].captions[0], clips[index])
    if len(clip_of_caption) < 2:
        raise BadRequest(
            "the split must have at least two clips whose first captions differ, for the figure to compare; found "
            f"{len(clip_of_caption)}: give another split"
        )
    return list(clip_of_caption.values())[:number]


def similarity(model: ClipAac, clips: list[Clip]) -> np.ndarray:
    """Return the softmax over captions of cosines / temperature.

    Returns:
        An array of shape (clips, captions). The diagonal contains the values of each clip's own caption.
    """
    sounds = [torch.from_numpy(audio.load_audio(clip.path, model.sample_rate)) for clip in clips]
    lengths = torch.tensor([len(sound) for sound in sounds])
    with torch.inference_mode():
        of_clips = model.embed_audio(torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True), lengths)
        of_captions = model.embed_text([clip.captions[0] for clip in clips])
        return (of_clips @ of_captions.T / model.heads.temperature).softmax(1).numpy()


def draw(matrices: dict[str, np.ndarray], clips: list[Clip], target: Path) -> None:
    """Draw matrices side by side with the same colour scale, write the captions below, and save the figure as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(matrices))
    numbers = range(len(clips))
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        image = axis.imshow(matrix, vmin=0, vmax=1, cmap="Purples")
        axis.set(title=name, xlabel="caption", ylabel="clip")
        axis.set_xticks(numbers, [f"T{number + 1}" for number in numbers])
        axis.set_yticks(numbers, [f"A{number + 1}" for number in numbers])
        for row, column in np.ndindex(matrix.shape):
            shade = "white" if matrix[row, column] > 0.5 else "black"
            axis.text(column, row, f"{matrix[row, column]:.2f}", ha="center", va="center", color=shade, fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.6, label="softmax over the captions")
    captions = "\n".join(f"T{number}  {clip.captions[0]}" for number, clip in enumerate(clips, 1))
    figure.supxlabel(captions, ha="left", x=0.05, fontsize=8)
    with replacing(target) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems.clip_aac.figure", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of systems.clip_aac")
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=EVALUATION, help="split to draw clips from (default: evaluation)")
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
