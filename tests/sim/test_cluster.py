"""A campaign on a Dask cluster of processes: the same results as at home, whichever of its workers die."""

import os
import signal
from dataclasses import replace

import pytest
from distributed import Client, LocalCluster

from chimney.sim import cluster
from chimney.sim.campaign import CampaignError, campaign
from chimney.sim.cluster import Cluster
from tests.sim.campaign_fakes import PLAN, digest

# A cluster is a handful of processes that start, and one starts again, on a machine that may have other things to do.
pytestmark = pytest.mark.timeout(600)

real_digest = cluster.digest


@pytest.fixture(scope="module")
def address():
    """Of the scheduler of two workers, each a process with one thread."""
    options = {"processes": True, "dashboard_address": ":0", "preload": ["tests.sim.campaign_fakes"]}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as made:
        yield made.scheduler_address


@pytest.fixture(autouse=True)
def same_sources(monkeypatch):
    monkeypatch.setattr(cluster, "digest", digest)


def test_a_campaign_on_a_cluster(address):
    with Cluster(address) as crew:
        assert crew.slots() == 2
        *_, figures = campaign(PLAN, range(500), crew)
    assert figures.runs == figures.parts == 500 and figures.failures == []


def test_a_worker_that_dies_costs_no_result(address):
    with Cluster(address) as crew:
        victim = next(iter(crew._client.run(os.getpid).values()))
        plan = replace(PLAN, seed=1, draw="tests.sim.campaign_fakes:draw_work")
        seen = []
        for figures in campaign(plan, range(60), crew):
            if not seen:
                os.kill(victim, signal.SIGKILL)
            seen.append(figures.runs)
    assert seen[0] < 60 and figures.runs == figures.parts == 60
    assert [(failure.index, failure.kind) for failure in figures.failures] == [(59, "killed")]


def test_it_needs_a_scheduler_and_the_same_sources(address, monkeypatch):
    with pytest.raises(CampaignError, match="no scheduler at tcp://127.0.0.1:1:"):
        Cluster("tcp://127.0.0.1:1", patience_s=0.2)
    monkeypatch.setattr(cluster, "digest", lambda: "others")
    with Cluster(address) as crew, pytest.raises(CampaignError, match="other sources"):
        list(campaign(PLAN, range(10), crew))


def test_sources_are_the_same_if_all_their_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PACKAGE", tmp_path)
    digests = []
    for name, text in (("a.py", "x"), ("a.py", "y"), ("a.pxd", "y"), ("a.txt", "y"), ("a.py", "x")):
        (tmp_path / name).write_text(text)
        digests.append(real_digest.__wrapped__())
    assert digests[3] == digests[2] and len(set(digests)) == 4


def test_it_needs_workers(monkeypatch):
    # It is to be impatient with workers, not with the scheduler.
    monkeypatch.setattr(cluster, "Client", lambda address, timeout, **options: Client(address, **options))
    with LocalCluster(n_workers=0, dashboard_address=":0") as made:
        with pytest.raises(CampaignError, match="has no workers"):
            Cluster(made.scheduler_address, patience_s=0.2)
