"""Writing a folder for a Hugging Face Space, which shows the demo of exported runs."""

import json
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from evaluation.extras import absent
from evaluation.files import appearing
from evaluation.findings import BadRequest
from systems.sharing.folders import RUN_FILES, is_exported, read_contents

KIT = "dcase-kit"
# The packages whose versions the Space must use, because they affect the models or the page.
PINNED = ("gradio", "lightning", "numpy", "torch", "torchaudio", "transformers")
PLACE_OF_THE_KIT = "ADDRESS-OF-THE-KIT"  # used if the kit's metadata do not contain its repository

APP = '''\
"""The demo of this Space."""

from pathlib import Path

from evaluation.data.dataset import read_dataset
from systems.demo.page import serve

FOLDER = Path(__file__).parent
RUNS = sorted((FOLDER / "runs").iterdir())
CLIPS = FOLDER / "data"  # the clips that retrievers search

split = read_dataset(CLIPS, {split!r})[{split!r}] if CLIPS.is_dir() else None
serve(RUNS, split, address="0.0.0.0", port=7860)
'''

README = """\
---
title: {quoted_title}
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
license: unknown
---

# {title}

Before you upload this folder as a [Hugging Face Space](https://huggingface.co/docs/hub/spaces-sdks-gradio):

{steps}
"""
LICENCE = "Fill in `title` and `license` at the top of this file. The licence must allow you to publish the runs."
KIT_STEP = f"Write the address of the kit's git repository into `requirements.txt`, in place of `{PLACE_OF_THE_KIT}`."
DATA_STEP = """\
If a run is a retriever, put the clips that it searches into the folder `data`, in Clotho's layout:
   `data/captions_{split}.csv` and the audio files in `data/{split}/`. Only publish sounds whose licence allows it."""
ENCODER_STEP = """\
If the model card of a run in `runs/` lists files that it needs, such as the weights of an encoder, add their download
   to `app.py`. The kit expects them in the folder that the variable `DCASE_KIT_CACHE` names."""


def write_space(target: Path, folders: Sequence[Path], split: str) -> str:
    """Write the folder of a Space. It does not contain audio files, because their licences may not allow publication.

    Args:
        target: The folder to write. It must be new or empty.
        folders: The folders that `systems export` wrote.
        split: The name of the split that a retriever searches.

    Returns:
        A text that names the folder and says what to do next.

    Raises:
        BadRequest: A folder is not an exported run, or a file of the exported run is missing.
    """
    for folder in folders:
        if not is_exported(folder):
            message = "must be an exported run; found a run folder"
            raise BadRequest(f"{folder}: {message}: run `dcase-systems export {folder} DIR`, and give DIR")
        for name in read_contents(folder).paths:
            if name not in RUN_FILES and not (folder / name).is_file():
                raise BadRequest(f"{folder / name}: no such file; export the run again, or download the folder again")
    title = " and ".join(folder.resolve().name for folder in folders)
    address = _address_of_the_kit()
    steps = [LICENCE, DATA_STEP.format(split=split), ENCODER_STEP]
    if address == PLACE_OF_THE_KIT:
        steps.insert(1, KIT_STEP)
    with appearing(target) as part:
        for number, folder in enumerate(folders, start=1):
            _copy_run(folder, part / "runs" / f"{number}-{folder.resolve().name}")
        (part / "app.py").write_text(APP.format(split=split), encoding="utf-8")
        requirements = [f"{KIT}[train,reports,demo] @ git+{address}"]
        for name in PINNED:
            if not absent([name]):
                public_version = metadata.version(name).partition("+")[0]  # torch's ends in +cpu or +cu130
                requirements.append(f"{name}=={public_version}")
        (part / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        text = README.format(
            title=title,
            quoted_title=json.dumps(title),
            gradio=metadata.version("gradio"),
            python=".".join(map(str, sys.version_info[:2])),
            steps="\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1)),
        )
        (part / "README.md").write_text(text, encoding="utf-8")
    return f"{target}: follow the steps in {target / 'README.md'}, and upload the folder as a Space"


def _copy_run(folder: Path, target: Path) -> None:
    """Copy the model card of an exported run, and the files that are needed to load the model."""
    for name in [*read_contents(folder).paths, "README.md"]:
        if (folder / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)


def _address_of_the_kit() -> str:
    """Return the address of the repository in the kit's metadata, or `PLACE_OF_THE_KIT` if they do not contain one."""
    try:
        addresses = metadata.metadata(KIT).get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # the kit runs from a clone that is not installed
        return PLACE_OF_THE_KIT
    for line in addresses:
        label, _, address = line.partition(", ")
        if label.lower() in ("repository", "source"):
            return address
    return PLACE_OF_THE_KIT
