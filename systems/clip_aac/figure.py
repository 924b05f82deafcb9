"""How alike clips and captions are before and after training, as a figure (Chen et al. 2022, Figure 2).

    python -m systems.clip_aac.figure RUN --data DIR --split evaluation

Cosines of some clips and of the first caption of each, divided by the temperature of either model, softmax over the
captions of a clip: as equation 2 sees them. Clips are drawn by the run's seed, among those whose first captions
differ. Before training is the beginning that the run's config and seed say; AudioCLIP's file is read for it where the
config has it.
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

PAIRS = 8  # of a batch, as published


def main(options: argparse.Namespace) -> None:
    """Draw the similarities of a batch before and after training into RUN/figures/similarity-SPLIT.png."""
    checkpoint = options.run_folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise BadRequest(f"{options.run_folder}: must be the folder of a trained run with checkpoints/best.ckpt")
    trained = read_run(options.run_folder)
    if trained.system != "systems.clip_aac" or not trained.config.get("alpha"):
        raise BadRequest(f"{options.run_folder}: must be a run of systems.clip_aac with alpha above 0, and a text head")
    after = load_model(checkpoint)
    clips = drawn(read_dataset(options.data, options.split)[options.split].clips, trained.seed)
    lightning.seed_everything(trained.seed, verbose=False)
    before = beginning(after.config, after.vocabulary, after.tokenizer).eval()
    matrices = {f"{name} training": similarity(model, clips) for name, model in (("before", before), ("after", after))}
    target = options.run_folder / "figures" / f"similarity-{options.split}.png"
    draw(matrices, clips, target)
    for name, matrix in matrices.items():
        best = int((matrix.argmax(axis=1) == np.arange(len(clips))).sum())
        print(f"{name}: the own caption has {matrix.diagonal().mean():.3f} on average, and the most for {best} clips")
    print(target)


def drawn(clips: tuple[Clip, ...], seed: int, number: int = PAIRS) -> list[Clip]:
    """Some clips whose first captions differ, by a seed.

    Raises:
        BadRequest: There are fewer than two.
    """
    firsts: dict[str, Clip] = {}
    for index in np.random.default_rng(seed).permutation(len(clips)):
        if clips[index].captions:
            firsts.setdefault(clips[index].captions[0], clips[index])
    if len(firsts) < 2:
        raise BadRequest("the split must have two clips or more whose first captions differ, to tell them apart")
    return list(firsts.values())[:number]


def similarity(model: ClipAac, clips: list[Clip]) -> np.ndarray:
    """Softmax over captions of cosines / temperature, (clips, captions), each clip's own caption on the diagonal."""
    sounds = [torch.from_numpy(audio.load_audio(clip.path, model.sample_rate)) for clip in clips]
    lengths = torch.tensor([len(sound) for sound in sounds])
    with torch.inference_mode():
        heard = model.embed_audio(torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True), lengths)
        read = model.embed_text([clip.captions[0] for clip in clips])
        return (heard @ read.T / model.heads.temperature).softmax(1).numpy()


def draw(matrices: dict[str, np.ndarray], clips: list[Clip], target: Path) -> None:
    """Draw matrices side by side, in one scale, with the captions below."""
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
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the clip's softmax")
    said = "\n".join(f"T{number}  {clip.captions[0]}" for number, clip in enumerate(clips, 1))
    figure.supxlabel(said, ha="left", x=0.05, fontsize=8)
    with replacing(target) as part:
        figure.savefig(part, format="png", metadata={"Software": None})


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser("python -m systems.clip_aac.figure", description=main.__doc__)
    top.add_argument("run_folder", type=Path, metavar="RUN", help="run folder of systems.clip_aac")
    top.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    top.add_argument("--split", default=EVALUATION, help="which split (evaluation)")
    top.set_defaults(run=main)
    return top


if __name__ == "__main__":
    sys.exit(command(parser()))
