"""The facts about every metric: one table for each kind of answer.

    CAPTIONING["fer"].lower_is_better          # True
    find("mAP@10").title                       # 'mean average precision'

The rest of the kit reads from these tables which metrics are better if they are lower, which are means over items, and
which components a metric is computed from.

To add a caption metric:

1. Add an entry to `CAPTIONING` here. It names the components that the metric is computed from.
2. Add its formula to `captioning.FORMULAS`.
3. For a new component, add an entry to `captioning.COMPONENTS`: the function that computes it, the models and programs
   that it needs on this machine, and its part of the signature.

To add a metric of question answering or moment retrieval, add an entry to `CHOICE` or `MOMENTS` here, and compute it in
the module of the same name.

To add a retrieval metric, add an entry to `RETRIEVAL` here and its function to `retrieval.AT_K`. A test reports which
of these entries is missing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# The way in which a metric is computed from its items. It determines how the interval is computed.
Statistic = Literal[
    "mean",  # the mean of the items' own values
    "corpus",  # a formula applied to statistics that are summed over the items
    "weighted",  # a mean of the items' values; these depend on the other items unless the weights stay fixed
    "median",  # the median of the items' values
    "total",  # one value for all items together, without an interval
]


@dataclass(frozen=True)
class Metric:
    """The facts about a metric.

    Attributes:
        title: Its name in words.
        statistic: The way in which it is computed from its items.
        low: Its lowest possible value.
        high: Its highest possible value.
        unit: The unit, such as words; empty for a number without a unit.
        lower_is_better: True if a lower value is better.
        components: Names of the components in `captioning.COMPONENTS` that a caption metric is computed from. Empty
            for retrieval metrics, which are all computed from ranks.
    """

    title: str
    statistic: Statistic
    low: float
    high: float
    unit: str = ""
    lower_is_better: bool = False
    components: tuple[str, ...] = ()

    @property
    def values(self) -> str:
        """Describe the range of values, and which values are better.

        >>> CAPTIONING["fer"].values, CAPTIONING["vocab"].values
        ('0 to 1, lower is better', '0 or more words, higher is better')
        """
        if math.isfinite(self.high):
            span = f"{self.low:g} to {self.high:g}"
        else:
            span = f"{self.low:g} or more"
        if self.unit:
            span += f" {self.unit}"
        better = "lower" if self.lower_is_better else "higher"
        return f"{span}, {better} is better"


CAPTIONING: Mapping[str, Metric] = MappingProxyType(
    {
        "bleu_1": Metric("BLEU-1", "corpus", 0, 1, components=("bleu",)),
        "bleu_2": Metric("BLEU-2", "corpus", 0, 1, components=("bleu",)),
        "bleu_3": Metric("BLEU-3", "corpus", 0, 1, components=("bleu",)),
        "bleu_4": Metric("BLEU-4", "corpus", 0, 1, components=("bleu",)),
        "meteor": Metric("METEOR", "corpus", 0, 1, components=("meteor",)),
        "rouge_l": Metric("ROUGE-L", "mean", 0, 1, components=("rouge_l",)),
        "cider_d": Metric("CIDEr-D, which DCASE calls CIDEr", "weighted", 0, 10, components=("cider_d",)),
        "spice": Metric("SPICE", "mean", 0, 1, components=("spice",)),
        "spider": Metric("SPIDEr", "weighted", 0, 5.5, components=("cider_d", "spice")),
        "fer": Metric("fluency error rate", "mean", 0, 1, lower_is_better=True, components=("fer",)),
        "spider_fl": Metric("SPIDEr-FL", "weighted", 0, 5.5, components=("cider_d", "spice", "fer")),
        "sbert_sim": Metric("similarity of Sentence-BERT", "mean", -1, 1, components=("sbert_sim",)),
        "fense": Metric("FENSE", "mean", -1, 1, components=("sbert_sim", "fer")),
        "bert_score": Metric("BERTScore's F1", "mean", 0, 1, components=("bert_score",)),
        "vocab": Metric("vocabulary", "total", 0, math.inf, "words", components=("vocab",)),
        "vocab_ratio": Metric("vocabulary over that of the references", "total", 0, math.inf, components=("vocab",)),
    }
)

# The keys are the names before `@k`.
RETRIEVAL: Mapping[str, Metric] = MappingProxyType(
    {
        "mAP": Metric("mean average precision", "mean", 0, 1),
        "R": Metric("recall", "mean", 0, 1),
        "nDCG": Metric("normalised discounted cumulative gain", "mean", 0, 1),
        "success": Metric("success", "mean", 0, 1),
        "MRR": Metric("mean reciprocal rank", "mean", 0, 1),
        "medR": Metric("median rank", "median", 1, math.inf, "ranks", lower_is_better=True),
    }
)

# Audio question answering. The keys are the names before `@`: `type@order` is the accuracy on questions of this type.
CHOICE: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric("accuracy", "mean", 0, 1),
        "macro_types": Metric("mean accuracy of the types of questions", "corpus", 0, 1),
        "macro_parts": Metric("mean accuracy of the parts of the data set", "corpus", 0, 1),
        "type": Metric("accuracy on questions of a type", "corpus", 0, 1),
        "part": Metric("accuracy on questions of a part of the data set", "corpus", 0, 1),
    }
)

# Audio moment retrieval. The keys are the names before the minimum IoU, such as R1@0.7; mAP is also a name of its own.
MOMENTS: Mapping[str, Metric] = MappingProxyType(
    {
        "R1": Metric("recall of the first window", "mean", 0, 1),
        "mAP": Metric("mean average precision", "mean", 0, 1),
    }
)


def find(name: str) -> Metric | None:
    """Return the facts about the metric with a name such as `fense` or `mAP@10`, or None if there is no such metric."""
    stem = name.partition("@")[0]
    return CAPTIONING.get(name) or RETRIEVAL.get(stem) or MOMENTS.get(stem) or CHOICE.get(stem)


def heading(name: str) -> str:
    """Return a metric's name as people write it in the head of a table.

    >>> heading("cider_d"), heading("mAP@10")
    ('CIDEr-D', 'mAP@10')
    """
    if name in CAPTIONING:
        return CAPTIONING[name].title.partition(",")[0]
    return name


def lower_is_better(name: str) -> bool:
    """Return True if a lower value of a metric is better. An unknown metric counts as higher is better."""
    metric = find(name)
    return metric is not None and metric.lower_is_better
