"""Figures of docs/reliability.md, on any machine:

    python tests/search/reliability.py kills         random kill -9 of random workers
    python tests/search/reliability.py postgresql    many workers on one database; starts a server of its own
    python tests/search/reliability.py idle          what 64 workers ask of a database that have nothing to do
    python tests/search/reliability.py restart       that database restarted in the middle of searches
    python tests/search/reliability.py overhead      what a trial costs beside its evaluation

The objective is a figure of the compiled graph, so what is measured is the search itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from blockforge.search import SearchError, SearchResult, open_result, search
from blockforge.search.study.attributes import read_plan
from blockforge.search.study.config import LEASE
from blockforge.search.study.history import History
from blockforge.search.study.lease import Lease, Watch
from blockforge.search.study.pause import Pause
from blockforge.search.study.records import EVALUATED, TrialRecord
from blockforge.search.study.storage import join_study, opened
from blockforge.search.study.trials import recover

SPACE = "hybrid"
SMALL = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"
"""Ten holes: a database takes a row for each hole of each trial."""


def check(result: SearchResult, trials: int) -> dict[str, Any]:
    """What became of the trials; what must not be is counted."""
    done = [t for t in result.trials if t.state in EVALUATED]
    hashes = Counter(t.hash for t in done)
    retried = {t.retry_of for t in result.trials}
    lost = [t.number for t in result.trials if t.state == "interrupted" and t.number not in retried]
    return {
        **dict(sorted(result.counts.items())),
        "evaluated, wanted": [len(done), trials],
        "evaluated twice": sum(n - 1 for n in hashes.values()),
        "lost": len(lost) + result.counts["running"],
        "numbers missing": max(t.number for t in result.trials) + 1 - len(result.trials),
    }


def slowly(seconds: float) -> str:
    """The objective's text: the depth, after some seconds, as training would take them."""
    return f"{Path(__file__).stem}:Slow_{int(1000 * seconds)}"


def __getattr__(name: str) -> Any:
    if not name.startswith("Slow_"):
        raise AttributeError(name)
    seconds = int(name.removeprefix("Slow_")) / 1000

    def depth(arch: Any) -> float:
        time.sleep(seconds)
        return float(arch.depth)

    return depth


def kills(trials: int = 400, workers: int = 4, times: int = 50, seconds: float = 0.4) -> dict[str, Any]:
    """A search whose workers are killed one after another, at random moments."""
    rng, killed = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        over = threading.Event()

        def killer() -> None:
            while len(killed) < times and not over.wait(rng.uniform(0.2, 1.6)):
                if (pids := _at_work(Path(folder))) and _finished(Path(folder)) >= 6 * len(killed):
                    pid = rng.choice(pids)
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        thread = threading.Thread(target=killer)
        thread.start()
        started = time.monotonic()
        try:
            result = search(
                SPACE, trials=trials, workers=workers, out=folder, objective=slowly(seconds), sampler="random"
            )
        finally:
            over.set()
            thread.join()
        elapsed = time.monotonic() - started
        again = open_result(folder)
        assert [t.number for t in again.trials] == [t.number for t in result.trials]
        return {"kills": len(killed), **check(again, trials), "seconds": round(elapsed)}


def _at_work(folder: Path) -> list[int]:
    """Workers of this process that have joined the study."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    joined = {int(pid) for pid in re.findall(rb'"pid":(\d+)', _journal(folder))}
    return sorted(joined & {int(pid) for pid in children})


def _finished(folder: Path) -> int:
    return _journal(folder).count(b'"outcome"')


def _journal(folder: Path) -> bytes:
    journal = folder / "study.journal"
    return journal.read_bytes() if journal.exists() else b""


def postgresql(trials: int = 2000, workers: int = 8) -> dict[str, Any]:
    """Many workers at one database."""
    from postgres import server

    with server() as url, tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        result = search(
            SMALL, trials=trials, workers=workers, out=folder, storage=url, objective="depth", sampler="random"
        )
        elapsed = time.monotonic() - started
        return {**check(open_result(folder), trials), "seconds": round(elapsed), "stopped": result.stopped}


def idle(workers: int = 64, seconds: float = 30.0) -> dict[str, Any]:
    """Workers that have nothing to do, at one database: what they ask of it while one trial is under way.

    They are threads of one process with connections of their own: what a worker does that waits, and nothing else.
    """
    from postgres import server

    with server() as url, tempfile.TemporaryDirectory() as folder:
        search(SMALL, trials=200, out=folder, storage=url, study="s", objective="depth", sampler="random")
        over, asked = threading.Event(), Counter[str]()

        def wait() -> None:
            with opened(url) as storage:
                study = join_study(storage, "s")
                plan = read_plan(study.user_attrs)
                history, pause = History(study, plan.holes, plan.signs, len(plan.levels)), Pause()
                with Lease(study, LEASE) as lease:
                    watch, looked = Watch(study, LEASE, lease.steady), 0.0
                    while not over.is_set():
                        history.sync()
                        if time.monotonic() - looked > 2:
                            looked = time.monotonic()
                            recover(study, watch.dead)
                        asked["looks"] += 1
                        pause.wait()

        threads = [threading.Thread(target=wait) for _ in range(workers)]
        for thread in threads:
            thread.start()
        time.sleep(20)  # they have begun, and their waits have grown
        before, spent, looks = _transactions(url), _spent_by("postgres"), asked["looks"]
        time.sleep(seconds)
        after, used, more = _transactions(url), _spent_by("postgres"), asked["looks"]
        over.set()
        for thread in threads:
            thread.join()
        return {
            "workers": workers,
            "looks a second, all": round((more - looks) / seconds, 1),
            "transactions a second": round((after - before) / seconds, 1),
            "cores of the server": round((used - spent) / seconds, 3),
        }


def _transactions(url: str) -> int:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        query = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def _spent_by(command: str) -> float:
    """Processor seconds of all running processes of a name."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(") ")
        except OSError:
            continue
        if name.partition("(")[2] == command:
            total += sum(map(int, rest.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return total


def restart(searches: int = 6, trials: int = 40, workers: int = 2, seconds: float = 0.2) -> dict[str, Any]:
    """Searches whose PostgreSQL server is restarted three times in the middle: cut off, or asked to stop, by turns."""
    from postgres import running

    total: Counter[str] = Counter()
    with running() as server:
        for number in range(searches):
            mode = ("immediate", "fast")[number % 2]
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", _COMMAND, "search", str(SMALL), "--trials", str(trials)]
                command += [
                    "--workers",
                    str(workers),
                    "--storage",
                    server.url,
                    "--study",
                    f"s{number}",
                    "--out",
                    folder,
                ]
                command += ["--objective", f"{__file__}:{slowly(seconds).partition(':')[2]}", "--sampler", "random"]
                with open(Path(folder) / "printed", "wb") as printed:
                    process = subprocess.Popen(command, stdout=printed, stderr=printed)
                    total["restarts"] += _restart_in_the_middle(server, mode, process, f"s{number}", trials)
                    code = process.wait(timeout=600)
                found = check(open_result(server.url, f"s{number}"), trials)
                done, wanted = found["evaluated, wanted"]
                total["searches"] += 1
                total["survived"] += code == 0 and done >= wanted
                for key in ("lost", "evaluated twice", "numbers missing", "interrupted"):
                    total[key] += found.get(key, 0)
                if code:
                    print((Path(folder) / "printed").read_text(), file=sys.stderr)
    return dict(total)


def _restart_in_the_middle(server: Any, mode: str, process: Any, study: str, trials: int) -> int:
    """Stop the server and start it again after a second or two, each time that a quarter is done."""
    rng, done = random.Random(study), 0
    end = time.monotonic() + 600
    while done < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(rng.uniform(0.2, 0.6))
        try:
            ended = open_result(server.url, study).evaluated
        except SearchError:  # it has not begun
            continue
        if ended >= (done + 1) * trials // 4:
            server.stop(mode)
            time.sleep(rng.uniform(0.5, 2.5))
            server.start()
            done += 1
    return done


_COMMAND = "import sys; from blockforge.cli import main; sys.exit(main())"


class _Clock:
    """A reporter that notes when each trial ended."""

    def __init__(self) -> None:
        self.times = [time.process_time()]

    def start(self, target: int, earlier: list[TrialRecord], signs: Any = (1.0,)) -> None:
        self.times = [time.process_time()]

    def update(self, record: TrialRecord) -> None:
        self.times.append(time.process_time())

    def stop(self) -> None: ...


def overhead(trials: int = 2000, sampler: str = "tpe", space: str = SPACE) -> dict[str, Any]:
    """Milliseconds of processor time a trial with an objective that costs nothing, in bands of a hundred."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        result = search(space, trials=trials, out=folder, objective="params", sampler=sampler, progress=clock)
    each = [1000 * (b - a) for a, b in zip(clock.times, clock.times[1:], strict=False)]
    bands = {f"{i}": round(statistics.median(each[i : i + 100]), 1) for i in range(0, len(each) - 50, 100)}
    return {"sampler": sampler, "trials": len(result.trials), "median CPU ms by trial": bands}


def main() -> None:
    """Run one of them and print what it found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "postgresql", "idle", "restart", "overhead"])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--searches", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--space")
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    found = globals()[given.pop("what")](**given)
    spent = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (0, -1))
    print(json.dumps({**found, "CPU seconds": round(spent)}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
