#!/usr/bin/env python3
"""Judges sound by PESQ (ITU-T P.862, mapped to MOS-LQO by P.862.1), and draws what came of it.

judge.py judge          reads lines REFERENCE <tab> DEGRADED, wav files of 8 kHz; prints a number for each, in order
judge.py draw TSV PNG   draws a file of lines PATTERN, GOAL, SPEAKER, DIRECTION, MOS-LQO
"""

import sys


def samples(path):
    import wave

    import numpy

    with wave.open(path) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (8000, 1, 2):
            raise SystemExit(f"{path}: not 8 kHz, mono, 16 bit")
        return numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def judge_pair(pair):
    from pesq import PesqError, pesq

    reference, degraded = pair
    try:
        return pesq(8000, samples(reference), samples(degraded), "nb")
    except PesqError as error:
        raise SystemExit(f"{degraded}: {error!r}") from error


def judge():
    from multiprocessing import Pool

    pairs = [tuple(line.rstrip("\n").split("\t")) for line in sys.stdin]
    with Pool() as pool:
        for value in pool.imap(judge_pair, pairs, chunksize=4):
            print(f"{value:.4f}")


def draw(table, picture):
    import matplotlib

    matplotlib.use("svg" if picture.endswith(".svg") else "agg")
    import matplotlib.pyplot as plt

    rows = [line.rstrip("\n").split("\t") for line in open(table, encoding="utf-8")]
    patterns = list(dict.fromkeys(row[0] for row in rows))
    bars = list(dict.fromkeys((row[2], row[3]) for row in rows))
    directions = list(dict.fromkeys(row[3] for row in rows))
    speakers = list(dict.fromkeys(row[2] for row in rows))
    colours = dict(zip(speakers, plt.get_cmap("tab10").colors))
    width = 0.84 / len(bars)
    figure, axes = plt.subplots(figsize=(9, 4.5), dpi=110)
    for place, pattern in enumerate(patterns):
        goal = next(float(row[1]) for row in rows if row[0] == pattern)
        label = "goal, for the mean" if place == 0 else None
        axes.hlines(goal, place - 0.46, place + 0.46, colors="black", linestyles="dashed", linewidth=1, label=label)
        everything = [float(row[4]) for row in rows if row[0] == pattern]
        mean = sum(everything) / len(everything)
        axes.text(place, 4.6, f"{mean:.2f}", ha="center", va="bottom", fontweight="bold")
        for index, (speaker, direction) in enumerate(bars):
            values = [float(row[4]) for row in rows if row[0] == pattern and tuple(row[2:4]) == (speaker, direction)]
            at = place - 0.42 + (index + 0.5) * width
            hatch = "" if direction == directions[0] else "///"
            label = f"{speaker}, {direction}" if place == 0 else None
            axes.bar(at, sum(values) / len(values), width * 0.9, color=colours[speaker], alpha=0.75, hatch=hatch, label=label)
            axes.plot([at] * len(values), values, ".", color="black", markersize=2)
    axes.set_xticks(range(len(patterns)), patterns)
    axes.set_ylim(1, 4.8)
    axes.set_ylabel("PESQ narrowband (P.862.1 MOS-LQO)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, bbox_inches="tight", metadata={"Software": None} if picture.endswith(".png") else None)


if __name__ == "__main__":
    if sys.argv[1:] == ["judge"]:
        judge()
    elif len(sys.argv) == 4 and sys.argv[1] == "draw":
        draw(*sys.argv[2:])
    else:
        raise SystemExit(__doc__)
