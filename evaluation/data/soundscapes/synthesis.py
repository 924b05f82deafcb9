"""Synthesis of the waveforms of each kind of source, and of whole scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, pairwise

import numpy as np
from numpy.random import Generator

SAMPLE_RATE = 44100
SHORTEST, LONGEST = 3.5, 4.5  # seconds

Scene = dict[str, tuple[str, int]]  # from role to (kind, count)

# ------------------------------------------------------------------------------------------------ parts of sounds


def _time(seconds: float) -> np.ndarray:
    """Return the time of each sample in seconds."""
    return np.arange(max(2, round(seconds * SAMPLE_RATE))) / SAMPLE_RATE


def _turns(hertz: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the phase, in turns, of an oscillator whose frequency may change."""
    return np.cumsum(np.broadcast_to(hertz, time.shape)) / SAMPLE_RATE


def _sine(hertz: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * _turns(hertz, time))


def _buzz(hertz: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return a sawtooth wave, which has all harmonics, like a voice or a reed."""
    return 2 * (_turns(hertz, time) % 1) - 1


def _hump(time: np.ndarray, skew: float = 1.0) -> np.ndarray:
    """Return an envelope that rises from 0 to 1 and falls to 0; a smaller `skew` gives an earlier peak."""
    return np.sin(np.pi * np.linspace(0, 1, len(time)) ** skew)


def _sway(rng: Generator, time: np.ndarray, hertz: float) -> np.ndarray:
    """Return a random curve between 0 and 1, with `hertz` new values per second."""
    knots = np.arange(0, time[-1] + 2 / hertz, 1 / hertz)
    return np.interp(time, knots, rng.random(len(knots)))


def _filter(sound: np.ndarray, *points: tuple[float, float]) -> np.ndarray:
    """Multiply the spectrum by gains.

    The gains are interpolated between (Hz, gain) points on a logarithmic frequency axis, and are 0 outside the points.
    """
    size = -(-len(sound) // 4096) * 4096  # a length with small factors, for a fast transform
    hertz, gain = zip(*points, strict=True)
    weight = np.interp(np.log(np.fft.rfftfreq(size, 1 / SAMPLE_RATE) + 1e-3), np.log(hertz), gain, left=0, right=0)
    return np.fft.irfft(np.fft.rfft(sound, size) * weight, size)[: len(sound)]


def _noise(rng: Generator, time: np.ndarray, *points: tuple[float, float]) -> np.ndarray:
    return _unit(_filter(rng.standard_normal(len(time)), *points))


def _unit(sound: np.ndarray) -> np.ndarray:
    """Scale a waveform to a peak of 1."""
    return sound / max(np.abs(sound).max(), 1e-9)


def _struck(rng: Generator, time: np.ndarray, hertz: float, ratios: tuple[float, ...], ring: float) -> np.ndarray:
    """Return the sum of a struck body's partials.

    The frequencies are `hertz` times `ratios`. A partial with ratio 1 decays with a time constant of `ring` seconds.
    Higher partials decay faster.
    """
    return sum(
        rng.uniform(0.5, 1) / ratio**0.5 * np.exp(-time * ratio**0.7 / ring) * np.sin(2 * np.pi * hertz * ratio * time)
        for ratio in ratios
    )


def _scatter(time: np.ndarray, starts: np.ndarray, grain: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the sum of new grains, one at each start time in seconds."""
    sound = np.zeros(len(time))
    for start in starts:
        room = sound[round(start * SAMPLE_RATE) :]
        piece = grain()[: len(room)]
        room[: len(piece)] += piece
    return sound


def _beats(rng: Generator, time: np.ndarray, hertz: float, jitter: float) -> np.ndarray:
    """Return times at `hertz`, with random deviations of up to `jitter` periods. The first is 0, to avoid silence."""
    times = np.arange(0, time[-1], 1 / hertz)
    times[1:] += jitter / hertz * rng.uniform(-1, 1, len(times) - 1)
    return np.abs(times)


# ------------------------------------------------------------------------------------------------ kinds of sounds
# Each function synthesises one occurrence of an event, or a texture. Frequencies and durations are random.


def _dog(rng: Generator, time: np.ndarray) -> np.ndarray:
    rough = _buzz(rng.uniform(260, 480) * (1 + 0.7 * _hump(time, 0.6)), time) + rng.normal(0, 0.5, len(time))
    throat = rng.uniform(700, 1100)
    return _filter(rough, (150, 0), (throat, 1), (2 * throat, 0.4), (6000, 0)) * _hump(time, 0.4)


def _cat(rng: Generator, time: np.ndarray) -> np.ndarray:
    voice = _buzz(rng.uniform(420, 650) * (1 + 0.5 * _hump(time, 0.8)), time)
    shut, open_wide = _filter(voice, (300, 1), (1500, 0)), _filter(voice, (700, 0), (1800, 1), (5000, 0))
    return (shut + 2 * _hump(time, 0.9) ** 2 * open_wide) * _hump(time, 0.7)


def _frog(rng: Generator, time: np.ndarray) -> np.ndarray:
    pulses = (0.5 + 0.5 * _sine(rng.uniform(28, 45), time)) ** 4
    croak = _filter(_buzz(rng.uniform(110, 170), time), (300, 0), (rng.uniform(500, 800), 1), (1600, 0))
    return croak * pulses * _hump(time, 1.3)


def _bell(rng: Generator, time: np.ndarray) -> np.ndarray:
    ratios = (0.5, 1.0, 1.19, 1.5, 2.0, 2.67, 3.0, 4.1, 5.3)
    return _struck(rng, time, rng.uniform(350, 650), ratios, rng.uniform(0.2, 0.4))


def _knock(rng: Generator, time: np.ndarray) -> np.ndarray:
    thud = _struck(rng, time, rng.uniform(180, 320), (1, 1.7, 2.9), rng.uniform(0.02, 0.035))
    return thud + 0.3 * _noise(rng, time, (300, 1), (3000, 0)) * np.exp(-time / 0.008)


def _horn(rng: Generator, time: np.ndarray) -> np.ndarray:
    low = rng.uniform(240, 330)
    chord = np.zeros(len(time))
    for ratio in (1, 1.19, 1.5, 1.78):
        chord += _buzz(low * ratio * rng.uniform(0.99, 1.01), time)
    return _filter(chord, (150, 1), (900, 1), (4000, 0.1), (8000, 0)) * _hump(time) ** 0.3


def _phone(rng: Generator, time: np.ndarray) -> np.ndarray:
    hertz, strokes = rng.uniform(1100, 1700), np.abs(_sine(rng.uniform(10, 14), time)) ** 0.5
    return (_sine(hertz, time) + _sine(1.26 * hertz, time) + 0.4 * _sine(2.9 * hertz, time)) * strokes


def _beep(rng: Generator, time: np.ndarray) -> np.ndarray:
    hertz = rng.uniform(900, 2800)
    return _sine(hertz, time) + rng.uniform(0.1, 0.4) * _sine(3 * hertz, time)


def _hammer(rng: Generator, time: np.ndarray) -> np.ndarray:
    clang = _struck(rng, time, rng.uniform(900, 1400), (1, 1.53, 2.27, 3.2, 4.9), rng.uniform(0.05, 0.09))
    return clang + 1.5 * _noise(rng, time, (100, 1), (8000, 1)) * np.exp(-time / 0.015)


def _glass(rng: Generator, time: np.ndarray) -> np.ndarray:
    return _struck(rng, time, rng.uniform(2600, 3400), (1, 1.37, 1.83, 2.3), rng.uniform(0.12, 0.25))


def _whistle(rng: Generator, time: np.ndarray) -> np.ndarray:
    hertz = rng.uniform(1000, 1700) * (1 + rng.uniform(0.4, 0.8) * np.linspace(0, 1, len(time)) ** 2)
    return (_sine(hertz, time) + _noise(rng, time, (800, 0), (2500, 0.15), (6000, 0.05))) * _hump(time) ** 0.5


def _drum(rng: Generator, time: np.ndarray) -> np.ndarray:
    boom = _sine(rng.uniform(55, 90) * (1 + 0.8 * np.exp(-time / 0.03)), time) * np.exp(-time / rng.uniform(0.08, 0.15))
    return boom + 0.2 * _noise(rng, time, (100, 1), (1500, 0)) * np.exp(-time / 0.02)


def _thunder(rng: Generator, time: np.ndarray) -> np.ndarray:
    rumble = _noise(rng, time, (20, 1), (rng.uniform(90, 160), 1), (900, 0.05), (3000, 0))
    return rumble * (0.2 + _sway(rng, time, 9)) * _hump(time, 0.35)


def _rain(rng: Generator, time: np.ndarray) -> np.ndarray:
    hiss = _noise(rng, time, (300, 0.05), (rng.uniform(2500, 5000), 1), (16000, 0.6))
    drops = rng.random(len(time)) * (rng.random(len(time)) < rng.uniform(80, 250) / SAMPLE_RATE)
    return hiss + 0.5 * _unit(_filter(drops, (1500, 0), (4000, 1), (9000, 0)))


def _wind(rng: Generator, time: np.ndarray) -> np.ndarray:
    howl = rng.uniform(450, 750)
    low = _noise(rng, time, (60, 0), (150, 1), (400, 0.1), (900, 0)) * (0.3 + _sway(rng, time, 2))
    return low + _noise(rng, time, (0.7 * howl, 0), (howl, 1), (1.4 * howl, 0)) * _sway(rng, time, 2.5) ** 1.5


def _waves(rng: Generator, time: np.ndarray) -> np.ndarray:
    swell = (0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(0.55, 0.9) * time + rng.random()))) ** 2
    foam = _noise(rng, time, (100, 0.5), (600, 1), (rng.uniform(1500, 2500), 0.6), (9000, 0.1))
    return (0.06 + swell) * foam + 0.3 * _noise(rng, time, (30, 0), (80, 1), (200, 0))


def _engine(rng: Generator, time: np.ndarray) -> np.ndarray:
    hertz = rng.uniform(28, 60) * (1 + 0.15 * _sway(rng, time, 1.5))
    firing = _buzz(hertz, time) + 0.5 * _buzz(hertz / 2, time) + rng.normal(0, 0.1, len(time))
    return _filter(firing, (20, 1), (250, 0.8), (1200, 0.05), (4000, 0))


def _helicopter(rng: Generator, time: np.ndarray) -> np.ndarray:
    blade = _noise(rng, time, (40, 1), (rng.uniform(250, 500), 1), (3000, 0.1), (6000, 0))
    return (0.1 + (1 - _turns(rng.uniform(9, 15), time) % 1) ** 3) * blade + 0.03 * _buzz(rng.uniform(550, 800), time)


def _siren(rng: Generator, time: np.ndarray) -> np.ndarray:
    wail = 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(0.5, 1.2) * time + rng.random()))
    hertz = rng.uniform(500, 750) * (1 + rng.uniform(0.7, 1.2) * wail)
    return _sine(hertz, time) + 0.4 * _sine(2 * hertz, time) + 0.25 * _sine(3 * hertz, time)


def _birds(rng: Generator, time: np.ndarray) -> np.ndarray:
    low = rng.uniform(2600, 3800)

    def chirp() -> np.ndarray:
        short = _time(rng.uniform(0.05, 0.16))
        glide = 1 + rng.uniform(-0.3, 0.5) * np.linspace(0, 1, len(short))
        return rng.uniform(0.3, 1) * _sine(low * rng.uniform(0.9, 1.5) * glide, short) * _hump(short)

    return _scatter(time, _beats(rng, time, rng.uniform(5, 9), 0.7), chirp)


def _crickets(rng: Generator, time: np.ndarray) -> np.ndarray:
    def one() -> np.ndarray:
        pulses = np.maximum(0, _sine(rng.uniform(25, 40), time))
        return pulses * np.maximum(0, _sine(rng.uniform(2.5, 4), time)) ** 0.5 * _sine(rng.uniform(4200, 5600), time)

    return one() + 0.5 * one()


def _clock(rng: Generator, time: np.ndarray) -> np.ndarray:
    hertz = rng.uniform(1800, 2800)
    ticks = cycle([_struck(rng, _time(0.05), hertz * tone, (1, 1.6, 2.2), 0.012) for tone in (1, 0.8)])
    return _scatter(time, _beats(rng, time, rng.uniform(3, 5), 0), lambda: next(ticks))


def _footsteps(rng: Generator, time: np.ndarray) -> np.ndarray:
    short, heel, sole = _time(0.16), rng.uniform(90, 140), rng.uniform(500, 1200)

    def step() -> np.ndarray:
        scuff = _noise(rng, short, (sole / 2, 0), (sole, 1), (4 * sole, 0)) * _hump(short, 0.8) ** 2
        return _struck(rng, short, heel * rng.uniform(0.9, 1.1), (1, 1.8), 0.03) + 0.5 * scuff

    return _scatter(time, _beats(rng, time, rng.uniform(2, 2.8), 0.08), step)


def _saw(rng: Generator, time: np.ndarray) -> np.ndarray:
    rasp = rng.uniform(1300, 2200)
    strokes = np.sin(np.pi * (_turns(rng.uniform(2, 3.5), time) % 1)) * (1 + 0.8 * _sine(rng.uniform(70, 130), time))
    return _noise(rng, time, (600, 0), (rasp, 1), (3 * rasp, 0.3), (9000, 0)) * strokes


def _fire(rng: Generator, time: np.ndarray) -> np.ndarray:
    def crack() -> np.ndarray:
        short = _time(0.02)
        return rng.random() ** 2 * rng.standard_normal(len(short)) * np.exp(-short / rng.uniform(0.001, 0.004))

    cracks = _scatter(time, _beats(rng, time, rng.uniform(18, 35), 2), crack)
    return _unit(cracks) + 0.12 * _noise(rng, time, (40, 0), (120, 1), (400, 0.3), (1000, 0))


def _typing(rng: Generator, time: np.ndarray) -> np.ndarray:
    short, hertz = _time(0.045), rng.uniform(1800, 3000)

    def key() -> np.ndarray:
        click = _noise(rng, short, (200, 0.2), (hertz, 1), (7000, 0.4)) * np.exp(-short / 0.007)
        return rng.uniform(0.4, 1) * (click + 0.5 * _struck(rng, short, rng.uniform(280, 380), (1,), 0.015))

    return _scatter(time, _beats(rng, time, rng.uniform(9, 13), 0.6), key)


def _babble(rng: Generator, time: np.ndarray) -> np.ndarray:
    vowels = ((400, 2200), (750, 1200), (500, 1700))  # Hz of the first and the second formant
    mouths = np.zeros((len(vowels), len(time)))
    for pitch in rng.uniform(95, 230, size=5):
        voice = _buzz(pitch * (0.9 + 0.25 * _sway(rng, time, 3)), time) * _sway(rng, time, 8) ** 2
        mouths += [voice * _sway(rng, time, 6) ** 2 for _ in vowels]
    sound = np.zeros(len(time))
    for mouth, (first, second) in zip(mouths, vowels, strict=True):
        formants = (80, 0), (first / 2, 0.3), (first, 1), (0.75 * second, 0.1), (second, 0.5), (4500, 0)
        sound += _filter(mouth, *formants)
    return sound


@dataclass(frozen=True)
class Kind:
    """The waveform and the phrases of a kind of source.

    Attributes:
        synthesise: Function that returns a waveform of any scale. Its arguments are a random generator and the time of
            each sample in seconds.
        lasts: Duration of one occurrence of an event in seconds; 0 for a texture, which can have any duration.
        words: Phrases, separated by semicolons, in three notations: a clause and its participle, `a dog barks/barking`;
            a countable noun, singular and plural, `bark/barks of a dog`; a singular noun phrase, `the barking of a
            dog`. Two kinds must not share a phrase, because the oracle recognises kinds by their phrases.
    """

    synthesise: Callable[[Generator, np.ndarray], np.ndarray]
    lasts: float
    words: str


SOUND_KINDS = {
    "dog": Kind(_dog, 0.3, "a dog barks/barking; a big dog woofs/woofing; a barking dog; bark/barks from a dog"),
    "cat": Kind(_cat, 0.6, "a cat meows/meowing; a hungry cat cries/crying; a meowing cat; meow/meows from a cat"),
    "frog": Kind(_frog, 0.3, "a frog croaks/croaking; a toad croaks/croaking; a croaking frog; croak/croaks of a frog"),
    "bell": Kind(
        _bell, 0.7, "a church bell rings/ringing; a big bell tolls/tolling; a church bell; peal/peals of a bell"
    ),
    "knock": Kind(
        _knock, 0.15, "somebody knocks/knocking on a door; someone raps/rapping on wood; knock/knocks on a door"
    ),
    "horn": Kind(
        _horn, 0.7, "a train blows/blowing its horn; a horn blares/blaring; a train horn; blast/blasts of a horn"
    ),
    "phone": Kind(
        _phone, 0.6, "a phone rings/ringing; an old telephone rings/ringing; a ringing phone; ring/rings of a phone"
    ),
    "beep": Kind(_beep, 0.2, "an alarm beeps/beeping; a device beeps/beeping; a beeping alarm; electronic beep/beeps"),
    "hammer": Kind(
        _hammer, 0.2, "a hammer hits/hitting metal; a hammer clangs/clanging; a clanging hammer; blow/blows of a hammer"
    ),
    "glass": Kind(
        _glass, 0.25, "a glass clinks/clinking; two glasses clink/clinking; the clink of glass; clink/clinks of glass"
    ),
    "whistle": Kind(
        _whistle, 0.45, "someone whistles/whistling; a man whistles/whistling; a human whistle; sharp whistle/whistles"
    ),
    "drum": Kind(_drum, 0.25, "somebody hits/hitting a drum; a drum booms/booming; a bass drum; beat/beats of a drum"),
    "thunder": Kind(
        _thunder, 1.2, "thunder rumbles/rumbling; thunder rolls/rolling; distant thunder; clap/claps of thunder"
    ),
    "rain": Kind(_rain, 0, "rain falls/falling; rain patters/pattering on the ground; steady rain; the patter of rain"),
    "wind": Kind(_wind, 0, "the wind blows/blowing; a strong wind howls/howling; a howling wind; the rushing of wind"),
    "waves": Kind(_waves, 0, "waves crash/crashing ashore; the sea surges/surging; ocean surf; the crashing of waves"),
    "engine": Kind(_engine, 0, "a car engine idles/idling; a motor runs/running; an idling engine; the hum of a motor"),
    "helicopter": Kind(
        _helicopter, 0, "a helicopter hovers/hovering; a chopper flies/flying overhead; helicopter noise"
    ),
    "siren": Kind(
        _siren, 0, "a siren wails/wailing; a police siren blares/blaring; a wailing siren; an emergency siren"
    ),
    "birds": Kind(_birds, 0, "birds sing/singing; small birds chirp/chirping; birdsong; the twittering of birds"),
    "crickets": Kind(_crickets, 0, "crickets chirp/chirping; insects trill/trilling; the chirping of crickets"),
    "clock": Kind(_clock, 0, "a clock ticks/ticking; a wall clock ticks/ticking away; the ticking of a clock"),
    "footsteps": Kind(
        _footsteps, 0, "somebody walks/walking; a person strolls/strolling along; the sound of footsteps"
    ),
    "saw": Kind(_saw, 0, "somebody saws/sawing wood; a handsaw cuts/cutting through a board; the rasp of a saw"),
    "fire": Kind(
        _fire, 0, "a fire crackles/crackling; a campfire burns/burning; a crackling fire; the crackle of flames"
    ),
    "typing": Kind(_typing, 0, "someone types/typing; a person taps/tapping on a keyboard; the clatter of a keyboard"),
    "babble": Kind(_babble, 0, "people talk/talking; a crowd chatters/chattering; a babble of voices; crowd chatter"),
}


def play(rng: Generator, kind: str, seconds: float) -> np.ndarray:
    """Synthesise an instance of a kind: round(seconds * SAMPLE_RATE) samples, at least two, in [-1, 1]."""
    return _unit(SOUND_KINDS[kind].synthesise(rng, _time(seconds)))


def render(rng: Generator, scene: Scene) -> np.ndarray:
    """Synthesise a scene: 3.5 to 4.5 s of audio in [-1, 1] at 44.1 kHz."""
    seconds = rng.uniform(SHORTEST, LONGEST)
    sound = 10 ** rng.uniform(-3.2, -2.5) * _noise(rng, _time(seconds), (20, 1), (1000, 0.5), (20000, 0.1))
    sequence = [source for role, source in scene.items() if role != "x"]
    first, last = (0.15, 0.85) if "x" in scene else (0.01, 0.99)
    edges = np.linspace(first, last, len(sequence) + 1) * seconds
    edges[1:-1] += rng.uniform(-0.08, 0.08, len(sequence) - 1) * seconds / len(sequence)
    placed = [
        (source, start, stop, rng.uniform(-8, 0))
        for source, (start, stop) in zip(sequence, pairwise(edges), strict=True)
    ]
    if "x" in scene:
        placed.append((scene["x"], 0.0, seconds, rng.uniform(-18, -8)))
    for source, start, stop, decibels in placed:
        room = sound[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]
        room += 10 ** (decibels / 20) * _fill(rng, *source, len(room) / SAMPLE_RATE)
    return rng.uniform(0.3, 0.9) * _unit(_faded(sound, 0.01))


def _fill(rng: Generator, kind: str, count: int, seconds: float) -> np.ndarray:
    """Synthesise a texture, or `count` occurrences of an event at equal distances, in a given duration."""
    lasts = SOUND_KINDS[kind].lasts
    if not lasts:
        return _faded(play(rng, kind, seconds), min(rng.uniform(0.03, 0.2), seconds / 4))
    lasts = min(lasts * rng.uniform(0.85, 1.15), 0.9 * seconds / count)
    once = _faded(play(rng, kind, lasts), 0.005)
    period = rng.uniform(1.1 * lasts, min(seconds / count, 2.5 * lasts))
    starts = rng.uniform(0, seconds - (count - 1) * period - lasts) + period * np.arange(count)
    return _scatter(_time(seconds), starts, lambda: once * rng.uniform(0.7, 1))


def _faded(sound: np.ndarray, seconds: float) -> np.ndarray:
    """Fade a waveform in and out to avoid clicks."""
    ramp = np.linspace(0, 1, round(seconds * SAMPLE_RATE))
    sound[: len(ramp)] *= ramp
    sound[len(sound) - len(ramp) :] *= ramp[::-1]
    return sound
