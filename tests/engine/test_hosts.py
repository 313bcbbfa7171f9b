"""SLURM's compressed lists of nodes: with a wrong first host, all processes wait for 15 minutes and fail."""

import subprocess

import pytest

from PADing.engine import hosts
from PADing.engine.hosts import expand_hosts, first_host
from PADing.errors import UserError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("node7", "node7"),
        ("gpu[01-03,07]", "gpu01 gpu02 gpu03 gpu07"),
        ("gpu[01-03,07],login1", "gpu01 gpu02 gpu03 gpu07 login1"),
        ("rack[1-2]n[09-10]-ib", "rack1n09-ib rack1n10-ib rack2n09-ib rack2n10-ib"),
        ("a[1],b[2-2].cluster.org", "a1 b2.cluster.org"),
        ("c[098-101]", "c098 c099 c100 c101"),
        ("[1-2]", "1 2"),
    ],
)
def test_lists_are_expanded_in_their_order(text, wanted):
    assert expand_hosts(text) == wanted.split()


@pytest.mark.parametrize("text", ["", ",", "a,,b", "a,", "gpu[1-3", "gpu1]", "gpu[a-b]", "gpu[]", "gpu[1-]", "x[[1]]"])
def test_other_forms_are_refused(text):
    with pytest.raises(ValueError):
        expand_hosts(text)


def test_a_list_without_end_is_refused():
    with pytest.raises(ValueError, match="more than"):
        expand_hosts("n[1-999999999]")


class Scontrol:
    """Stands for the command; ``answers``: by its words."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, command, **_):
        self.asked.append(command[2])
        if command[2] not in self.answers:
            raise FileNotFoundError(2, "No such file", "scontrol")
        return subprocess.CompletedProcess(command, 0, self.answers[command[2]], "")


@pytest.fixture
def world(monkeypatch):
    def make(known, **answers):
        scontrol = Scontrol(**answers)
        monkeypatch.setattr(hosts.subprocess, "run", scontrol)
        monkeypatch.setattr(hosts, "addresses_of", lambda host: [(2, host)] * (host in known))
        return scontrol

    return make


def test_a_name_that_resolves_needs_no_scontrol(world):
    scontrol = world({"gpu01"})
    assert first_host("gpu[01-03]") == "gpu01" and not scontrol.asked


def test_scontrol_knows_addresses_of_nodes_without_a_name(world):
    world({"10.0.0.3"}, node="NodeName=cloud1 Arch=x86_64 \n   NodeAddr=10.0.0.3 NodeHostName=x Port=6818")
    assert first_host("cloud[1-2]") == "10.0.0.3"


def test_scontrol_expands_what_this_code_does_not(world):
    scontrol = world({"odd1"}, hostnames="odd1\nodd2\n")
    assert first_host("odd[1-2") == "odd1" and scontrol.asked == ["hostnames"]


@pytest.mark.parametrize(("text", "said"), [("gpu[1-2]", "cannot resolve 'gpu1'"), ("odd[", "'odd\\['"), ("", "''")])
def test_without_scontrol_the_message_says_what_to_set(world, text, said):
    world(set())
    with pytest.raises(UserError, match=f"{said}.*Set MASTER_ADDR to an address of that node"):
        first_host(text)
