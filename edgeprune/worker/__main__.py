"""The worker's command line: `python -m edgeprune.worker [--attached] JOB.json`, or the same as one zip file.

`--attached` ends the worker when its standard input closes. `--serve` is what the worker starts its own children with.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Do what the command line says, and exit."""
    if sys.version_info < (3, 9):  # noqa: UP036 (the board has what it has)
        sys.exit(f"python3 is too old: {sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}")
    arguments = sys.argv[1:]
    if arguments == ["--serve"]:
        from edgeprune.worker.serve import serve

        sys.exit(serve())
    attached = "--attached" in arguments
    jobs = [argument for argument in arguments if not argument.startswith("-")]
    if len(jobs) != 1:
        sys.exit("usage: python -m edgeprune.worker [--attached] JOB.json")
    from edgeprune.worker.conduct import conduct_file

    sys.exit(conduct_file(jobs[0], attached=attached))


if __name__ == "__main__":
    main()
