"""A search, in which Optuna chooses one setting after another and uses the results of earlier settings.

Optuna's default sampler (TPE) draws the first ten settings at random. It draws later settings near settings with good
results. Each draw has its own random generator, whose seed depends on the first seed of the sweep and the index of the
setting. The first ten settings therefore depend only on the first seed. Later settings also depend on the runs that
have ended by then, so they can differ between two sweeps that make several runs at the same time.

The settings are written to records/samples.json before their runs start. A resumed sweep reads the settings from this
file, reads the results of their runs, and continues with the next setting.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from evaluation.files import replacing
from evaluation.findings import BadRequest
from evaluation.metrics.catalogue import lower_is_better
from systems.sweeps import grid
from systems.sweeps.grid import Plan, PlannedRun, Range
from systems.sweeps.job import Outcome

DIGITS = 4  # number of significant digits of a sampled number
ATTEMPTS = 100  # the search ends after this number of draws in a row that give only settings that were tried before


class Search:
    """The settings of a sweep that were sampled so far, and the outcomes of their runs.

    Args:
        plan: The content of the sweep file.
        file: The file that stores the settings, such as records/samples.json.

    Raises:
        BadRequest: The file contains settings with other factors than the sweep file.
    """

    def __init__(self, plan: Plan, file: Path):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.file = plan, file
        self.study = optuna.create_study(direction="maximize")
        self.distributions = _distributions(plan)
        self.samples: list[dict[str, object]] = []
        if file.is_file():
            self.samples = json.loads(file.read_text(encoding="utf-8"))[: plan.samples]
        self.outcomes: dict[str, Outcome] = {}
        for sample in self.samples:
            if set(sample) != set(plan.factors):
                factors = ", ".join(plan.factors)
                message = f"must contain settings of the factors {factors}; found a setting of {', '.join(sample)}"
                raise BadRequest(f"{file}: {message}: give a new folder, or the sweep file that was used before")

    def planned_runs(self, draw: bool = False) -> list[PlannedRun]:
        """Return the runs of the settings that were sampled so far.

        Args:
            draw: If True and no setting was sampled so far, draw a setting and return its runs. This setting is not
                recorded.
        """
        samples = self.samples
        if draw and not samples:
            drawn = self.draw()
            if drawn is not None:
                samples = [drawn]
        runs = []
        for number, sample in enumerate(samples):
            runs += grid.plan_sample(self.plan, number, sample)
        return runs

    def next_runs(self) -> list[PlannedRun]:
        """Sample the next setting, write it to the file, and return its runs. Return an empty list at the end."""
        if len(self.samples) >= self.plan.samples:
            return []
        sample = self.draw()
        if sample is None:
            return []
        self.samples.append(sample)
        with replacing(self.file) as part:
            part.write_text(json.dumps(self.samples, indent=1, ensure_ascii=False), encoding="utf-8")
        return grid.plan_sample(self.plan, len(self.samples) - 1, sample)

    def draw(self) -> dict[str, object] | None:
        """Draw a setting that was not sampled before. Return None if `ATTEMPTS` draws do not give such a setting."""
        number = len(self.samples)
        for attempt in range(ATTEMPTS):
            seed = self.plan.seeds[0] * 1_000_003 + number * 1_009 + attempt
            self.study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
            trial = self.study.ask(self.distributions)
            self.study.tell(trial, state=TrialState.FAIL)  # `_enter` adds the setting again with its result
            sample = {key: self._rounded(key, value) for key, value in trial.params.items()}
            if sample not in self.samples:
                return sample
        return None

    def add(self, run: PlannedRun, outcome: Outcome) -> None:
        """Add the outcome of a run. When all runs of its setting have ended, add the setting to Optuna's study."""
        self.outcomes[run.name] = outcome
        for number, sample in enumerate(self.samples):
            runs = grid.plan_sample(self.plan, number, sample)
            names = [other.name for other in runs]
            if run.name in names and all(name in self.outcomes for name in names):
                self._enter(sample, [self.outcomes[name] for name in names])

    def _enter(self, sample: Mapping[str, object], outcomes: Sequence[Outcome]) -> None:
        """Add a setting to Optuna's study, with its result.

        The result is the mean of the compared metric over the runs that are done, negated if lower is better. If a run
        was stopped early, the result is "pruned", with the monitored values of a stopped run. (If several runs were
        stopped, the values of the run with the largest number of epochs are used.) If all runs failed, the result is
        "failed". A setting that the sweep file no longer allows is not added.
        """
        sign = -1 if lower_is_better(self.plan.metric) else 1
        values = [sign * outcome.values[self.plan.metric] for outcome in outcomes if outcome.values]
        stopped = [outcome for outcome in outcomes if outcome.stopped]
        result: dict[str, object] = {"state": TrialState.FAIL}
        if stopped:
            longest = max(stopped, key=lambda outcome: len(outcome.course)).course
            result = {"state": TrialState.PRUNED, "intermediate_values": dict(enumerate(longest, 1))}
        elif values:
            result = {"state": TrialState.COMPLETE, "value": fmean(values)}
        try:
            trial = optuna.trial.create_trial(params=dict(sample), distributions=self.distributions, **result)
        except ValueError:  # the sweep file has changed, and the setting is outside its ranges
            return
        self.study.add_trial(trial)

    def _rounded(self, key: str, value: object) -> object:
        """Round a number from a range to `DIGITS` significant digits, but keep it within the range."""
        if not isinstance(value, float) or key not in self.plan.ranges:
            return value
        limits = self.plan.ranges[key]
        return min(max(float(f"{value:.{DIGITS}g}"), limits.low), limits.high)


def _distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """Return the distribution from which Optuna samples each factor."""
    distributions: dict[str, BaseDistribution] = {}
    for factor, levels in plan.grid.items():
        distributions[factor] = CategoricalDistribution(list(levels))
    for key, limits in plan.ranges.items():
        distributions[key] = _numbers(limits)
    return distributions


def _numbers(limits: Range) -> BaseDistribution:
    """Return the distribution of the numbers in a range."""
    if limits.is_whole:
        return IntDistribution(limits.low, limits.high, log=limits.log)
    return FloatDistribution(limits.low, limits.high, log=limits.log)
