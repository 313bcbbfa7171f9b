"""A SLURM of two nodes in namespaces of its own: networks, processes, mounts, host names. Nothing outside sees it.

All its files are in one temporary folder; its processes end when the first one is killed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "scancel", "unshare", "nsenter", "ip")
REPOSITORY = Path(__file__).resolve().parents[2]
# Addresses for tests of networks (RFC 2544), which exist inside of the namespace only.
NODES = {"node1": "198.18.0.1", "node2": "198.18.0.2"}

CONFIG = """\
ClusterName=test
SlurmctldHost=node1(198.18.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_min_interval=1000000
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
InactiveLimit=0
NodeName=node1 NodeHostname=node1 NodeAddr=198.18.0.1 Port=16821 CPUs=64 RealMemory=100000 Gres=gpu:8 State=UNKNOWN
NodeName=node2 NodeHostname=node2 NodeAddr=198.18.0.2 Port=16822 CPUs=64 RealMemory=100000 Gres=gpu:8 State=UNKNOWN
PartitionName=low Nodes=node[1-2] Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=grace Nodes=node[1-2] PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP
PartitionName=high Nodes=node[1-2] PriorityTier=10 MaxTime=INFINITE State=UP
"""
START = """\
set -e
cd {folder}
mkfifo linked
unshare --net --uts bash node2.sh &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link add eth1 type veth peer name eth2
ip link set eth2 netns $!
ip link set lo up
ip addr add {first}/24 dev eth1
ip link set eth1 up
echo > linked
hostname node1
mount --bind hosts /etc/hosts
for i in 0 1 2 3 4 5 6 7; do mknod gpu$i c 1 3; done
munged --force --key-file=$PWD/munge.key --socket=$PWD/munge.sock --pid-file=$PWD/munged.pid \\
    --log-file=$PWD/munged.log --seed-file=$PWD/munged.seed
export SLURM_CONF=$PWD/slurm.conf
slurmctld
slurmd -N node1
touch ready
exec sleep infinity
"""
START_SECOND = """\
set -e
cd {folder}
read < linked
ip link set lo up
ip addr add {second}/24 dev eth2
ip link set eth2 up
hostname node2
export SLURM_CONF=$PWD/slurm.conf
until [ -e munge.sock ]; do sleep 0.1; done
slurmd -N node2
exec sleep infinity
"""


def why_not() -> str:
    """What is missing here for a SLURM of one's own; "" if nothing is."""
    if sys.platform != "linux" or os.geteuid():
        return "needs Linux and root, for namespaces"
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        packages = "slurmctld slurmd slurm-client munge util-linux iproute2"
        return f"{', '.join(missing)} not installed (Debian: apt-get install --no-install-recommends {packages})"
    if subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "true"], capture_output=True
    ).returncode:
        return "this machine does not let root make namespaces"
    return ""


class Cluster:
    """Nodes ``node1`` and ``node2``; partitions ``low`` and ``grace`` (60 s), which ``high`` preempts."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm."))  # short: paths of sockets have 107 characters at most
        for name, content in {
            "slurm.conf": CONFIG.format(folder=self.folder),
            "gres.conf": f"Name=gpu File={self.folder}/gpu[0-7]\n",
            "start.sh": START.format(folder=self.folder, first=NODES["node1"]),
            "node2.sh": START_SECOND.format(folder=self.folder, second=NODES["node2"]),
            "hosts": "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in NODES.items()),
        }.items():
            (self.folder / name).write_text(content)
        (self.folder / "state").mkdir()
        key = os.open(self.folder / "munge.key", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(key, os.urandom(1024))
        os.close(key)
        spaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with open(self.folder / "start.log", "wb") as log:
            self._process = subprocess.Popen(["unshare", *spaces, "bash", str(self.folder / "start.sh")],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
        self._inside = ""

    def __enter__(self) -> "Cluster":
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        self._until(lambda: (self.folder / "ready").exists(), 30, "start")
        unshare = self._process.pid
        self._inside = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0]
        self._until(
            lambda: self.run("sinfo", "-h", "-t", "idle", "-p", "low", "-o", "%D").strip() == "2", 60, "be idle"
        )

    def __exit__(self, *_) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        time.sleep(0.5)  # until the kernel has ended the processes inside
        shutil.rmtree(self.folder, ignore_errors=True)

    def _until(self, holds, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self._process.poll() is None and time.monotonic() < end, f"it does not {what}:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of all logs."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def command(self, *words: str) -> list[str]:
        """The command line that runs ``words`` on node1, in the repository."""
        spaces = ["--net", "--mount", "--uts", "--pid"]
        return ["nsenter", "--target", self._inside, *spaces, f"--wd={REPOSITORY}", *map(str, words)]

    def environment(self, **further: str) -> dict[str, str]:
        """The environment of its commands; without variables that would say where processes meet."""
        left_out = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        own = {k: v for k, v in os.environ.items() if k not in left_out and not k.startswith("SLURM_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
        return {**own, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf"), "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(REPOSITORY), **further}  # fmt: skip

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        """Start a command such as ``srun``; its output is one stream of text."""
        return subprocess.Popen(
            self.command(*words), env=self.environment(**variables), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, timeout: float = 60, status: int = 0, **variables: str) -> str:
        """Run a command to its end; returns its output."""
        process = self.start(*words, **variables)
        try:
            output = process.communicate(timeout=timeout)[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == status, f"{words} ended with {process.returncode}:\n{output}\n{self.logs()}"
        return output

    def show(self, job: str) -> dict[str, str]:
        """What ``scontrol show job`` says, by field."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, *states: str, seconds: float = 120) -> dict[str, str]:
        """Wait until a job is in one of the states; returns its fields."""
        end = time.monotonic() + seconds
        while (found := self.show(job))["JobState"] not in states:
            assert time.monotonic() < end, f"job {job} is {found['JobState']}, not {states}\n{self.logs()}"
            time.sleep(0.3)
        return found
