"""Losses compared with plain loops, and two processes compared with one that has the whole batch."""

import math
import random
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F

from systems.parts import losses
from systems.parts.losses import contrastive, gathered, matching, nt_xent, triplet

CLIPS = [4, 7, 4, 9, 1, 3]
OWNERS = [{4}, {7, 9}, {4}, {9}, {1, 2}, {3, 2}]  # texts 1 and 3 share clip 9, texts 4 and 5 clip 2


def example(seed=0, count=6, size=5):
    rng = torch.Generator().manual_seed(seed)
    audio, text = (F.normalize(torch.randn(count, size, generator=rng), dim=1) for _ in range(2))
    owners = torch.full((count, 3), losses.NONE)
    for row in range(count):
        numbers = sorted(OWNERS[row % len(OWNERS)])
        owners[row, : len(numbers)] = torch.tensor(numbers)
    return audio, text, torch.tensor([CLIPS[row % len(CLIPS)] for row in range(count)]), owners


def looped_matches(clips, owners):
    items = [{clip} for clip in clips.tolist()] + [set(row) - {losses.NONE} for row in owners.tolist()]
    return [[bool(one & other) for other in items] for one in items]


def looped_pairs(count, pairs):
    """Return every ordered pair of two different items that the loss covers."""
    for one in range(2 * count):
        for other in range(2 * count):
            if one != other and (pairs == "all" or (one < count) != (other < count)):
                yield one, other


def looped_contrastive(audio, text, matches, pairs):
    items, found = [*audio.tolist(), *text.tolist()], {True: [], False: []}
    for one, other in looped_pairs(len(audio), pairs):
        s = sum(a * b for a, b in zip(items[one], items[other], strict=True))
        found[matches[one][other]].append(1 - s if matches[one][other] else max(0.0, s))
    above = [[value for value in values if value > 0] for values in found.values()]
    return sum(sum(values) / len(values) for values in above)


def test_contrastive_loss_equals_pytorch_metric_learning():
    from pytorch_metric_learning import distances
    from pytorch_metric_learning.losses import ContrastiveLoss

    audio, text, _, _ = example(count=9)
    clips = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7])
    theirs = ContrastiveLoss(pos_margin=1, neg_margin=0, distance=distances.CosineSimilarity())
    ours = contrastive(audio, text, matching(clips, clips[:, None]))
    assert float(ours) == pytest.approx(float(theirs(torch.cat([audio, text]), torch.cat([clips, clips]))), rel=1e-6)


def looped_nt_xent(audio, text, matches, temperature, pairs):
    items, found = [*audio.tolist(), *text.tolist()], []

    def e(one, other):
        return math.exp(sum(a * b for a, b in zip(items[one], items[other], strict=True)) / temperature)

    allowed = list(looped_pairs(len(audio), pairs))
    for one, other in allowed:
        if matches[one][other]:
            negatives = sum(e(one, third) for first, third in allowed if first == one and not matches[one][third])
            found.append(-math.log(e(one, other) / (e(one, other) + negatives)))
    return sum(found) / len(found)


def test_what_matches_is_what_shares_a_clip():
    _, _, clips, owners = example()
    found = matching(clips, owners)
    assert found.tolist() == looped_matches(clips, owners)
    assert found[0, 2], "one clip twice"
    assert found[1, 6 + 3] == found[6 + 3, 1] == False  # noqa: E712
    assert found[3, 6 + 1], "a text that two clips share"
    assert found[6 + 1, 6 + 3], "texts that share a clip"


@pytest.mark.parametrize("pairs", ["all", "text-audio"])
@pytest.mark.parametrize("seed", range(5))
def test_losses_equal_loops(pairs, seed):
    audio, text, clips, owners = example(seed)
    matches = matching(clips, owners)
    found = float(contrastive(audio, text, matches, pairs))
    assert found == pytest.approx(looped_contrastive(audio, text, matches.tolist(), pairs), rel=1e-5)
    for temperature in (0.07, 1.0):
        found = float(nt_xent(audio, text, matches, temperature, pairs))
        expected = looped_nt_xent(audio, text, matches.tolist(), temperature, pairs)
        assert found == pytest.approx(expected, rel=1e-5)


def test_nt_xent_of_single_matches_is_clips_loss():
    audio, text, *_ = example(count=8)
    numbers = torch.arange(8)
    found = nt_xent(audio, text, matching(numbers, numbers[:, None]), 0.1, "text-audio")
    scores = audio @ text.T / 0.1
    torch.testing.assert_close(found, (F.cross_entropy(scores, numbers) + F.cross_entropy(scores.T, numbers)) / 2)


@pytest.mark.parametrize("pairs", ["all", "text-audio"])
def test_a_batch_of_one_clip_has_finite_gradients(pairs):
    audio, text, *_ = example(count=3)
    audio.requires_grad_()
    matches = matching(torch.zeros(3, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64))
    loss = nt_xent(audio, text, matches, 0.07, pairs)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not audio.grad.any()
    assert contrastive(audio, audio.detach(), matches, pairs).isfinite()


def test_what_is_perfect_has_no_loss():
    one = torch.eye(4)
    numbers = torch.arange(4)
    loss = contrastive(one.clone().requires_grad_(), one, matching(numbers, numbers[:, None]))
    loss.backward()
    assert float(loss.detach()) == 0


# Several processes --------------------------------------------------------------------------------------------------

SIZE, HALF = 5, 4


def both_losses(parameters, inputs, clips, owners, gather):
    """Return the losses of pairs that are embedded with `parameters`."""
    audio, text = (F.normalize(part @ parameters, dim=1) for part in inputs)
    audio, text, clips, owners = map(gather, (audio, text, clips, owners))
    matches = matching(clips, owners)
    return [
        contrastive(audio, text, matches),
        nt_xent(audio, text, matches),
        nt_xent(audio, text, matches, 1.0, "text-audio"),
    ]


def work(rank, port, results):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
    audio, text, clips, owners = example(count=2 * HALF)
    own = slice(rank, None, 2)  # the part that a DistributedSampler gives to a process
    found = []
    for which in range(3):
        parameters = torch.eye(SIZE).add(0.1).requires_grad_()
        loss = both_losses(parameters, (audio[own], text[own]), clips[own], owners[own], gathered)[which]
        loss.backward()
        torch.distributed.all_reduce(parameters.grad)  # as DDP does
        found.append((float(loss.detach()), (parameters.grad / 2).tolist()))
    if rank == 0:
        torch.save(found, results)
    torch.distributed.destroy_process_group()


def test_dot_products_are_float32_with_mixed_precision():
    one, other = torch.randn(2, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ other.T).dtype == torch.bfloat16
        found = losses.dot_products(one, other)
    assert torch.equal(found, one @ other.T)


def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(work, (port, tmp_path / "results"), nprocs=2, start_method="fork")
    audio, text, clips, owners = example(count=2 * HALF)
    for which, (value, gradient) in enumerate(torch.load(tmp_path / "results", weights_only=True)):
        parameters = torch.eye(SIZE).add(0.1).requires_grad_()
        loss = both_losses(parameters, (audio, text), clips, owners, gathered)[which]
        loss.backward()
        assert value == pytest.approx(float(loss.detach()), rel=1e-6)
        torch.testing.assert_close(torch.tensor(gradient), parameters.grad, rtol=1e-5, atol=1e-6)


# The triplet loss ---------------------------------------------------------------------------------------------------


def looped_loss(scores, answers, pairs, margin, draw):
    """Compute equation 1 one pair at a time; `draw` picks an impostor from a list."""
    total = 0.0
    for clip, caption in pairs.tolist():
        captions = [other for other in range(scores.shape[1]) if not answers[clip, other]]
        clips = [other for other in range(scores.shape[0]) if not answers[other, caption]]
        if captions:
            total += max(0.0, float(scores[clip, draw(captions)] - scores[clip, caption]) + margin)
        if clips:
            total += max(0.0, float(scores[draw(clips), caption] - scores[clip, caption]) + margin)
    return total / len(pairs)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_the_loss_equals_a_loop_where_there_is_one_impostor(margin):
    scores = torch.tensor([[0.9, 0.1], [0.3, 0.4]])
    answers, pairs = torch.eye(2, dtype=torch.bool), torch.tensor([[0, 0], [1, 1]])
    found = triplet(scores, answers, pairs, margin)
    assert float(found) == pytest.approx(looped_loss(scores, answers, pairs, margin, lambda one: one[0]), rel=1e-6)


def test_the_mean_over_draws_equals_the_loop_over_all_impostors():
    torch.manual_seed(0)
    clips, captions = 5, 15
    scores = torch.randn(clips, captions)
    pairs = torch.stack([torch.arange(captions) // 3, torch.arange(captions)], dim=1)
    answers = torch.zeros(clips, captions, dtype=torch.bool)
    answers[pairs[:, 0], pairs[:, 1]] = True
    answers[0, 7] = True  # a caption that two clips share
    found = torch.stack([triplet(scores, answers, pairs) for _ in range(4000)])
    choose = random.Random(0).choice  # noqa: S311, far faster on short lists than numpy's
    expected = np.mean([looped_loss(scores, answers, pairs, 1.0, choose) for _ in range(1000)])
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / np.sqrt(1000))


def drawn_like_the_loss(answers, pairs):
    """Return an impostor caption and an impostor clip for each pair, or None, from the same random numbers."""
    numbers_of_captions = torch.rand(len(pairs), answers.shape[1])
    numbers_of_clips = torch.rand(len(pairs), answers.shape[0])
    drawn = []
    for row, (clip, caption) in enumerate(pairs.tolist()):
        captions = [other for other in range(answers.shape[1]) if not answers[clip, other]]
        clips = [other for other in range(answers.shape[0]) if not answers[other, caption]]
        impostor_caption = max(captions, key=lambda other: numbers_of_captions[row, other], default=None)
        impostor_clip = max(clips, key=lambda other: numbers_of_clips[row, other], default=None)
        drawn.append((impostor_caption, impostor_clip))
    return drawn


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_value_and_gradient_equal_a_loop_with_equal_draws(margin):
    scores = torch.randn(5, 15, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs = torch.stack([torch.arange(15) // 3, torch.arange(15)], dim=1)
    answers = pairs[:, 0] == torch.arange(5)[:, None]
    answers[0, 7] = True  # a caption that two clips share
    answers[:, 14] = True  # a caption of all clips has no impostor clip
    answers[1] = True  # a clip with all captions has no impostor caption
    torch.manual_seed(1)
    loss = triplet(scores, answers, pairs, margin)
    (gradient,) = torch.autograd.grad(loss, scores)
    torch.manual_seed(1)
    total = torch.zeros(())
    for (clip, caption), drawn in zip(pairs.tolist(), drawn_like_the_loss(answers, pairs), strict=True):
        impostor_caption, impostor_clip = drawn
        if impostor_caption is not None:
            total = total + F.relu(scores[clip, impostor_caption] - scores[clip, caption] + margin)
        if impostor_clip is not None:
            total = total + F.relu(scores[impostor_clip, caption] - scores[clip, caption] + margin)
    expected = total / len(pairs)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, scores)[0], rtol=1e-6, atol=1e-6)


def test_a_shared_caption_is_never_an_impostor():
    scores = torch.tensor([[0.0, 100.0], [0.0, 100.0]], requires_grad=True)
    answers, pairs = torch.tensor([[True, True], [False, True]]), torch.tensor([[0, 0], [1, 1]])
    # Pair (0, 0) has impostor clip 1 and no impostor caption; pair (1, 1) has impostor caption 0 and no impostor clip.
    loss = triplet(scores, answers, pairs)
    assert float(loss.detach()) == pytest.approx((1 + 0) / 2)


def test_a_batch_without_impostors_has_no_loss_and_no_gradient():
    scores = torch.randn(1, 3, requires_grad=True)
    pairs = torch.tensor([[0, 0], [0, 1], [0, 2]])
    loss = triplet(scores, torch.ones(1, 3, dtype=torch.bool), pairs)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not scores.grad.any()


# Estimated correspondences --------------------------------------------------------------------------------------------


def test_distilled_loss_equals_a_loop_of_the_papers_equations():
    """The cross entropy of the model's distributions to those of the targets, in both directions."""
    audio, text, _, _ = example()
    targets = torch.rand(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = (audio @ text.T).double().tolist()
    total = 0.0
    for one in range(6):
        for line, wanted in (
            (scores[one], targets[one].tolist()),
            ([row[one] for row in scores], targets[:, one].tolist()),
        ):
            log_sum = math.log(sum(math.exp(score / 0.1) for score in line))
            wanted_sum = sum(math.exp(target / 0.1) for target in wanted)
            for score, target in zip(line, wanted, strict=True):
                total -= math.exp(target / 0.1) / wanted_sum * (score / 0.1 - log_sum) / 12
    assert losses.distilled(audio, text, targets, 0.1).item() == pytest.approx(total, rel=1e-6)


def test_certain_targets_give_clips_loss():
    """Targets that are certain about the pairs make the loss the symmetric cross entropy of CLIP."""
    audio, text, _, _ = example()
    wanted = (F.cross_entropy(audio @ text.T / 0.1, torch.arange(6)) * 0.5).item()
    wanted += (F.cross_entropy(text @ audio.T / 0.1, torch.arange(6)) * 0.5).item()
    assert losses.distilled(audio, text, 100 * torch.eye(6), 0.1).item() == pytest.approx(wanted, rel=1e-6)


def test_a_student_that_equals_its_teacher_has_no_gradient():
    audio, text, _, _ = example()
    audio.requires_grad_()
    losses.distilled(audio, text, (audio @ text.T).detach()).backward()
    torch.testing.assert_close(audio.grad, torch.zeros_like(audio), atol=1e-6, rtol=0)
