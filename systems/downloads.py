"""Finding the published files and models that encoders, systems and config files need.

The functions `downloads(config)` and `training_data(config)` of a system return what a config needs
(`systems.contract`). The functions `encoders.downloads`, `texts.download` and `words.download` know where the files of
a part of a system are published.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel

from evaluation import assets, yamlfiles
from evaluation.downloads import Download
from evaluation.files import cache_folder
from evaluation.findings import NOTE, BadRequest, Finding, say
from evaluation.text import unknown_key
from systems import contract, listing
from systems.clip_aac import audioclip, clip_tokenizer
from systems.parts import encoders, texts, words
from systems.parts.encoders import passt
from systems.parts.encoders.weights import download
from systems.sharing import folders
from systems.sweeps import grid

AUDIOCLIP = {asset.name: asset for asset in (audioclip.BOTH, audioclip.AUDIO)}
PASST = {arch: asset for arch, asset in passt.PUBLISHED.items() if arch != passt.DEFAULT}
NAMES = (*encoders.NAMES, *PASST, *AUDIOCLIP, *texts.PARTS, clip_tokenizer.HUB, *words.PUBLISHED, *assets.DOWNLOADS)


def required(given: Sequence[str], system: str | None = None) -> list[Download]:
    """Return the assets that names and config files need, each asset once.

    Args:
        given: Names in `NAMES`, names on the hub (USER/NAME), or YAML files. A YAML file is a system's config, a sweep
            file, or the config.yaml of a run.
        system: The system of config files that do not name one (default: the system whose folder contains the file).

    Raises:
        BadRequest: A name is unknown, a file does not exist, or the system of a file is not known.
        Faulty: A config file is not valid. The exception lists all findings.
    """
    needed: list[Download] = []
    for name in given:
        if name.endswith((".yaml", ".yml")):
            needed += of_file(listing.kit_file(name), system)
        else:
            needed += of_name(name)
    return _distinct(needed)


def of_name(name: str) -> list[Download]:
    """Return the assets that a name needs.

    Raises:
        BadRequest: The name is unknown.
    """
    if name in encoders.NAMES:
        return encoders.downloads(name)
    if name in PASST:
        return [download(PASST[name])]
    if name in AUDIOCLIP:
        return [download(AUDIOCLIP[name])]
    if name in assets.DOWNLOADS:
        return assets.needed_downloads([name], cache_folder())
    if name == clip_tokenizer.HUB:
        return [clip_tokenizer.download()]
    is_on_hub = name.count("/") == 1 and texts.REPOSITORY.fullmatch(name) and not Path(name).is_file()
    if name in texts.PARTS or name in words.PUBLISHED or is_on_hub:
        return [texts.download(name)]
    raise BadRequest(f"{unknown_key(name, NAMES, 'name')}; a name on the hub has the form USER/NAME")


def of_file(file: Path, system: str | None = None) -> list[Download]:
    """Return the assets that the configs in a YAML file need. The exceptions are those of `required`."""
    values = yamlfiles.read_yaml(file)
    if "system" in values and ("grid" in values or "search" in values):
        plan = grid.read(file)
        runs = grid.extremes(plan) if plan.search else grid.plan_runs(plan, file)
        return of_trainings(contract.system(plan.system), list(grid.configure(plan, runs, file).values()))
    if "system" in values and isinstance(values.get("config"), dict):
        return _of_run(file.parent)
    module = contract.system(system or _system_of(file))
    return of_trainings(module, [contract.configure(module.Config, file)])


def _of_run(folder: Path) -> list[Download]:
    """Return the assets that a run folder or an exported run needs."""
    run = contract.read_model_run(folder)
    config = run.config
    if folders.is_exported(folder):
        config = folders.read_contents(folder).with_absolute_paths(config, folder)
    module = contract.system(run.system)
    return of_configs(module, [contract.validate(module.Config, config, lambda key: str(folder / "config.yaml"))])


def of_trainings(module: ModuleType, configs: Sequence[BaseModel]) -> list[Download]:
    """Return the assets that trainings with configs of a system need, also training data besides the data folder."""
    needed = of_configs(module, configs)
    if hasattr(module, "training_data"):
        for config in configs:
            needed += module.training_data(config)
    return _distinct(needed)


def of_configs(module: ModuleType, configs: Iterable[BaseModel]) -> list[Download]:
    """Return the assets that configs of a system need, each asset once.

    If the system does not have a function `downloads`, print a note and return an empty list.
    """
    if not hasattr(module, "downloads"):
        message = "has no function downloads(config), so nothing is known of published files that it needs"
        say([Finding(module.__name__, message=message, severity=NOTE)])
        return []
    needed: list[Download] = []
    for config in configs:
        needed += module.downloads(config)
    return _distinct(needed)


def _system_of(file: Path) -> str:
    """Return the import name of the system that a config file of the kit belongs to.

    Raises:
        BadRequest: The file is not a config file of a system.
    """
    path = file.resolve()
    if not file.is_absolute() and (listing.ROOT / file).is_file():  # the same file in another clone of the kit
        path = listing.ROOT / file
    folder = path.parent
    module = folder / file.stem.partition("-")[0]
    place = module if module.with_suffix(".py").is_file() else folder
    if folder.is_relative_to(listing.ROOT) and path in listing.configs(place):
        return ".".join(place.relative_to(listing.ROOT).parts)
    raise BadRequest(
        f"{file}: must be a config file in a system's folder, a sweep file, or the config.yaml of a run; found another "
        "file: name its system with --system"
    )


def _distinct(downloads: Iterable[Download]) -> list[Download]:
    """Return the downloads without duplicates, which have the same asset and the same place."""
    return list({(download.asset, download.place): download for download in downloads}.values())
