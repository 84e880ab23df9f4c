"""A campaign on a Dask cluster of processes: the same results as at home, whichever of its workers die."""

import os
import signal
from dataclasses import replace

import pytest
from distributed import LocalCluster

from chimney.sim import cluster
from chimney.sim.campaign import CampaignError, campaign
from chimney.sim.cluster import Cluster
from tests.sim.campaign_fakes import PLAN


@pytest.fixture(scope="module")
def address():
    """Of the scheduler of two workers, each a process with one thread."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as made:
        yield made.scheduler_address


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
        for figures in campaign(plan, range(300), crew):
            if not seen:
                os.kill(victim, signal.SIGKILL)
            seen.append(figures.runs)
    assert seen[0] < 300 and figures.runs == figures.parts == 300
    assert [(failure.index, failure.kind) for failure in figures.failures] == [(299, "killed")]


def test_it_needs_a_scheduler_and_the_same_sources(address, monkeypatch):
    with pytest.raises(CampaignError, match="no scheduler at tcp://127.0.0.1:1:"):
        Cluster("tcp://127.0.0.1:1", patience_s=0.2)
    monkeypatch.setattr(cluster, "digest", lambda: "others")
    with Cluster(address) as crew, pytest.raises(CampaignError, match="other sources"):
        list(campaign(PLAN, range(10), crew))


def test_it_needs_workers():
    with LocalCluster(n_workers=0, dashboard_address=":0") as made:
        with pytest.raises(CampaignError, match="has no workers"):
            Cluster(made.scheduler_address, patience_s=0.2)
