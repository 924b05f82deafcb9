"""Self-critical training compared with enumeration of all captions, and with a plain loop."""

import itertools

import numpy as np
import pytest
import torch

from evaluation.data.dataset import Clip, Split
from evaluation.metrics.word_overlap import CiderD, rouge_l
from systems.parts import generation, vocabulary
from systems.parts.self_critical import Rewards, SelfCritical, SelfCriticalSettings, log_probabilities
from systems.parts.vocabulary import END, PADDING, START, Vocabulary

VOCABULARY = Vocabulary(["a", "dog", "barks", "rain"])
WORDS = len(VOCABULARY)
RULES = vocabulary.rules(1, 4)
CAPTIONS = [("A dog barks.", "a dog"), ("Rain.", "a rain, rain"), ("A dog, rain!", "barks")]
NAMES = ["1.wav", "2.wav", "3.wav"]
SPLIT = Split("development", tuple(Clip(name, captions, None) for name, captions in zip(NAMES, CAPTIONS, strict=True)))


class Bigrams:
    """A model whose logits depend on the clip and the previous word."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(len(CAPTIONS), WORDS, WORDS, generator=generator).requires_grad_()

    def steps(self, clips):
        remaining = []

        def step(ids, rows):
            nonlocal remaining
            remaining = [clips[row] for row in rows] if ids.shape[1] == 1 else [remaining[row] for row in rows]
            return self.table[remaining, ids[:, -1]]

        return step

    def logits(self, clips):
        def of(ids):
            rows = np.repeat(clips, len(ids) // len(clips))
            return self.table[torch.tensor(rows)[:, None], ids]

        return of

    def step(self, critical, clips, epoch=3):
        names = [NAMES[clip] for clip in clips]
        return critical.step(lambda: self.steps(clips), self.logits(clips), names, epoch)


def critical(seed=1, **settings):
    chosen = SelfCriticalSettings(loss="self_critical", init_from="run", **settings)
    return SelfCritical(chosen, Rewards(SPLIT, chosen.reward), RULES, VOCABULARY.decode, seed)


def all_captions():
    """Return every caption that the rules allow, padded to the maximum length."""
    speakable = range(len(vocabulary.SPECIAL), WORDS)
    captions = []
    for length in range(1, RULES.max_words + 1):
        for words in itertools.product(speakable, repeat=length):
            complete = [*words, END] if length < RULES.max_words else [*words]
            captions.append(complete + [PADDING] * (RULES.max_words - len(complete)))
    return torch.tensor(captions)


def test_the_gradient_is_that_of_the_expected_reward():
    model, clip, captions = Bigrams(), 2, all_captions()
    texts = [
        " ".join([*VOCABULARY.decode(ids).split(), *(["<end>"] if END in ids else [])]) for ids in captions.tolist()
    ]
    reward = torch.tensor(Rewards(SPLIT, "CIDEr-D").of(texts, [NAMES[clip]] * len(texts)))

    def expected_reward():
        probability = log_probabilities(model.logits([clip]), captions, RULES).double().exp()
        assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
        return float((probability * reward).sum())

    log_probability = log_probabilities(model.logits([clip]), captions, RULES)
    # The expected value of the loss's gradient; a baseline, here 0.7, does not change it.
    (-(log_probability.detach().exp() * (reward - 0.7) * log_probability).sum()).backward()
    step = 1e-2
    for previous, word in [(START, 4), (START, 5), (4, 5), (5, END), (6, END), (7, 4), (4, END)]:
        value = float(model.table[clip, previous, word].detach())
        with torch.no_grad():
            model.table[clip, previous, word] = value + step
            above = expected_reward()
            model.table[clip, previous, word] = value - step
            below = expected_reward()
            model.table[clip, previous, word] = value
        found = -float(model.table.grad[clip, previous, word])
        assert found == pytest.approx((above - below) / (2 * step), abs=2e-4)


def one_reward(text, clip, metric):
    """Return the reward of a caption with the metrics that score a whole split."""
    references = [
        [" ".join([*vocabulary.words_with_hyphens(one), "<end>"]) for one in captions] for captions in CAPTIONS
    ]
    if metric == "ROUGE-L":
        return rouge_l([text], [references[clip]])[0]
    captions = [""] * len(CAPTIONS)
    captions[clip] = text
    return CiderD(captions, references).scores[clip]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"samples": 2},
        {"reward_baseline": "greedy", "samples": 1},
        {"reward": "ROUGE-L", "reward_baseline": "greedy"},
    ],
    ids=str,
)
def test_the_loss_is_that_of_a_plain_loop(settings):
    model, loss = Bigrams(), critical(**settings)
    clips, number, metric = [2, 0], loss.settings.samples, loss.settings.reward
    result = model.step(loss, clips)
    total, rewards = 0.0, []
    for clip in clips:
        generated = [
            generation.sample(model.steps([clip]), [loss._seed(NAMES[clip], 3)], RULES, 1, number=number),
            generation.greedy(model.steps([clip]), 1, RULES),
        ]
        scored = []
        for ids in torch.cat(
            [torch.nn.functional.pad(one.ids, (0, 4 - one.ids.shape[1])) for one in generated]
        ).tolist():
            words, log_probability, previous = [], 0.0, START
            for position, word in enumerate(ids):
                if word == PADDING:
                    break
                logits = model.table[clip, previous].detach().clone()
                logits[[PADDING, START, vocabulary.UNKNOWN]] = -torch.inf
                if not position:
                    logits[END] = -torch.inf
                log_probability += float(logits.log_softmax(0)[word])
                words.append("<end>" if word == END else VOCABULARY.words[word])
                previous = word
            scored.append((one_reward(" ".join(words), clip, metric), log_probability))
        samples, (greedy, _) = scored[:-1], scored[-1]
        for index, (reward, log_probability) in enumerate(samples):
            others = [other for place, (other, _) in enumerate(samples) if place != index]
            baseline = greedy if loss.settings.reward_baseline == "greedy" else sum(others) / len(others)
            total -= (reward - baseline) * log_probability
            rewards.append(reward)
    assert float(result.loss.detach()) == pytest.approx(total / len(clips) / number, rel=1e-4)
    assert result.reward == pytest.approx(np.mean(rewards))


def test_two_halves_of_a_batch_are_the_batch():
    model, loss = Bigrams(), critical()
    halves = (model.step(loss, [0, 2]).loss + model.step(loss, [1, 0]).loss) / 2
    (of_halves,) = torch.autograd.grad(halves, model.table)
    (of_all,) = torch.autograd.grad(model.step(loss, [0, 2, 1, 0]).loss, model.table)
    torch.testing.assert_close(of_halves, of_all)
    (other_epoch,) = torch.autograd.grad(model.step(loss, [0, 2, 1, 0], epoch=4).loss, model.table)
    assert not torch.equal(other_epoch, of_all)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_from": None}, "init_from must be given with loss=self_critical"),
        ({"samples": 1}, "samples must be 2 or more with reward_baseline=mean"),
    ],
)
def test_settings_that_cannot_hold(settings, message):
    with pytest.raises(ValueError, match=message):
        SelfCriticalSettings(**{"loss": "self_critical", "init_from": "run", **settings})
