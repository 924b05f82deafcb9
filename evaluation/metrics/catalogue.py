"""All metrics, each with what a reader or a program must know of it: one table for captions, one for retrieval.

    CAPTIONING["fer"].lower_is_better          # True
    find("mAP@10").title                       # 'mean average precision'

Everything else that differs between metrics is derived from these tables: which are compared as lower-is-better, which
are means over items, what has to be fetched for each.

To add a caption metric, add an entry here, and its formula to `captioning.FORMULAS`. When it needs something new, name
that as a part, and add the part to `captioning.PARTS` with the function that computes it, what must be on the machine,
and its piece of the signature. To add a retrieval metric, add an entry here and its function to `retrieval.AT_K`. Tests
say which of these is missing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

# How a metric follows from its items, and so how its interval is made.
Statistic = Literal[
    "mean",  # the mean of the items' own values
    "corpus",  # a formula of statistics that are summed over items
    "weighted",  # a mean of values that depend on the other items, unless the weights stay fixed
    "median",  # the median of the items' values
    "total",  # of all items at once: there is no interval
]


@dataclass(frozen=True)
class Metric:
    """The facts about a metric.

    Attributes:
        title: Its name in words.
        statistic: How it follows from its items.
        low: Its least value.
        high: Its greatest value.
        unit: What it counts; empty for a number without unit.
        lower_is_better: True where a lower value is better.
        parts: What it is computed from, by the names in `captioning.PARTS`; empty for metrics of retrieval, which are
            all computed from ranks.
    """

    title: str
    statistic: Statistic
    low: float
    high: float
    unit: str = ""
    lower_is_better: bool = False
    parts: tuple[str, ...] = ()

    @property
    def values(self) -> str:
        """Describe the values that it can have, and which of them are better.

        >>> CAPTIONING["fer"].values, CAPTIONING["vocab"].values
        ('0 to 1, lower is better', '0 or more words, higher is better')
        """
        if math.isfinite(self.high):
            span = f"{self.low:g} to {self.high:g}"
        else:
            span = f"{self.low:g} or more"
        unit = f" {self.unit}" if self.unit else ""
        return f"{span}{unit}, {'lower' if self.lower_is_better else 'higher'} is better"


CAPTIONING: Mapping[str, Metric] = MappingProxyType(
    {
        "bleu_1": Metric("BLEU-1", "corpus", 0, 1, parts=("bleu",)),
        "bleu_2": Metric("BLEU-2", "corpus", 0, 1, parts=("bleu",)),
        "bleu_3": Metric("BLEU-3", "corpus", 0, 1, parts=("bleu",)),
        "bleu_4": Metric("BLEU-4", "corpus", 0, 1, parts=("bleu",)),
        "meteor": Metric("METEOR", "corpus", 0, 1, parts=("meteor",)),
        "rouge_l": Metric("ROUGE-L", "mean", 0, 1, parts=("rouge_l",)),
        "cider_d": Metric("CIDEr-D, which DCASE calls CIDEr", "weighted", 0, 10, parts=("cider_d",)),
        "spice": Metric("SPICE", "mean", 0, 1, parts=("spice",)),
        "spider": Metric("SPIDEr", "weighted", 0, 5.5, parts=("cider_d", "spice")),
        "fer": Metric("fluency error rate", "mean", 0, 1, lower_is_better=True, parts=("fer",)),
        "spider_fl": Metric("SPIDEr-FL", "weighted", 0, 5.5, parts=("cider_d", "spice", "fer")),
        "sbert_sim": Metric("similarity of Sentence-BERT", "mean", -1, 1, parts=("sbert_sim",)),
        "fense": Metric("FENSE", "mean", -1, 1, parts=("sbert_sim", "fer")),
        "bert_score": Metric("BERTScore's F1", "mean", 0, 1, parts=("bert_score",)),
        "vocab": Metric("vocabulary", "total", 0, math.inf, "words", parts=("vocab",)),
        "vocab_ratio": Metric("vocabulary over that of the references", "total", 0, math.inf, parts=("vocab",)),
    }
)

# By the name before `@k`.
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


def find(name: str) -> Metric | None:
    """Return the facts about a metric, by a name such as `fense` or `mAP@10`; None where it is not known."""
    return CAPTIONING.get(name) or RETRIEVAL.get(name.partition("@")[0])


def lower_is_better(name: str) -> bool:
    """Return True where a lower value of a metric is better; higher values of unknown metrics are."""
    metric = find(name)
    return metric is not None and metric.lower_is_better
