"""Submit a training to SLURM with submitit, which starts it again after the time limit and after a preemption.

    python tools/submit.py --nodes 2 --gpus-per-node 8 --time 1440 --partition gpu -- train_net.py --config-file FILE
    python tools/submit.py --cluster local --tasks-per-node 2 -- train_net.py --config-file FILE --num-gpus 0

Each task is one process of the job, so leave --num-gpus out (0: on CPUs). Flags behind -- are those of the script. Some
minutes before the time limit the training saves a checkpoint, and the job is queued again and goes on from there.
--cluster local runs the tasks on this machine, without SLURM, and waits for them.
"""

import argparse
import os
import re
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PADing.command_line import CommandParser, count, positive, run_command
from PADing.errors import UserError
from PADing.files import PACKAGES, or_shipped
from PADing.requeue import requeue_status

MOST_TIMES = 100  # how often a job is started again after its time limit
PORTS = range(12_000, 32_000)  # below those that Linux gives to outgoing connections


class Training:
    """What submitit calls in each task of a job: a training script with its flags.

    When a notice has stopped the training, the first task asks submitit to checkpoint and requeue, with the signal that
    submitit waits for: while a training runs, signals are handled by ``PADing.engine.interruption``.
    """

    def __init__(self, words: Sequence[str]):
        self.words = list(words)

    def __call__(self) -> None:
        """Run the script; SystemExit with its status, if that is not 0."""
        # A job that SLURM has queued again by itself, after a preemption or the failure of a node.
        again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        _join_local_tasks()
        status = _run_script(resumed(self.words) if again else self.words)
        if status == requeue_status():
            from submitit import JobEnvironment

            # It does nothing in tasks other than the first, and does not return in that one.
            signal.raise_signal(JobEnvironment()._usr_sig())
        if status:
            sys.exit(status)

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """By submitit's protocol: what to run when the job starts again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Training(resumed(self.words)))


def resumed(words: Sequence[str]) -> list[str]:
    """A command that continues what ``words`` have begun."""
    script, *flags = words
    return [script, *(["--resume"] if "--resume" not in flags else []), *(f for f in flags if f != "--overwrite")]


def _run_script(words: Sequence[str]) -> int:
    sys.argv = list(words)
    try:
        runpy.run_path(or_shipped(words[0]), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _join_local_tasks() -> None:
    """On ``--cluster local``, set torchrun's variables; under SLURM, ``PADing.engine.slurm`` does so."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.cluster != "local" or job.num_tasks <= 1:
        return
    os.environ.update(
        RANK=str(job.global_rank), WORLD_SIZE=str(job.num_tasks), LOCAL_RANK=str(job.local_rank),
        LOCAL_WORLD_SIZE=str(job.num_tasks), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=os.environ.get("MASTER_PORT") or str(PORTS[int(job.job_id) % len(PORTS)]),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status. With ``--cluster local``: 1 if the job has failed."""
    parser = CommandParser(__doc__, prog=None if argv is None else "submit.py")
    parser.add_argument("--nodes", type=positive, default=1, metavar="N", help="machines of the job")
    parser.add_argument("--gpus-per-node", type=count, default=0, metavar="N", help="GPUs of each, one for a task")
    text = "processes on each (default: as many as GPUs, or 1)"
    parser.add_argument("--tasks-per-node", type=positive, metavar="N", help=text)
    parser.add_argument("--cpus-per-task", type=positive, metavar="N", help="for a process and its data loading")
    parser.add_argument("--time", type=positive, default=60, metavar="MINUTES", help="limit of one start")
    parser.add_argument("--partition", default="", metavar="NAME", help="queue of the cluster")
    parser.add_argument("--name", default="pading", help="of the job")
    text = "another option of sbatch, such as account=NAME or exclusive; may be given several times"
    parser.add_argument("--sbatch", action="append", default=[], metavar="KEY[=VALUE]", help=text)
    text = "seconds between the notice to save and the limit (--cluster local: 30)"
    parser.add_argument("--signal-seconds", type=positive, default=180, metavar="N", help=text)
    parser.add_argument("--logs", type=Path, default=Path("output/submitit"), metavar="FOLDER", help="on a shared disk")
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="local: this machine")
    parser.add_argument("script", metavar="-- SCRIPT", help="train_net.py or train_net_pretrain.py")
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="its flags and config overrides")
    return run_command(_submit, parser.parse_args(argv))


def _submit(args: argparse.Namespace) -> int:
    _check(args)
    try:
        import submitit
    except ImportError as error:
        raise UserError('submitit is not installed. Install it: pip install "pading[slurm]"') from error
    # The tasks load this module by its name, wherever they start.
    path = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONPATH"] = path
    times = {f"{args.cluster}_max_num_timeout": MOST_TIMES}
    try:
        executor = submitit.AutoExecutor(folder=args.logs / "%j", cluster=args.cluster, **times)
        executor.update_parameters(**_parameters(args))
        job = executor.submit(Training([args.script, *args.flags]))
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        raise UserError(f"The job cannot be submitted: {str(error).strip()}") from error
    print(f"Submitted job {job.job_id}. Logs: {job.paths.stdout.parent}", flush=True)
    if args.cluster == "slurm":
        print(f"Follow it: tail -f {job.paths.stdout}. Cancel it: scancel {job.job_id}", flush=True)
        return 0
    job.wait()
    failed = [task.paths.stderr for task in ([job] if job.num_tasks == 1 else job._sub_jobs) if task.exception()]
    for file in failed[:1]:
        raise UserError(f"The job has failed. Its messages are in {file}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """UserError for flags that do not fit, before the job waits in a queue for hours."""
    if Path(args.script).name in ("torchrun", "srun", "python", "python3"):
        cure = "Leave it out and name the script: each task is a process of the job."
        raise UserError(f"{args.script} does not go with submitit. {cure}")
    if not os.path.isfile(or_shipped(args.script)):
        raise UserError(f"There is no script {args.script}. Name one such as train_net.py behind --.")
    if args.cluster == "local" and args.nodes > 1:
        raise UserError(f"--nodes is {args.nodes}, but --cluster local is this machine alone.")
    if bad := [word for word in args.sbatch if not re.match(r"[a-z][a-z-]*(=|$)", word)]:
        raise UserError(f"--sbatch {bad[0]!r} is no KEY=VALUE. Write an option of sbatch without its dashes.")
    if Path(args.script).name in ("train_net.py", "train_net_pretrain.py"):
        _check_training(args)


def _check_training(args: argparse.Namespace) -> None:
    from PADing.commands.train import training_parser

    found = training_parser().parse_args(args.flags)
    tasks = args.tasks_per_node or args.gpus_per_node or 1
    if found.num_machines > 1 or found.num_gpus > 1 and found.num_gpus != tasks:
        cure = "Leave --num-gpus and --num-machines out: each task is one process."
        raise UserError(f"The job has {tasks} task(s) on each node, but the training asks for other processes. {cure}")
    if found.config_file and "://" not in found.config_file and not os.path.exists(or_shipped(found.config_file)):
        raise UserError(f"--config-file: {found.config_file} does not exist.")


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Parameters of submitit's executor."""
    found: dict[str, Any] = dict(
        name=args.name, nodes=args.nodes, tasks_per_node=args.tasks_per_node or args.gpus_per_node or 1,
        gpus_per_node=args.gpus_per_node, timeout_min=args.time,
    )  # fmt: skip
    if args.cluster == "local":
        return found  # its notice comes 30 seconds before the limit
    if args.cpus_per_task:
        found["cpus_per_task"] = args.cpus_per_task
    if args.partition:
        found["slurm_partition"] = args.partition
    parts = [word.partition("=") for word in args.sbatch]
    options = {key.replace("-", "_"): value if equals else True for key, equals, value in parts}
    return {
        **found, "slurm_signal_delay_s": args.signal_seconds, "slurm_additional_parameters": options,
        "slurm_setup": [f"export PYTHONPATH={os.environ['PYTHONPATH']}"],
    }  # fmt: skip
