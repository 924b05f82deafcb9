# PYTHON_ARGCOMPLETE_OK
"""The command line of this package, with a command for each step from training to sharing a system."""

import argparse
import contextlib
import gc
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation import yamlfiles
from evaluation.cli import command, complete
from evaluation.data.dataset import DEVELOPMENT, EVALUATION, VALIDATION, Split, read_dataset
from evaluation.data.split_files import CHOICE, MOMENTS
from evaluation.downloads import download_missing
from evaluation.files import DEFAULT_CACHE, cache_folder
from evaluation.findings import BadRequest, say
from evaluation.hub import prediction_folder
from systems import asked, contract, listing, lock, loggers, modules, request_checks
from systems.memory import configure_allocation

# The options of `train` that are passed to Lightning.
FLAGS = ("accelerator", "devices", "precision", "strategy", "num_nodes", "accumulate_grad_batches")
# From each task to the kind of data that it needs.
KINDS_OF_DATA = {
    "captioning": asked.CLIPS,
    "retrieval": asked.CLIPS,
    "choice": CHOICE,
    "moments": MOMENTS,
}
WIDTH = 100  # maximum number of characters in a line of `list`

SWEEP_FILE = """\
the sweep file:
  system: systems.atae                  import name of the system
  config: FILE.yaml                     optional: config file that the keys below change
  set: {epochs: 4}                      optional: config keys with the same value in all runs
  grid:                                 factors; there is a run for every combination of their levels
    audio_adapter: [mlp, mha]           a config key and its values, or names of levels with the keys that they change
  seeds: 3                              number of seeds, or a list of seeds: [0, 1, 2]
  metric: mAP@10                        the metric to compare

to let Optuna choose the settings from the results so far:
  search: optuna
  ranges:                               config keys whose values are numbers from a range; Optuna also chooses among
                                        the levels of grid
    learning_rate: {low: 1e-5, high: 1e-2, log: true}
  samples: 20                           number of settings; there is a run for each setting and seed

to stop runs early:
  stop_early: asha                      a run continues after 1, 4, 16, ... epochs if its validation value is in the
                                        best quarter so far; the other runs get the state "stopped" in results.csv"""


def show(options: argparse.Namespace) -> None:
    """List the systems that the kit contains."""
    for system in listing.systems():
        print(f"{system.name}: {system.task}")
        facts = {"paper": system.paper, "parameters": system.parameters, "configs": _by_folder(system.configs)}
        for name, text in facts.items():
            label = f"  {name:12}"
            wrapper = textwrap.TextWrapper(WIDTH, label, " " * len(label), break_on_hyphens=False)
            print(wrapper.fill(text))
        print()
    print("You can also use your own module by its import name. Check it with: dcase-systems check NAME")


def check(options: argparse.Namespace) -> int:
    """Train a system briefly on awkward data, probe its model, and list all rules for systems that it breaks."""
    from systems.sharing import folders

    if not options.run_folder:
        request_checks.check_module(options.system)
        request_checks.check_config(options.system, options.config, options.set)
    with _importing():
        from systems.checking.check import check_system

    with contextlib.ExitStack() as stack:
        folder = None
        if options.run_folder:
            folder = stack.enter_context(folders.unpacked(folders.find(options.run_folder)))
        description, findings = check_system(options.system, folder, options.config, options.set, options.trust)
    if findings:
        say(findings)
        return 1
    print(f"{options.system}: {description}; nothing to fix")
    return 0


def download(options: argparse.Namespace) -> None:
    """Download published weights, models and word vectors, and skip what is already on this machine.

    A table of everything that is needed is printed first. To resume an interrupted download, run the command again.
    """
    for need in options.needs:
        if need.endswith((".yaml", ".yml")):
            yamlfiles.read_yaml(listing.kit_file(need))  # reports a wrong file before the slow import
    with _importing():
        from systems.downloads import required

    download_missing(required(options.needs, options.system), options.dry_run)


def train(options: argparse.Namespace) -> None:
    """Train a system into a run folder, or resume an interrupted training."""
    flags = {key: getattr(options, key) for key in FLAGS}
    request_checks.check_module(options.system)
    request_checks.check_config(options.system, options.config, options.set)
    request_checks.check_flags(flags)
    request_checks.check_seed(options.seed)
    request_checks.check_run_folder(options.run_folder)
    loggers.check_logger(options.logger)
    dataset = asked.read_data(options.data, DEVELOPMENT, VALIDATION)
    with _importing():
        from systems import runs

        system = contract.system(options.system)
    config = contract.configure(system.Config, options.config, options.set)
    with modules.trusting(options.trust):
        runs.train(
            options.system,
            dataset,
            options.run_folder,
            config,
            seed=options.seed,
            cache=options.cache,
            flags=flags,
            logger=options.logger,
            code_changed=options.code_changed,
        )
    if lock.is_first_process():
        command = f"dcase-systems predict {options.run_folder} --data {options.data}"
        print(f"{options.run_folder}: trained; predict with: {command}")


def predict(options: argparse.Namespace) -> None:
    """Caption every clip of a split with a trained run, or compute the similarity of every query and every clip.

    If the data folder has questions about clips, answer them. If it has queries about long recordings, find the windows
    that answer them.
    """
    from systems.sharing import folders

    decoding, _ = contract.read_settings(None, options.set)
    if decoding and not options.out:
        raise BadRequest("--set must be given with --out; found no --out: give a folder for these predictions")
    folder = folders.find(options.run_folder)
    contract.read_model_run(folder)
    kind = KINDS_OF_DATA.get(options.task, "")
    split = asked.read_data(options.data, options.split, kind=kind)[options.split]
    with _importing():
        from systems import runs

    out = options.out or prediction_folder(options.run_folder)
    print(runs.predict(folder, split, task=options.task, trusted=options.trust, out=out, decoding=decoding))


def ensemble(options: argparse.Namespace) -> None:
    """Combine the predictions of several runs into the predictions of a new run.

    For retrieval, this is the weighted mean of the similarity matrices. For captioning, the caption of each clip is the
    one that agrees best with the captions of the other runs. The new run has predictions for each split that all runs
    have predictions for. It can be scored, compared and packaged like other runs.
    """
    is_search = options.weights == Path("search")
    if is_search and not options.data:
        raise BadRequest("--weights search must be given with --data; found no --data: give the data folder")
    validation = read_dataset(options.data, VALIDATION, sound=False)[VALIDATION] if is_search else None
    from systems.ensembles.ensemble import Combination, make_ensemble

    combination = Combination(options.standardise, options.measure, options.cache)
    weight_file = None if is_search else options.weights
    print(make_ensemble(options.runs, options.run_folder, combination, weight_file, validation))


def rerank(options: argparse.Namespace) -> None:
    """Choose among several candidate captions of each clip, and write the choice as the predictions of a new run.

    The run must have candidates, which `predict` writes with `--set candidates=N`. With a retriever, the candidate with
    the highest weighted mean of its log-probability and its similarity to the clip is chosen. Without a retriever, it
    is the candidate that agrees best with the other candidates of the clip.
    """
    from systems.sharing import folders

    request_checks.check_rerank(options.retriever, options.data, options.weight)
    weight = None if options.weight == "search" else float(options.weight)
    with _importing():
        from systems.reranking.rerank import Reranking, candidate_splits, rerank

    names = candidate_splits(options.run_folder)
    retriever = None
    splits: Mapping[str, Split] = {}
    if options.retriever:
        retriever = folders.find(options.retriever)
        contract.read_model_run(retriever)
        splits = read_dataset(options.data, *names).splits
    how = Reranking(retriever, weight, options.measure, options.cache, options.trust)
    print(rerank(options.run_folder, options.out, splits, how))


def search(options: argparse.Namespace) -> None:
    """Search the clips of a split with a text or an audio file, and print a table of the best clips.

    The embeddings of the clips are computed once, and stored in the cache.
    """
    from systems.sharing import folders

    request_checks.check_search(options.query, options.sound, options.number)
    folder = folders.find(options.run_folder)
    contract.read_model_run(folder)
    split = read_dataset(options.data, options.split)[options.split]
    with _importing():
        from systems import runs
        from systems.search import results
        from systems.search.collection import Collection

    with runs.loaded(folder, options.trust) as run:
        collection = Collection(run, split, options.index)
        if options.sound:
            matches = collection.search_sound(options.sound, options.number)
        else:
            matches = collection.search_text(options.query, options.number)
    if options.json:  # before anything is printed
        results.write_json(options.json, options.query or str(options.sound), matches)
    print(results.as_table(matches))


def demo(options: argparse.Namespace) -> None:
    """Show a page in which you try one or two trained runs.

    With a retriever, you type a text and hear the best clips of a split. With a captioner, you upload or record a sound
    and read its captions. The page is served on this machine, and nothing leaves the machine.
    """
    from systems.sharing import folders

    request_checks.check_demo(options.runs, options.space, options.port)
    found = [folders.find(run) for run in options.runs]
    for folder in found:
        contract.read_model_run(folder)
    if options.space:
        from systems.demo.space import write_space

        print(write_space(options.space, found, options.split))
        return
    split = None
    if options.data:
        split = read_dataset(options.data, options.split)[options.split]
    with _importing():
        from systems.demo.page import serve

    serve(found, split, options.trust, port=options.port)


def curves(options: argparse.Namespace) -> None:
    """Draw the losses and validation values of runs over their epochs.

    The runs of a sweep that differ only in their seed are drawn as their mean, with a band of one SD.
    """
    request_checks.check_figure(options.out)
    from systems.curves import draw_curves

    print(draw_curves(options.folders, options.metric, options.out))


def export(options: argparse.Namespace) -> None:
    """Write a trained run to a folder that can be published on the Hugging Face hub, without pickle.

    The folder contains the weights (safetensors), the config, the scores and a model card (README.md). `predict`,
    `check --run` and `submission package` take this folder, or its name on the hub, in place of a run folder.
    """
    contract.read_model_run(options.run_folder)
    dataset = read_dataset(options.data) if options.data else None
    with _importing():
        from systems.sharing.export import export

    print(export(options.run_folder, options.folder, options.trust, dataset))


def sweep(options: argparse.Namespace) -> int:
    """Train, predict and score every run of a sweep, on this machine or on a cluster.

    Run the command again to resume: it skips runs that are done and tries failed runs again.
    """
    request_checks.check_sweep(options.file)
    read_dataset(options.data, DEVELOPMENT, VALIDATION, options.split, sound=False)
    with _importing():
        from systems.sweeps import sweep

    failed = sweep.sweep(
        options.file,
        options.data,
        options.out,
        split=options.split,
        cache=options.cache,
        address=options.address,
        cpus=options.cpus,
        gpus=options.gpus,
        dry=options.dry_run,
    )
    if failed:
        return 1
    return 0


def published(options: argparse.Namespace) -> None:
    """Show a table with a system's published results and the results of your own runs."""
    from systems.published import best_runs, side_by_side

    if bool(options.sweep) != bool(options.by):
        raise BadRequest("--sweep and --by must be given together; found only one of them: give both or neither")
    runs = list(options.runs)
    if options.sweep:
        runs += best_runs(options.sweep, options.by)
    if runs and not options.data:
        raise BadRequest("--data must be given with runs; give the data folder on which the runs were scored")
    if options.data:
        split = read_dataset(options.data, options.split, sound=False)[options.split]
    else:
        split = None
    data_name = options.data.resolve().name if options.data else ""
    print(side_by_side(options.system, runs, data_name, split))


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Within the block, switch garbage collection off. This makes the import of torch and Lightning a fifth faster."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _by_folder(files: Sequence[Path]) -> str:
    """Return a list of files as text. The name of each folder appears once, before the names of its files.

    >>> _by_folder([Path("a/one.yaml"), Path("a/two.yaml"), Path("b/one.yaml")])
    'a/: one.yaml, two.yaml; b/: one.yaml'
    """
    folders: dict[Path, list[str]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file.name)
    return "; ".join(f"{folder}/: {', '.join(names)}" for folder, names in folders.items())


def _devices(text: str) -> str | int:
    """Return a whole number as an integer, and any other text as it is."""
    if text.lstrip("-").isdigit():
        return int(text)
    return text


def _system_names() -> list[str]:
    """Return the import names of the systems that the kit contains."""
    return [system.name for system in listing.systems()]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser("dcase-systems", description="Train systems, and predict with them.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    verb = verbs.add_parser("list", help="list the systems that the kit contains", description=show.__doc__)
    verb.set_defaults(run=show)

    verb = verbs.add_parser("check", help="check that a module keeps the rules for systems", description=check.__doc__)
    complete(verb.add_argument("system", help="import name, such as baseline.retriever"), _system_names)
    text = "trained run to check: a run folder, or a folder or hub name of an exported run (default: train the system)"
    verb.add_argument("--run", type=Path, dest="run_folder", metavar="RUN", help=text)
    text = "YAML config file to train with; its value of epochs is replaced by 1 (default: the system's defaults)"
    verb.add_argument("--config", type=listing.kit_file, help=text)
    text = "change a key of the config to train with; with this option, you can also change epochs"
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=check)

    text = "download the published weights and models that encoders and systems need"
    verb = verbs.add_parser("download", help=text, description=inspect.getdoc(download))
    text = "encoder (such as cnn14), text model, name on the hub (USER/NAME), or file of word vectors that is published"
    text += ", or YAML file: a system's config, a sweep file, or the config.yaml of a run"
    verb.add_argument("needs", nargs="+", metavar="NAME|CONFIG.yaml", help=text)
    text = "system that config files are for (default: the system whose folder has the file)"
    verb.add_argument("--system", metavar="NAME", help=text)
    verb.add_argument("--dry-run", action="store_true", help="only print the table")
    verb.set_defaults(run=download)

    verb = verbs.add_parser(
        "train", help="train a system, or resume an interrupted training", description=train.__doc__
    )
    complete(verb.add_argument("system", help="import name, such as baseline.retriever"), _system_names)
    text = "data folder in Clotho's layout; some systems need questions about clips, or queries about recordings"
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help=text)
    verb.add_argument("--run", type=Path, required=True, dest="run_folder", metavar="RUN", help="run folder to write")
    verb.add_argument("--config", type=listing.kit_file, help="YAML config file (default: the system's defaults)")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a key of the config; the system's YAML files list the keys",
    )
    verb.add_argument("--seed", type=int, default=0, help="seed of all random numbers, 0 to 2**32 - 1 (default: 0)")
    text = "resume although the system's code has changed since the training began; this is recorded in system.yaml"
    verb.add_argument("--code-changed", action="store_true", help=text)
    text = f"folder of the feature cache (default: {DEFAULT_CACHE})"
    verb.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help=text)
    text = "logger of Lightning that also gets all values (default: tensorboard)"
    verb.add_argument("--logger", choices=list(loggers.PACKAGES), default=loggers.TENSORBOARD, help=text)
    modules.add_option(verb)
    lightning = verb.add_argument_group("where to train (flags of Lightning)")
    lightning.add_argument("--accelerator", default="auto", help="auto, cpu, gpu, … (default: auto)")
    lightning.add_argument(
        "--devices",
        type=_devices,
        default="auto",
        help="number of devices (2), their indices (0,1), or auto (default: auto)",
    )
    lightning.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, 16-mixed, … (default: 32-true)")
    lightning.add_argument("--strategy", default="auto", help="auto, ddp, … (default: auto)")
    lightning.add_argument("--num-nodes", type=int, default=1, metavar="N", help="number of machines (default: 1)")
    text = "number of batches whose gradients are accumulated for each step of the optimiser (default: 1)"
    lightning.add_argument("--accumulate-grad-batches", type=int, default=1, metavar="N", help=text)
    verb.set_defaults(run=train)

    verb = verbs.add_parser("predict", help="predict with a trained run", description=inspect.getdoc(predict))
    text = "run folder, or an exported run: its folder, or its name on the Hugging Face hub (USER/NAME)"
    verb.add_argument("run_folder", type=Path, metavar="RUN", help=text)
    text = "data folder in Clotho's layout, or with questions about clips, or with queries about recordings"
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help=text)
    verb.add_argument("--split", default=EVALUATION, help="split to predict (default: evaluation)")
    text = "folder to write predictions/ in (default: RUN; for a name on the hub: runs/USER--NAME)"
    verb.add_argument("--out", type=Path, metavar="DIR", help=text)
    text = "task to do, if the system and the data allow several (default: captioning, if the data are clips)"
    verb.add_argument("--as", dest="task", choices=list(KINDS_OF_DATA), help=text)
    text = "change a decoding setting of a captioner, such as beams=8 or decoding=sample; needs --out"
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=predict)

    verb = verbs.add_parser("search", help="search clips with a trained retriever", description=inspect.getdoc(search))
    text = "run of a retriever: a run folder, or a folder or hub name of an exported run"
    verb.add_argument("run_folder", type=Path, metavar="RUN", help=text)
    verb.add_argument("query", nargs="?", metavar="TEXT", help="text to search for, such as 'a dog barks in the rain'")
    verb.add_argument("--sound", type=Path, metavar="FILE", help="search for clips that are similar to this audio file")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    verb.add_argument("--split", default=EVALUATION, help="split whose clips are searched (default: evaluation)")
    text = "number of clips to print (default: 10)"
    verb.add_argument("-n", type=int, default=10, dest="number", metavar="N", help=text)
    text = "exact: compare with all clips; faiss: an index that is faster for millions of clips, but may miss some "
    verb.add_argument("--index", choices=["exact", "faiss"], default="exact", help=f"{text}(default: exact)")
    text = "output file for the results, with scores at full precision"
    verb.add_argument("--json", type=Path, metavar="FILE", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=search)

    verb = verbs.add_parser("demo", help="try trained runs in a page", description=inspect.getdoc(demo))
    text = "one or two runs: run folders, or folders or hub names of exported runs"
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=text)
    text = "data folder in Clotho's layout with the clips that a retriever searches"
    verb.add_argument("--data", type=Path, metavar="DIR", help=text)
    verb.add_argument("--split", default=EVALUATION, help="split whose clips are searched (default: evaluation)")
    verb.add_argument("--port", type=int, help="port of the page (default: the first free one from 7860)")
    text = "write a folder that runs as a Hugging Face Space, and do not show the page; the runs must be exported runs"
    verb.add_argument("--space", type=Path, metavar="SPACE", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=demo)

    verb = verbs.add_parser(
        "ensemble", help="combine the predictions of several runs", description=inspect.getdoc(ensemble)
    )
    verb.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder with predictions")
    text = "run folder to write; it must be new or empty"
    verb.add_argument("--run", type=Path, required=True, dest="run_folder", metavar="OUT", help=text)
    text = (
        "YAML file with the weight of each run (RUN: 0.4), or `search` to fit the weights on the validation split "
        "(default: equal weights)"
    )
    verb.add_argument("--weights", type=Path, metavar="FILE", help=text)
    text = "shift and scale each similarity matrix to the mean 0 and the standard deviation 1 before the mean"
    verb.add_argument("--standardise", action="store_true", help=text)
    text = "similarity of captions that the choice is based on (default: cider_d)"
    verb.add_argument("--measure", choices=["cider_d", "sbert", "bert_score"], default="cider_d", help=text)
    verb.add_argument("--data", type=Path, metavar="DIR", help="data folder; only `--weights search` needs it")
    text = f"folder of the cache for the tokeniser (default: {DEFAULT_CACHE})"
    verb.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help=text)
    verb.set_defaults(run=ensemble)

    text = "choose among several candidate captions of each clip"
    verb = verbs.add_parser("rerank", help=text, description=inspect.getdoc(rerank))
    text = "run folder with candidates/, such as the folder of `predict --set candidates=20 --out DIR`"
    verb.add_argument("run_folder", type=Path, metavar="RUN", help=text)
    text = "run folder to write; it must be new or empty"
    verb.add_argument("--run", type=Path, required=True, dest="out", metavar="OUT", help=text)
    text = (
        "run of a retriever: a run folder, or a folder or hub name of an exported run "
        "(default: choose the candidate that agrees best with the others)"
    )
    verb.add_argument("--retriever", type=Path, metavar="RETRIEVER", help=text)
    text = "weight of the retriever, from 0 to 1, or `search` to fit it on the validation split (default: search)"
    verb.add_argument("--weight", default="search", metavar="WEIGHT", help=text)
    text = (
        "cider_d or sbert: the metric that the fitted weight maximises or, without a retriever, the similarity of "
        "captions (default: cider_d)"
    )
    verb.add_argument("--measure", choices=["cider_d", "sbert"], default="cider_d", help=text)
    text = "data folder with the audio of the splits; only --retriever needs it"
    verb.add_argument("--data", type=Path, metavar="DIR", help=text)
    text = f"folder of the cache for the tokeniser (default: {DEFAULT_CACHE})"
    verb.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=rerank)

    verb = verbs.add_parser("curves", help="draw the losses and metrics of runs", description=inspect.getdoc(curves))
    text = "run folder with metrics.csv, or the folder of a sweep"
    verb.add_argument("folders", type=Path, nargs="+", metavar="RUN", help=text)
    text = "draw only the loss and this value, such as mAP@10 (default: all validation values)"
    verb.add_argument("--metric", metavar="METRIC", help=text)
    text = "figure to write; the suffix .svg, .png or .pdf decides the format"
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help=text)
    verb.set_defaults(run=curves)

    verb = verbs.add_parser(
        "export", help="write a trained run to a folder to share", description=inspect.getdoc(export)
    )
    verb.add_argument("run_folder", type=Path, metavar="RUN", help="run folder")
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder to write; it must be new or empty")
    text = "data folder that the run was trained on, to describe it in the model card (default: only its digests)"
    verb.add_argument("--data", type=Path, metavar="DATA", help=text)
    modules.add_option(verb)
    verb.set_defaults(run=export)

    verb = verbs.add_parser(
        "sweep",
        help="train and score many runs of a system",
        description=inspect.getdoc(sweep),
        epilog=SWEEP_FILE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    text = "YAML file with the system, the factors to vary, the seeds and the metric; see below"
    verb.add_argument("file", type=listing.kit_file, metavar="FILE", help=text)
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="data folder in Clotho's layout")
    text = "folder to write, or the folder of an earlier sweep to resume"
    verb.add_argument("--out", type=Path, required=True, metavar="SWEEP", help=text)
    verb.add_argument("--split", default=EVALUATION, help="split to predict and score (default: evaluation)")
    text = f"folder of the feature cache (default: {DEFAULT_CACHE})"
    verb.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help=text)
    verb.add_argument("--dry-run", action="store_true", help="only list the runs and estimate the hours")
    workers = verb.add_argument_group("where to run")
    text = (
        "Ray cluster: HOST:PORT, or auto for the cluster that runs on this machine "
        "(default: the value of RAY_ADDRESS; if it is not set, start Ray on this machine)"
    )
    workers.add_argument("--address", default=os.environ.get("RAY_ADDRESS", ""), help=text)
    workers.add_argument("--cpus", type=int, default=1, help="number of processors for each run (default: 1)")
    text = "number of GPUs for each run; with 0.25, four runs share a GPU (default: 1 if there are any)"
    workers.add_argument("--gpus", type=float, help=text)
    verb.set_defaults(run=sweep)

    verb = verbs.add_parser("published", help="compare published results with your own", description=published.__doc__)
    complete(verb.add_argument("system", help="import name, such as systems.atae"), _system_names)
    verb.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folder with a score file for the split")
    text = "folder of a sweep; for each level of --by, the runs of its best setting are shown"
    verb.add_argument("--sweep", type=Path, help=text)
    verb.add_argument("--by", metavar="FACTOR", help="factor of the sweep, such as audio_encoder")
    verb.add_argument("--data", type=Path, metavar="DIR", help="data folder on which the runs were scored")
    verb.add_argument("--split", default=EVALUATION, help="split on which the runs were scored (default: evaluation)")
    verb.set_defaults(run=published)
    return top


def main() -> int:
    """Run the command line, and return the exit status. The user's own systems can be modules in the current folder."""
    if not sys.flags.safe_path and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that no file in this folder replaces an installed package
    configure_allocation()
    return command(parser())


if __name__ == "__main__":
    sys.exit(main())
