"""Generation compared with a search over all sequences, and with transformers' `generate`."""

import itertools

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from systems.parts import generation
from systems.parts.generation import Rules

PADDING, START, END = 0, 1, 2
CLIPS = 4


class Whole:
    """A step without a cache, whose logits depend on the clip and all words so far."""

    def __init__(self, words, seed=0):
        self.words, self.seed, self.clips, self.calls = words, seed, torch.arange(CLIPS), []

    def logits(self, clip, ids):
        # The same sequence gives the same logits in every call and every batch.
        digits = int("".join(f"{number:02d}" for number in (clip + 1, *ids)))
        return torch.randn(self.words, generator=torch.Generator().manual_seed(digits % 2**31 + self.seed)) * 2

    def __call__(self, ids, rows):
        self.clips = self.clips[rows]
        self.calls.append(len(rows))
        return torch.stack([self.logits(int(clip), row.tolist()) for clip, row in zip(self.clips, ids, strict=True)])


def exhaustive(words, rules, penalty, seed=0):
    """Search all sequences; return the rank, the ids up to the end and the log-probability of each, the best first."""
    model, answers = Whole(words, seed), []
    for clip in range(CLIPS):
        complete = []
        open_sequences = [((START,), 0.0)]
        for length in range(1, rules.max_words + 1):
            grown = []
            for ids, total in open_sequences:
                log_probs = model.logits(clip, ids).log_softmax(0)
                allowed = rules.allowed(log_probs[None], torch.tensor([ids]))[0].tolist()
                for word, value in enumerate(allowed):
                    if value == -torch.inf:
                        continue
                    if word == END or length == rules.max_words:
                        complete.append(((total + value) / length**penalty, (*ids[1:], word), total + value))
                    else:
                        grown.append(((*ids, word), total + value))
            open_sequences = grown
        answers.append(sorted(complete, reverse=True))
    return answers


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0, -1.0])
@pytest.mark.parametrize(
    "rules",
    [
        Rules(START, END, PADDING, (PADDING, START), 0, 4),
        Rules(START, END, PADDING, (PADDING, START), 3, 4),
        Rules(START, END, PADDING, (PADDING, START), 0, 5, 1),
        Rules(START, END, PADDING, (PADDING, START), 2, 5, 2),
    ],
    ids=["any", "long", "no word twice", "no pair twice"],
)
def test_beams_enough_find_the_best_of_all(rules, penalty):
    found = generation.beam(Whole(6), CLIPS, rules, width=4**5, length_penalty=penalty)
    for row, ((_, ids, total), *_) in enumerate(exhaustive(6, rules, penalty)):
        assert [number for number in found.ids[row].tolist() if number != PADDING] == list(ids)
        assert float(found.log_probability[row]) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_alternatives_are_the_next_best_of_all(penalty):
    rules = Rules(START, END, PADDING, (PADDING, START), 0, 4)
    found = generation.beam_alternatives(Whole(6), CLIPS, rules, 5, width=4**5, length_penalty=penalty)
    assert len(found) == 5
    expected = exhaustive(6, rules, penalty)
    for place, generated in enumerate(found):
        for row, answers in enumerate(expected):
            _, ids, total = answers[place]
            assert [number for number in generated.ids[row].tolist() if number != PADDING] == list(ids)
            assert float(generated.log_probability[row]) == pytest.approx(total, abs=1e-4)


def test_the_first_alternative_is_the_caption_of_beam():
    rules = Rules(START, END, PADDING, (PADDING, START), 1, 6)
    best = generation.beam(Whole(6), CLIPS, rules, 3)
    first = generation.beam_alternatives(Whole(6), CLIPS, rules, 4, 3)[0]
    torch.testing.assert_close(first.log_probability, best.log_probability)
    assert first.ids[:, : best.ids.shape[1]].tolist() == best.ids.tolist()


def test_missing_alternatives_are_left_out():
    rules = Rules(START, END, PADDING, (PADDING, START, 3), 1, 1)  # only two captions are possible
    found = generation.beam_alternatives(Whole(6), CLIPS, rules, 4)
    captions = generation.scored_captions(found, str)
    assert [len(alternatives) for alternatives in captions] == [2] * CLIPS
    for alternatives in captions:
        assert alternatives[0][1] > alternatives[1][1]


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    special = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": PADDING}
    shape = GPT2Config(vocab_size=13, n_positions=40, n_embd=16, n_layer=2, n_head=2, initializer_range=0.6, **special)
    return GPT2LMHeadModel(shape).eval()


STARTS = torch.tensor([[START, 3], [START, 7], [START, 12]])  # the three "clips" differ in the second word


def step_of(model):
    """GPT-2 as a step, whose second word is its clip."""
    state = {"second": STARTS[:, 1:]}

    def step(ids, rows):
        state["second"] = state["second"][rows]
        return model(torch.cat([ids[:, :1], state["second"], ids[:, 1:]], dim=1)).logits[:, -1]

    return step


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 1.8])
@pytest.mark.parametrize(("shortest", "longest"), [(0, 12), (5, 9), (12, 12)])
def test_beam_search_is_transformers(gpt2, width, penalty, shortest, longest):
    rules = Rules(START, END, PADDING, (PADDING,), shortest, longest)
    found = generation.beam(step_of(gpt2), len(STARTS), rules, width, penalty)
    expected = gpt2.generate(
        STARTS,
        attention_mask=torch.ones_like(STARTS),
        num_beams=width,
        do_sample=False,
        length_penalty=penalty,
        early_stopping="never",
        suppress_tokens=[PADDING],
        min_new_tokens=shortest,
        max_new_tokens=longest,
        return_dict_in_generate=True,
        output_scores=True,
    )
    if width == 1:  # transformers decodes greedily then
        found = generation.greedy(step_of(gpt2), len(STARTS), rules)
    theirs = expected.sequences[:, 2:]  # transformers pads with the end
    ended = (theirs == END).cumsum(1) - (theirs == END).int() > 0
    theirs = theirs.masked_fill(ended, PADDING)
    assert torch.equal(found.ids, theirs[:, : found.ids.shape[1]])
    assert (theirs[:, found.ids.shape[1] :] == PADDING).all()
    if width > 1:
        lengths = (found.ids != PADDING).sum(1)
        torch.testing.assert_close(found.log_probability / lengths**penalty, expected.sequences_scores)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_repeats_as_transformers(gpt2, order):
    settings = {"num_beams": 3, "do_sample": False, "early_stopping": "never", "no_repeat_ngram_size": order}
    settings |= {"suppress_tokens": [PADDING], "min_new_tokens": 8, "max_new_tokens": 10}
    for row in range(1, 13):
        prompt = torch.tensor([[row]])
        rules = Rules(row, END, PADDING, (PADDING,), 8, 10, order)
        found = generation.beam(lambda ids, _: gpt2(ids).logits[:, -1], 1, rules, 3)
        theirs = gpt2.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
        assert torch.equal(found.ids, theirs[:, 1:])
        words = [row, *found.ids[0].tolist()]
        grams = list(zip(*(words[start:] for start in range(order)), strict=False))
        assert len(grams) == len(set(grams))


def sampled(step, clips, rules):
    return generation.sample(step, range(clips), rules)


def test_lengths():
    for search in (generation.greedy, generation.beam, sampled):
        for shortest, longest in ((0, 1), (3, 3), (2, 6), (6, 20)):
            rules = Rules(START, END, PADDING, (PADDING, START), shortest, longest)
            ids = search(Whole(5), CLIPS, rules).ids
            words = ((ids != PADDING) & (ids != END)).sum(1)
            assert (words >= shortest).all()
            assert (words <= longest).all()
            assert not torch.isin(ids, torch.tensor([START])).any()


def test_where_the_rules_leave_no_word_the_end_comes():
    rules = Rules(START, END, PADDING, (PADDING, START), 9, 9, 1)  # two words, each once, but 9 required
    for search in (generation.greedy, generation.beam, sampled):
        found = search(Whole(5), CLIPS, rules)
        assert (found.ids[:, :3] != PADDING).all()
        assert (found.ids[:, 2] == END).all()
        assert found.log_probability.isfinite().all()


def test_sampling_follows_from_the_seed():
    rules = Rules(START, END, PADDING, (PADDING, START), 1, 8)
    one, again, other = (generation.sample(Whole(9), [seed] * CLIPS, rules, 0.95) for seed in (1, 1, 2))
    assert torch.equal(one.ids, again.ids)
    assert torch.equal(one.log_probability, again.log_probability)
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
    least = generation.sample(Whole(9), range(CLIPS), rules, 1e-9)
    assert torch.equal(least.ids, generation.greedy(Whole(9), CLIPS, rules).ids)


def test_a_clip_has_the_same_samples_in_every_batch():
    rules = Rules(START, END, PADDING, (PADDING, START), 1, 8)
    several = generation.sample(Whole(6), range(CLIPS), rules, 0.95, number=3)
    assert len(several.ids) == CLIPS * 3
    one = generation.sample(Whole(6), range(CLIPS), rules, 0.95)
    first = several.ids[::3, : one.ids.shape[1]]
    assert torch.equal(first, one.ids)
    torch.testing.assert_close(several.log_probability[::3], one.log_probability)
    assert len(several.ids.unique(dim=0)) > CLIPS
    for row, (ids, total) in enumerate(zip(several.ids.tolist(), several.log_probability.tolist(), strict=True)):
        words = [number for number in ids if number != PADDING]
        expected = 0.0
        for position, word in enumerate(words):
            expected += float(Whole(6).logits(row // 3, [START, *words[:position]]).log_softmax(0)[word])
        assert total == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_the_best_sample_is_the_caption(penalty):
    rules = Rules(START, END, PADDING, (PADDING, START), 1, 8)
    how = generation.Decoding(decoding="sample", candidates=5, top_p=1, length_penalty=penalty)
    drawn = generation.sample(Whole(6), range(CLIPS), rules, 1, number=5)
    lengths = (drawn.ids != PADDING).sum(1)
    ranks = (drawn.log_probability / lengths**penalty).view(CLIPS, 5)
    found = generation.search_alternatives(Whole(6), range(CLIPS), rules, how, 5)
    for place, generated in enumerate(found):
        expected = ranks.sort(dim=1, descending=True).values[:, place]
        found_lengths = (generated.ids != PADDING).sum(1)
        torch.testing.assert_close(generated.log_probability / found_lengths**penalty, expected)
    best = generation.search(Whole(6), range(CLIPS), rules, how)
    assert torch.equal(best.ids, found[0].ids)


def test_the_temperature_changes_only_what_is_drawn():
    chances = torch.tensor([0.0, 0.0, 0.1, 0.4, 0.5])
    rules = Rules(START, END, PADDING, (), 0, 1)
    found = generation.sample(lambda ids, _: chances.log().expand(len(ids), -1), range(20_000), rules, 1, 0.5)
    shares = torch.bincount(found.ids[:, 0], minlength=5) / 20_000
    torch.testing.assert_close(shares, chances**2 / (chances**2).sum(), atol=0.012, rtol=0)
    torch.testing.assert_close(found.log_probability, chances.log()[found.ids[:, 0]])


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, [1]), (0.55, [1, 0.3]), (0.85, [1, 0.3, 0.15]), (1.0, None)])
def test_sampling_draws_from_the_nucleus(top_p, kept):
    chances = torch.tensor([0.0, 0.0, 0.05, 0.5, 0.3, 0.15])
    rules = Rules(START, END, PADDING, (), 0, 1)
    found = generation.sample(lambda ids, _: chances.log().expand(len(ids), -1), range(20_000), rules, top_p)
    shares = torch.bincount(found.ids[:, 0], minlength=6) / 20_000
    before = torch.tensor([1, 1, 0.95, 0.0, 0.5, 0.8])
    expected = chances * (before < top_p)
    torch.testing.assert_close(shares, expected / expected.sum(), atol=0.012, rtol=0)


def test_clips_that_are_done_leave_the_batch():
    def short(ids, rows):
        calls.append(len(rows))
        logits = torch.zeros(len(ids), 5)
        logits[:, END] = 20.0 if ids.shape[1] > 3 else -20.0
        logits[0, END] = -20.0
        return logits

    rules = Rules(START, END, PADDING, (PADDING, START), 0, 8)
    calls: list[int] = []
    generation.greedy(short, CLIPS, rules)
    assert calls == [4, 4, 4, 4, 1, 1, 1, 1]
    calls = []
    generation.beam(short, CLIPS, rules, width=2)
    assert calls[:4] == [4, 8, 8, 8]
    assert calls[4] < 8


def test_a_batch_is_its_clips():
    rules = Rules(START, END, PADDING, (PADDING, START), 1, 7, 2)
    together = generation.beam(Whole(6), CLIPS, rules, 3)
    for clip in range(CLIPS):
        alone = Whole(6)
        alone.clips = torch.tensor([clip])
        found = generation.beam(alone, 1, rules, 3)
        length = found.ids.shape[1]
        assert torch.equal(together.ids[clip, :length], found.ids[0])
        assert (together.ids[clip, length:] == PADDING).all()


@pytest.mark.parametrize("wrong", [{"min_words": 5, "max_words": 4}, {"max_words": 0}, {"no_repeat": -1}])
def test_rules_that_cannot_hold(wrong):
    with pytest.raises(ValueError, match="min_words must be 0 to max_words"):
        Rules(START, END, PADDING, **wrong)


def test_the_oracle_sees_every_sequence():
    rules = Rules(START, END, PADDING, (PADDING, START), 0, 2)
    ((score, ids, total), *_), *_ = exhaustive(4, rules, 1.0)
    model = Whole(4)
    every = {}
    for length in (1, 2):
        for ids_ in itertools.product([END, 3], repeat=length):
            if (ids_[0] == END) != (length == 1):
                continue
            steps = [model.logits(0, (START, *ids_[:place])).log_softmax(0)[word] for place, word in enumerate(ids_)]
            every[ids_] = float(sum(steps)) / length
    assert max(every, key=every.get) == ids
    assert score == pytest.approx(every[ids])
    assert total == pytest.approx(score * len(ids))
