"""Run many schedules: `python tests/simulation/run.py --seeds 300 --from 0`. Prints the seed that fails."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="number of schedules")
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument("--trace", action="store_true", help="print one line a seed: its trace hash and figures")
    parser.add_argument("--omissions", action="store_true", help="with members that omit in every schedule")
    parser.add_argument("--members", type=int, help="fix the number of members (with --omissions)")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failing seed")
    arguments = parser.parse_args()
    # Imported late, so that --help needs neither the fast path nor the library.
    from simulator import run_seed, with_omissions

    import fastpath

    started = time.monotonic()
    failed: list[int] = []
    blocks = deliveries = virtual_us = 0
    for done, seed in enumerate(range(arguments.first, arguments.first + arguments.seeds), start=1):
        try:
            if arguments.omissions:
                changes = {"n": arguments.members, "dead": (), "slow_executor": None} if arguments.members else {}
                outcome = with_omissions(seed, **changes).run()
            else:
                outcome = run_seed(seed)
        except Exception:  # noqa: BLE001 - whatever a schedule raises, it has failed
            failed.append(seed)
            traceback.print_exc()
            print(f"seed {seed} failed; replay: python {Path(__file__).name} --seeds 1 --from {seed}", flush=True)
            if not arguments.keep_going:
                break
            continue
        blocks += outcome.blocks
        deliveries += outcome.deliveries
        virtual_us += outcome.virtual_us
        if arguments.trace:
            print(f"{seed} {outcome.trace} blocks={outcome.blocks} deliveries={outcome.deliveries}", flush=True)
        elif done % 25 == 0 or done == arguments.seeds:
            rate = done / (time.monotonic() - started)
            print(f"{done}/{arguments.seeds} schedules, {rate:.1f} schedules/s, {blocks} blocks", flush=True)
    print(
        f"fastpath {fastpath.BUILD}, PYTHONHASHSEED {os.environ.get('PYTHONHASHSEED', 'random')}: "
        f"{blocks} blocks, {deliveries} deliveries, {virtual_us / 1e6:.0f} s of virtual time, "
        f"{time.monotonic() - started:.1f} s; " + (f"failing seeds {failed}" if failed else "no violation")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
