"""The decoder gives the same logits word by word with a cache and all at once, whatever the batch is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from systems.parts.decoder import Attention, CachedSteps, Decoder, UncachedSteps, positions

WORDS, CLIPS = 11, 3
LENGTHS = torch.tensor([9, 4, 1])


@pytest.fixture(params=[False, True], ids=["norms before", "original"])
def decoder(request):
    torch.manual_seed(0)
    return Decoder(WORDS, 6, 5, blocks=2, heads=2, head_size=4, hidden=8, original=request.param).eval()


@pytest.fixture
def embedding():
    torch.manual_seed(1)
    return nn.Embedding(WORDS, 6)


@pytest.fixture
def memory():
    return torch.randn(CLIPS, 9, 5, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_a_word_at_a_time_equals_teacher_forcing(decoder, embedding, memory):
    ids = torch.randint(WORDS, (CLIPS, 7))
    together = decoder(embedding(ids), memory, LENGTHS)
    steps = CachedSteps(decoder, memory, LENGTHS, lambda ids: embedding(ids[:, -1:]))
    for length in range(1, 8):
        found = steps(ids[:, :length], torch.arange(CLIPS))
        torch.testing.assert_close(found, together[:, length - 1])


@torch.no_grad()
def test_rows_that_multiply_change_places_and_leave(decoder, embedding, memory):
    steps = CachedSteps(decoder, memory, LENGTHS, lambda ids: embedding(ids[:, -1:]))
    ids, clips = torch.ones(CLIPS, 1, dtype=torch.int64), torch.arange(CLIPS)
    # One row per clip; two per clip; swapped within clips; without clip 1; without clip 0 and three rows per clip.
    for rows in ([0, 1, 2], [0, 0, 1, 1, 2, 2], [1, 0, 3, 2, 4, 4], [0, 1, 5, 4], [3, 2, 3]):
        rows = torch.tensor(rows)
        ids, clips = ids[rows], clips[rows]
        found = steps(ids, rows)
        for row, clip in enumerate(clips):
            alone = decoder(embedding(ids[row : row + 1]), memory[clip : clip + 1], LENGTHS[clip : clip + 1])
            torch.testing.assert_close(found[row : row + 1], alone[:, -1])
        ids = torch.cat([ids, torch.randint(WORDS, (len(rows), 1))], dim=1)


@torch.no_grad()
def test_decoding_with_and_without_the_cache_is_equal(decoder, embedding, memory):
    kept = CachedSteps(decoder, memory, LENGTHS, lambda ids: embedding(ids[:, -1:]))
    anew = UncachedSteps(decoder, memory, LENGTHS, embedding)
    ids = torch.ones(CLIPS, 1, dtype=torch.int64)
    for rows in ([0, 1, 2], [0, 0, 1, 1, 2, 2], [1, 0, 3, 2, 4, 4], [0, 1, 5, 4], [3, 2, 3]):
        rows = torch.tensor(rows)
        ids = ids[rows]
        torch.testing.assert_close(anew(ids, rows), kept(ids, rows))
        ids = torch.cat([ids, torch.randint(WORDS, (len(rows), 1))], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("memory_size", [8, 5])
def test_the_original_decoder_equals_torchs(memory_size):
    """Weck et al. 2021: positions added to word embeddings (section 2), one layer with the audio's size (3.3)."""
    torch.manual_seed(0)
    ours = Decoder(WORDS, 7, memory_size, blocks=2, heads=2, head_size=4, hidden=12, original=True).eval()
    layer = nn.TransformerDecoderLayer(8, 2, 12, activation="relu", batch_first=True, norm_first=False)
    theirs = nn.TransformerDecoder(layer, 2).eval()
    for own, other in zip(ours.blocks, theirs.layers, strict=True):
        for one, attention in ((own.words, other.self_attn), (own.sound, other.multihead_attn)):
            attention.in_proj_weight.copy_(torch.cat([one.query.weight, one.key_value.weight]))
            attention.in_proj_bias.copy_(torch.cat([one.query.bias, one.key_value.bias]))
            attention.out_proj.load_state_dict(one.leave.state_dict())
        for norm, another in zip(own.norms, (other.norm1, other.norm2, other.norm3), strict=True):
            norm.weight.copy_(torch.rand(8) + 0.5)
            another.load_state_dict(norm.state_dict())
        other.linear1.load_state_dict(own.linear[0].state_dict())
        other.linear2.load_state_dict(own.linear[3].state_dict())
    words, memory = torch.randn(CLIPS, 6, 7), torch.randn(CLIPS, 9, memory_size)
    behind = torch.arange(9) >= LENGTHS[:, None]
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    encoding = torch.zeros(6, 7)  # an odd size leaves out the last cosine
    for place in range(6):
        for value in range(7):
            angle = torch.tensor(place / 10_000 ** (2 * (value // 2) / 7))
            encoding[place, value] = angle.cos() if value % 2 else angle.sin()
    entered = F.linear(words + encoding, ours.enter.weight, ours.enter.bias)
    sound = memory
    if memory_size != 8:
        sound = F.linear(memory, ours.enter_sound.weight, ours.enter_sound.bias)
    expected = ours.leave(theirs(entered, sound, mask, memory_key_padding_mask=behind))
    torch.testing.assert_close(ours(words, memory, LENGTHS), expected)


@torch.no_grad()
def test_several_captions_of_a_clip_share_its_memory(decoder, embedding, memory):
    ids = torch.randint(WORDS, (CLIPS * 5, 6))
    together = decoder(embedding(ids), memory, LENGTHS)
    apart = decoder(embedding(ids), memory.repeat_interleave(5, 0), LENGTHS.repeat_interleave(5))
    torch.testing.assert_close(together, apart)


@torch.no_grad()
def test_what_stands_behind_changes_nothing(decoder, embedding, memory):
    ids = torch.randint(WORDS, (CLIPS, 6))
    before = decoder(embedding(ids), memory, LENGTHS)
    memory[1, 4:] = 1e6
    other = ids.clone()
    other[:, 4:] = 0
    torch.testing.assert_close(decoder(embedding(other), memory, LENGTHS)[:, :4], before[:, :4])


@torch.no_grad()
def test_attention_is_torchs_own(memory):
    ours = Attention(8, 5, heads=2, head_size=4)
    theirs = nn.MultiheadAttention(8, 2, kdim=5, vdim=5, batch_first=True)
    theirs.q_proj_weight.copy_(ours.query.weight)
    theirs.k_proj_weight.copy_(ours.key_value.weight[:8])
    theirs.v_proj_weight.copy_(ours.key_value.weight[8:])
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.leave.state_dict())
    x = torch.randn(CLIPS, 4, 8)
    inside = torch.arange(9) < LENGTHS[:, None]
    expected = theirs(x, memory, memory, key_padding_mask=~inside)[0]
    torch.testing.assert_close(ours(x, ours.keys_values(memory), inside[:, None, None]), expected)


def test_positions():
    found = positions(2, 3, 4)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[:, 0], torch.tensor([2.0, 3.0, 4.0]).sin())
    torch.testing.assert_close(found[:, 3], torch.tensor([0.02, 0.03, 0.04]).cos())


def test_the_published_size():
    decoder = Decoder(100, 300, 300)
    assert len(decoder.blocks) == 3
    assert {(block.words.heads, block.words.head_size) for block in decoder.blocks} == {(4, 128)}
