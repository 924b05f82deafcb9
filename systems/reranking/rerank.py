"""Writing the run folder of a re-ranked run."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from evaluation import predictions
from evaluation.data.dataset import VALIDATION, Split
from evaluation.files import appearing
from evaluation.findings import BadRequest
from evaluation.text import table
from systems import contract
from systems.ensembles.members import Member, common_digests, joined_description, read_member
from systems.reranking import choice
from systems.reranking.candidates import FOLDER, Candidates, candidates_file, read_candidates


@dataclass(frozen=True)
class Reranking:
    """Settings that decide how candidates are chosen.

    Attributes:
        retriever: The run folder of the retriever, or None for the candidate that agrees best with the others.
        weight: The weight of the retriever, from 0 to 1; None if it is fitted on the validation split.
        measure: `cider_d` or `sbert`. With a retriever, the metric that a fitted weight maximises; without one, the
            similarity of captions.
        cache: Folder of the cache, for the tokeniser.
        trusted: Import names of further modules that the user allows the retriever's run to name.
    """

    retriever: Path | None
    weight: float | None
    measure: str
    cache: Path
    trusted: Collection[str] = ()


def candidate_splits(folder: Path) -> list[str]:
    """Return the names of the splits for which a run folder has candidates, sorted.

    Raises:
        BadRequest: There are no candidates.
    """
    splits = sorted(file.stem for file in (folder / FOLDER).glob("*.csv"))
    if not splits:
        command = "dcase-systems predict RUN --data DIR --set decoding=sample --set candidates=20 --out OUT"
        raise BadRequest(f"{folder}: must have candidates ({FOLDER}/SPLIT.csv); found none: predict with {command}")
    return splits


def rerank(folder: Path, out: Path, splits: Mapping[str, Split], how: Reranking) -> str:
    """Choose among the candidates of a run, and write the choice as the predictions of a new run folder.

    Args:
        folder: The run folder with the candidates.
        out: The folder to write. It must be new or empty.
        splits: The splits for which there are candidates, with audio. Without a retriever, they are not used.
        how: The settings.

    Returns:
        A text with the weight, and the names of the files that were written.

    Raises:
        BadRequest: `out` contains files; or the run has no candidates; or the weight must be fitted, and there are no
            candidates for the validation split; or the retriever's folder does not contain a trained retriever; or the
            candidates are those of other clips; or the metric is not available on this machine.
        Faulty: Run folders, candidates or audio files are not valid. The exception lists all findings.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadRequest(f"{out}: must be a new or empty folder; found files: give another folder with --run")
    names = candidate_splits(folder)
    members = [read_member(folder)]
    if how.retriever:
        members.append(read_member(how.retriever))
    if how.retriever and how.weight is None and VALIDATION not in names:
        advice = f"predict with --split {VALIDATION} into the same folder, or give --weight"
        must = f"to fit the weight, there must be candidates for {VALIDATION}"
        raise BadRequest(f"{folder}: {must}; found none: {advice}")
    all_candidates = {name: read_candidates(candidates_file(folder, name)) for name in names}
    similar: dict[str, choice.Values] = {}
    text = ""
    if how.retriever:
        for name in names:
            all_candidates[name] = _in_order_of(splits[name], all_candidates[name], candidates_file(folder, name))
            similar[name] = choice.similarities(all_candidates[name], splits[name], how.retriever, how.trusted)
        if how.weight is None:
            how, text = _fitted(all_candidates[VALIDATION], similar[VALIDATION], splits[VALIDATION], how)
    written = []
    with appearing(out) as part:
        for name, candidates in all_candidates.items():
            if how.weight is not None and how.retriever:
                chosen = choice.choose(*_comparable_values(candidates, similar[name]), how.weight)
            else:
                chosen = choice.agreeing(candidates, how.measure, how.cache)
            captions, log_probabilities = candidates.chosen(chosen)
            file = Path("predictions") / f"{name}.csv"
            predictions.write_captions(part / file, candidates.file_names, captions, log_probabilities)
            candidates.write(candidates_file(part, name), similar.get(name))
            written.append(str(out / file))
        _write_yaml(part / "system.yaml", _description(members))
        _write_yaml(part / "config.yaml", _config(members, how))
    return f"{text}{', '.join(written)}: written"


def _in_order_of(split: Split, candidates: Candidates, file: Path) -> Candidates:
    """Return candidates in the order of a split's clips.

    Raises:
        BadRequest: The candidates are those of other clips.
    """
    if sorted(candidates.file_names) != sorted(split.file_names):
        must = f"must have candidates for each clip of the split {split.name}"
        raise BadRequest(f"{file}: {must}; found other clips: give the data folder that was used for the prediction")
    row_of = {name: row for row, name in enumerate(candidates.file_names)}
    rows = [row_of[name] for name in split.file_names]
    captions = tuple(candidates.captions[row] for row in rows)
    log_probabilities = tuple(candidates.log_probabilities[row] for row in rows)
    return Candidates(tuple(split.file_names), captions, log_probabilities)


def _comparable_values(candidates: Candidates, similar: choice.Values) -> tuple[choice.Values, choice.Values]:
    """Return the comparable log-probabilities per word and the comparable similarities of candidates."""
    return choice.comparable(choice.word_log_probabilities(candidates)), choice.comparable(similar)


def _fitted(candidates: Candidates, similar: choice.Values, validation: Split, how: Reranking) -> tuple[Reranking, str]:
    """Fit the weight on the validation split.

    Returns:
        The settings with the fitted weight, and a table of the metric for this weight and for each value alone.
    """
    of_words, of_sounds = _comparable_values(candidates, similar)
    measured = choice.metric_values(candidates, validation, how.measure, how.cache)
    weight = choice.fit_weight(of_words, of_sounds, measured)
    rows = []
    for label, tried in (("log-probability", 0.0), ("retriever", 1.0), ("fitted", weight)):
        value = choice.mean_of_chosen(measured, choice.choose(of_words, of_sounds, tried))
        rows.append([label, f"{tried:.1f}", f"{value:.3f}"])
    rows.append(["best candidate of each clip", "", f"{np.mean([of_clip.max() for of_clip in measured]):.3f}"])
    headers = ["choice", "weight of the retriever", f"validation {how.measure}"]
    return replace(how, weight=weight), f"{table(rows, headers, (1, 2))}\n\n"


def _description(members: list[Member]) -> dict[str, object]:
    """Return the content of system.yaml. The numbers of parameters of both runs are added.

    The entry `ensemble` is that of the captioner, because re-ranking does not combine several captioners.
    """
    first = members[0].system
    joined = joined_description(members)
    own = first.get("description")
    if isinstance(own, dict) and isinstance(joined["description"], dict):
        joined["description"] = joined["description"] | {"ensemble": own.get("ensemble", False)}
    del joined["members"]
    parts = ["captioner", "retriever"][: len(members)]
    return joined | {"parts": {part: str(member.folder) for part, member in zip(parts, members, strict=True)}}


def _config(members: list[Member], how: Reranking) -> dict[str, object]:
    """Return the content of config.yaml."""
    config: dict[str, object] = {"run": str(members[0].folder), "measure": how.measure}
    if how.retriever:
        config |= {"retriever": str(how.retriever), "weight": how.weight}
    decoding = (members[0].config.model_extra or {}).get("decoding")
    if decoding:
        config["decoding"] = decoding
    return {"system": contract.ENSEMBLE, "data": common_digests(members), "config": config}


def _write_yaml(file: Path, content: dict[str, object]) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
