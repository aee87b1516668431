"""Tasks on sound: Silero's voice detector on recorded speech, Basic Pitch on synthetic chords."""

from __future__ import annotations

import functools
import os
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accuracy_tasks import (
    CALIBRATION,
    Answers,
    Criterion,
    Feeds,
    Missing,
    Run,
    Task,
    area_under_curve,
    f1_score,
    signal_to_noise,
)
from numpy.typing import NDArray
from real_models import PITCH_RATE, PITCH_WINDOW, package_file

SPEECH_VARIABLE = "LOWPREC_SPEECH_DATA"
SPEECH_FOLDER = "/usr/share/pocketsphinx/test/data"
HEARD_BEFORE = ("001", "002", "0870", "numbers", "0920")
"""Names of the recordings that calibrate; the other nine are measured on."""
FRAME, CONTEXT = 512, 64  # samples of 1/16,000 s: new ones, and old ones before them
GAP = 60  # frames of noise before each recording
LOUD = 0.02  # root mean square above which a frame of a recording counts as speech
WINDOWS = 96  # of two seconds that Basic Pitch is measured on
HOP = 256  # samples between two of its frames
LOWEST_NOTE = 21  # MIDI number of its first output
PITCH_INPUT, PITCH_ARGUMENT = "serving_default_input_2:0", "input_2"  # ONNX file, SavedModel


# ---- Silero --------------------------------------------------------------------------------------
@functools.cache
def recordings() -> dict[str, NDArray[np.float32]]:
    """Return speech of 16 kHz in [-1, 1] by file name.

    Raises:
        Missing: pocketsphinx-testdata is not installed.
    """
    folder = Path(os.environ.get(SPEECH_VARIABLE, SPEECH_FOLDER))
    paths = [*folder.glob("librivox/*.wav"), *folder.glob("cards/*.wav"), *folder.glob("*.raw")]
    paths += folder.glob("tidigits/dhd.2934z.raw")
    if not paths:
        raise Missing(
            "apt-get install pocketsphinx-testdata, or unpack it and let "
            f"{SPEECH_VARIABLE} name its test/data"
        )
    found = {}
    for path in sorted(paths):
        content = path.read_bytes()
        if path.suffix == ".wav":
            with wave.open(str(path)) as file:
                content = file.readframes(file.getnframes())
        found[path.stem] = np.frombuffer(content, "<i2").astype(np.float32) / 32768
    return found


def calibrates(name: str) -> bool:
    return name.endswith(HEARD_BEFORE)


@functools.cache
def clips(for_calibration: bool) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Return frames (count, 576) of noise, then speech, and a label per frame: 1, 0, -1 unknown."""
    made = []
    for index, (name, sound) in enumerate(recordings().items()):
        if calibrates(name) is not for_calibration:
            continue
        rng = np.random.default_rng(index)
        level = 10 ** rng.uniform(-4, -2.3)
        gap = (level * rng.standard_normal(GAP * FRAME)).astype(np.float32)
        whole = np.concatenate([np.zeros(CONTEXT, np.float32), gap, sound])
        frames = np.lib.stride_tricks.sliding_window_view(whole, CONTEXT + FRAME)[::FRAME]
        power = np.sqrt(np.square(frames[:, CONTEXT:], dtype=np.float64).mean(axis=1))
        labels = np.where(power > LOUD, 1, -1)
        labels[:GAP] = 0
        made.append((np.ascontiguousarray(frames), labels))
    return made


def sequence_feed(frames: NDArray[np.float32]) -> Feeds:
    state = np.zeros((1, 1, 128), np.float32)
    return {"input": frames, "h": state, "c": state}


def detect_speech(run: Run) -> Answers:
    parts = [np.array(run(sequence_feed(frames))[0]).ravel() for frames, _ in clips(False)]
    return {"probability": np.concatenate(parts)}


def stream_feeds(run: Run, frames: NDArray[np.float32]) -> Iterator[tuple[Feeds, float]]:
    """Yield each frame's feed, with the state that the frame before left, and the answer."""
    state = np.zeros((2, 1, 128), np.float32)
    rate = np.array(16000, np.int64)
    for frame in frames:
        feed: Feeds = {"input": frame[None], "state": state, "sr": rate}
        probability, state = (np.array(output) for output in run(feed))
        yield feed, float(probability.item())


def detect_speech_in_stream(run: Run) -> Answers:
    answers = [p for frames, _ in clips(False) for _, p in stream_feeds(run, frames)]
    return {"probability": np.array(answers)}


def stream_calibration() -> list[Feeds]:
    """Return frames of the calibrating recordings, every eighth, with the float model's states."""
    import lowprec

    run = lowprec.compile(silero_file("silero_vad.onnx")()).run
    feeds = [feed for frames, _ in clips(True) for feed, _ in stream_feeds(run, frames)]
    return feeds[:: max(1, len(feeds) // CALIBRATION)]


def measure_speech(answers: Answers, exact: Answers) -> dict[str, float]:
    labels = np.concatenate([labels for _, labels in clips(False)])
    known, heard = labels >= 0, answers["probability"]
    return {
        "AUC": area_under_curve(labels[known] == 1, heard[known]),
        "accuracy": float(np.mean((heard[known] > 0.5) == (labels[known] == 1))),
        "SQNR": signal_to_noise(exact["probability"], heard),
    }


def silero_file(name: str):  # type: ignore[no-untyped-def]
    return package_file("silero-vad", f"silero_vad/data/{name}")


# ---- Basic Pitch ---------------------------------------------------------------------------------
@functools.cache
def chords(seed: int, count: int, name: str = PITCH_INPUT) -> list[tuple[Feeds, NDArray[np.bool_]]]:
    """Return windows of chords, and which of 88 notes sound in each frame: (frames, 88)."""
    rng = np.random.default_rng(seed)
    drawn = [draw_chords(rng) for _ in range(count)]
    return [({name: sound}, is_on) for sound, is_on in drawn]


def draw_chords(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return two seconds of chords of 3 to 7 notes, unevenly loud, over noise."""
    sound = rng.uniform(0.001, 0.01) * rng.standard_normal(PITCH_WINDOW)
    at = np.arange(PITCH_WINDOW)
    frames = np.arange(PITCH_WINDOW // HOP + 1) * HOP
    is_on = np.zeros((len(frames), 88), bool)
    start = 0
    while start < PITCH_WINDOW - 4096:
        length = int(rng.integers(8192, 22050))
        inside = slice(start, min(start + length, PITCH_WINDOW))
        time = (at[inside] - start) / PITCH_RATE
        envelope = np.minimum(1, time / 0.01) * np.exp(-rng.uniform(0.5, 3) * time)
        envelope *= np.clip((length / PITCH_RATE - time) / 0.02, 0, 1)
        for note in rng.choice(np.arange(40, 85), int(rng.integers(3, 8)), replace=False):
            pitch, level = 440 * 2 ** ((note - 69) / 12), 10 ** rng.uniform(-1.5, -0.7)
            fall = rng.uniform(0.9, 1.8)
            for harmonic in range(1, 12):
                if harmonic * pitch < PITCH_RATE / 2:
                    phase = rng.uniform(0, 2 * np.pi)
                    wave_form = np.sin(2 * np.pi * harmonic * pitch * time + phase)
                    sound[inside] += level * harmonic**-fall * envelope * wave_form
            is_on[(frames >= inside.start) & (frames < inside.stop), note - LOWEST_NOTE] = True
        start += length + int(rng.integers(0, 4096))
    sound *= min(1.0, 0.95 / np.abs(sound).max())
    return sound.astype(np.float32).reshape(1, -1, 1), is_on


def transcribe(run: Run, name: str = PITCH_INPUT) -> Answers:
    """Return the probability of each note in each frame; the second of three outputs."""
    notes = [np.array(run(feed)[1][0]) for feed, _ in chords(2, WINDOWS, name)]
    return {"note": np.stack(notes)}


def measure_notes(answers: Answers, exact: Answers) -> dict[str, float]:
    truth = np.stack([is_on for _, is_on in chords(2, WINDOWS)])
    found = answers["note"][:, : truth.shape[1]] > 0.3
    hits = float((found & truth[:, : found.shape[1]]).sum())
    return {
        "F1 at 0.3": f1_score(hits, float(truth[:, : found.shape[1]].sum()), float(found.sum())),
        "agreement": float(np.mean(found == (exact["note"][:, : truth.shape[1]] > 0.3))),
        "SQNR": signal_to_noise(exact["note"], answers["note"]),
    }


def sound_tasks() -> list[Task]:
    return [
        Task(
            "silero",
            "Silero sequence",
            silero_file("silero_vad_16k_sequence.onnx"),
            lambda: [sequence_feed(frames) for frames, _ in clips(True)],
            detect_speech,
            measure_speech,
            (Criterion("AUC", within=0.001),),
        ),
        Task(
            "silero_stream",
            "Silero stream",
            silero_file("silero_vad.onnx"),
            stream_calibration,
            detect_speech_in_stream,
            measure_speech,
            (Criterion("AUC", within=0.001),),
        ),
        Task(
            "basic_pitch",
            "Basic Pitch",
            package_file("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
            lambda: [feed for feed, _ in chords(1, CALIBRATION)],
            transcribe,
            measure_notes,
            (Criterion("F1 at 0.3", within=0.01),),
        ),
        Task(
            "basic_pitch_saved_model",
            "Basic Pitch (SavedModel)",
            package_file("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp"),
            lambda: [feed for feed, _ in chords(1, CALIBRATION, PITCH_ARGUMENT)],
            lambda run: transcribe(run, PITCH_ARGUMENT),
            measure_notes,
            (Criterion("F1 at 0.3", within=0.01),),
        ),
    ]
