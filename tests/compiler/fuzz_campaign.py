"""Figures of docs/reliability.md, on any machine: broken inputs, and what comes of them.

    python tests/compiler/fuzz_campaign.py --specs 20000 --seed 0
    python tests/compiler/fuzz_campaign.py --composed 20000 --seed 0
    python tests/compiler/fuzz_campaign.py --lines 3000 --files 3000

Specs are broken texts, broken trees and compositions; composed are texts and trees of specs whose blocks are made of
blocks, broken; lines are command lines with broken values; files are saved
folders with broken content. Each must be accepted or refused in words, soon, without a trace of Python. Accepted small
specs are compiled, written and read again; one in `--build` of them is also built and run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import blockforge as bf
from blockforge.cli import main as command_line
from blockforge.compiler import Architecture
from blockforge.compiler.lowering.outputs import by_name
from blockforge.spec import Hole, from_text, holes

sys.path.insert(0, str(Path(__file__).parent))
import mutations

SECONDS = 10.0
"""Processor time for one input, however hostile."""
WAIT = 300
"""Seconds of a clock for one input, on a busy machine."""
SMALL, SMALL_BYTES, SMALL_MACS = 3_000_000, 64 * 2**20, 10**10
"""Parameters, activations and multiply-adds of what is built."""
PYTHON = re.compile(r"\b(?:Hole|Ref|Expr|Node|OpSpec|StageSpec)\(| object at 0x|Traceback|<class |pydantic|PosixPath")
"""What has no place in a message to a user."""


def _too_long(*_: object) -> None:
    raise TimeoutError("it waits")


class Tally:
    """What became of the inputs; `raw` counts those that must not be, by where they were raised."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.raw: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.slowest = 0.0
        signal.signal(signal.SIGALRM, _too_long)

    def run(self, what: Any, attempt: Callable[[], str]) -> None:
        """Run one input, which `what` shows."""
        start = time.process_time()
        signal.alarm(WAIT)  # raises in what waits for ever
        try:
            self.counts[attempt()] += 1
        except bf.BlockforgeError as e:
            self.counts["refused"] += 1
            self.codes.update({d.code for d in e.diagnostics} if isinstance(e, bf.SpecError) else {type(e).__name__})
            if found := PYTHON.search(str(e)):
                self.fail(f"message with {found[0]}", f"{what!r}\n{e}")
        except Exception as e:
            last = traceback.extract_tb(e.__traceback__)[-1]
            self.fail(
                f"{type(e).__name__} at {Path(last.filename).name}:{last.lineno}", f"{what!r}\n{traceback.format_exc()}"
            )
        signal.alarm(0)
        spent = time.process_time() - start
        self.slowest = max(self.slowest, spent)
        if spent > SECONDS:
            self.fail("more than the time", repr(what))

    def fail(self, why: str, example: str) -> None:
        self.raw[why] += 1
        self.examples.setdefault(why, example)

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.counts, "raw errors": sum(self.raw.values()), "raw": dict(self.raw),
            "codes": dict(self.codes.most_common()), "slowest, s": round(self.slowest, 2),
        }  # fmt: skip


def specs(number: int, seed: int, build: int, texts: list[str] | None = None) -> Tally:
    """Broken and composed specs through load, compile and, for a part of them, build and run.

    Args:
        texts: the specs that are broken; absent: all of the repository, and specs composed at random.
    """
    rng, tally = random.Random(seed), Tally()
    kinds = ("text", "tree") if texts else ("text", "text", "tree", "tree", "composed", "blocks")
    texts = texts or mutations.corpus()
    trees = mutations.trees([t for t in texts if _is_yaml(t)])
    for _ in range(number):
        kind = rng.choice(kinds)
        if kind == "text":
            source: Any = mutations.broken_text(rng, texts)
        else:
            made = {"composed": mutations.composed, "blocks": mutations.of_blocks}
            source = made[kind](rng) if kind in made else mutations.broken_tree(rng, trees)
        wanted = rng.randrange(build) == 0
        tally.run(source, lambda source=source, wanted=wanted: _spec(source, rng, wanted))  # type: ignore[misc]
    return tally


def _is_yaml(text: str) -> bool:
    try:
        from_text(text)
    except bf.SpecError:
        return False
    return True


def _spec(source: Any, rng: random.Random, build: bool) -> str:
    spec = from_text(source) if isinstance(source, str) else bf.load(source)
    holes(spec)
    assert from_text(spec.to_yaml()).tree == spec.tree, "what is written is read back"
    arch = bf.compile(spec, ask=lambda hole: _answer(hole, rng))
    assert arch.params >= 0
    assert arch.activation_bytes > 0
    if not build or arch.params > SMALL or arch.activation_bytes > SMALL_BYTES or arch.macs > SMALL_MACS:
        return "compiled"
    model, size = bf.build(arch, seed=0).eval(), arch.plan.input
    with torch.inference_mode():
        y = model(torch.zeros(1, size.channels, *size.size))
    for name, output in by_name(y).items():
        assert output.shape[1] == arch.heads[name].last.out_shape.dim
    assert sum(p.numel() for p in model.parameters()) == arch.params
    return "built and run"


def _answer(hole: Hole, rng: random.Random) -> Any:
    return rng.choice(hole.labels) if hole.kind == "choice" else rng.choice((hole.low, hole.high))


LINES = [
    "build {spec} --seed {int} --set {set}", "check {spec} {path}", "show {spec} --set {set} --json",
    "diff {spec} {path}", "graph {spec} -o {path}", "graph {spec} --set {set}", "schema -o {path}", "zoo {path}",
    "ablate {path}", "convert {path} -o {path}", "convert {path} -o out.safetensors --family {path} --spec {path}",
    "space {path} --budget {budget} --draws {int} --seed {int}",
    "space tiny --sample {int} --budget {budget} --fit {float} -o {path}", "report {path} --study {path}",
    "worker --storage {path} --study {path} --lease {float}", "search {path} --budget {budget}",
    "search tiny --trials {int} --eta {int} --weights {path} --budget {budget} --out {path} --objective nosuch",
    "search --resume {path} --size {path} --sampler {path}", "build {spec} --weights {path}",
    "build {spec} -o {path}", "eval {spec} --data {path} --weights {path} --batch-size {int}",
    "train {spec} --data {path} --recipe {path} --epochs {int}", "eject {spec} -o {path} --set {set}",
    "export {spec} -o {path} --set {set}", "analyze rf {spec} --data {path} --images {int}",
    "analyze cam {spec} --image {path}", "bench compile {path} --runs {int}", "bench models --peer {path} {spec}",
    "profile {spec} --batch {int} --device {path}", "--plugin {path} zoo", "check {spec} --plugin {path}",
    "{path} {path}",
]  # fmt: skip
FIFO = "fifo.yaml"
PATHS = [
    "a" * 300, "a" * 300 + ".yaml", "./" + "a/" * 2500 + "x.yaml", "loop.yaml", "folder.yaml", "binary.yaml",
    "binary.pth", "x.npz", "nosuch.yaml", "nosuch", "-", "--", ".", "/", "..", "é\u202e", "\udcff", "/dev/null",
    "/dev/zero", FIFO, "timm:x", "x:y", "npz:x.npz", "imagefolder:folder.yaml", "imagefolder:nosuch", "hf:",
    "digits:", "sqlite:///", "sqlite:////nosuch/x", "postgresql://", "://", "*", "[", "a=b", "224", "0x0",
    "empty.yaml", "cuda:99", "none",
]  # fmt: skip
SETS = [
    "", "=", "a", "a=b", "=1", "stages=1", "stages.0=1", "stages.9.dim=1", "stages.0.dim=nan",
    "stages.0.dim=99999999999999999999", "x" * 400, "input.size=[1,2,3]", "input.size=-1", "name={$choice: [a, b]}",
    "extends=\0", "stages.0.layers=((", "let=[]", "head.op=\udcff", "about={1: 2, b: {c: [" + "[" * 80,
    "num_classes=1e9", "drop_path=.inf", "blocks.x=&a [*a]", "input.channels=0",
]  # fmt: skip
INTS = [
    "0", "-1", "1", "2", "9" * 30, "9" * 5000, "nan", "1e3", "", "0x10", "٣", "2147483648", "18446744073709551616",
]  # fmt: skip
FLOATS = [
    "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "x", "", "0.5",
]  # fmt: skip
BUDGETS = [
    "5MFLOPs", "", "x", "-1GFLOPs", "0params", "nanGFLOPs", "1e999MACs", "9" * 400 + "GFLOPs", "5GFLOPs,5GFLOPs", ",",
    "5", "GFLOPs",
]  # fmt: skip


def lines(number: int, seed: int) -> Tally:
    """Command lines with broken values, in a folder of broken files."""
    rng, tally, spec = random.Random(seed), Tally(), str(mutations.ROOT / "tests" / "specs" / "sam.yaml")
    values = {"path": PATHS, "set": SETS, "int": INTS, "float": FLOATS, "budget": BUDGETS}
    for _ in range(number):
        line = rng.choice(LINES)
        argv: list[str] = []
        for part in line.split():
            name = part.strip("{}") if part.startswith("{") else ""
            drawn = spec if name == "spec" and rng.random() < 0.8 else rng.choice(values.get(name, PATHS))
            if drawn == FIFO and argv[-1:] in (["-o"], ["--out"]):
                drawn = "out"  # a pipe waits for its reader, as it should
            argv.append(drawn if name else part)
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            _files(Path(folder))
            tally.run(argv, lambda argv=argv: _line(argv))  # type: ignore[misc]
    return tally


def _files(folder: Path) -> None:
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "folder.yaml").mkdir()
    for name in ("binary.yaml", "binary.pth", "x.npz"):
        (folder / name).write_bytes(bytes(range(256)))
    (folder / "empty.yaml").touch()
    os.mkfifo(folder / FIFO)


def _line(argv: list[str]) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line(argv)
    said = err.getvalue()
    if found := PYTHON.search(said):
        raise AssertionError(f"the message shows {found[0]}: {said}")
    if code not in (0, 1, 2) or (code and not (said.strip() or out.getvalue().strip())):
        raise AssertionError(f"exit {code} and says {said!r}")
    return f"exit {code}"


def files(number: int, seed: int) -> Tally:
    """Saved folders, their JSON, YAML or weights broken."""
    rng, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as scratch:
        whole, folder = Path(made) / "model", Path(scratch) / "model"
        bf.save_model(bf.build(mutations.ROOT / "tests" / "specs" / "sam.yaml", features_only=True), whole)
        for _ in range(number):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            name = rng.choice(("versions.json", "versions.json", "graph.json", "spec.yaml", "model.safetensors"))
            if name.endswith("json"):
                broken = mutations.broken_json(rng, (whole / name).read_text())
            elif name == "spec.yaml":
                broken = mutations.broken_text(rng, [(whole / name).read_text()]).encode("utf-8", "surrogatepass")
            else:
                broken = _broken_bytes(rng, (whole / name).read_bytes())
            (folder / name).write_bytes(broken)
            tally.run((name, broken[:2000]), lambda name=name: _folder(folder, name))  # type: ignore[misc]
    return tally


def _broken_bytes(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(min(len(changed), rng.choice((8, 400, len(changed)))))] = rng.randrange(256)
    return bytes(changed)


def _folder(folder: Path, name: str) -> str:
    if name == "graph.json":
        Architecture.from_json((folder / name).read_text(encoding="utf-8", errors="replace"))
    else:
        bf.load_model(folder)
    return "loaded"


def main() -> None:
    """Run what is asked for and print it as JSON; exit 1 if anything was raw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("specs", "composed", "lines", "files"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", type=int, default=5, help="build one in so many of the accepted small specs")
    given, raw = parser.parse_args(), 0
    torch.set_num_threads(1)
    for name, run in (
        ("specs", lambda n: specs(n, given.seed, given.build)),
        ("composed", lambda n: specs(n, given.seed, given.build, mutations.composed_corpus())),
        ("lines", lambda n: lines(n, given.seed)),
        ("files", lambda n: files(n, given.seed)),
    ):
        if not (number := getattr(given, name)):
            continue
        tally = run(number)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({name: number, "seed": given.seed, **tally.as_dict(), "peak memory, MB": peak}, indent=1))
        for why, example in tally.examples.items():
            print(f"--- {why}\n{example[-3000:]}", file=sys.stderr)
        raw += sum(tally.raw.values())
    sys.exit(bool(raw))


if __name__ == "__main__":
    main()
