"""The engine, on this process and on a real cluster of two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine import tasks

from wastelens.engine import dask_cluster
from wastelens.engine.dask_cluster import DaskEngine
from wastelens.engine.engine import opened
from wastelens.engine.task import Engine, Task, TaskInterrupted, WorkerLost
from wastelens.errors import EngineError


def results(engine: Engine) -> dict[str, object]:
    return {done.task.key: done.result if done.error is None else done.error for done in engine.finished()}


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Engine]:
    with opened("processes:2", retries=1) as engine:
        yield engine


@pytest.fixture
def cluster(shared_cluster: Engine) -> Engine:
    """The cluster, with both processes, also after one was killed."""
    deadline = time.monotonic() + 300
    while len(shared_cluster.send(os.getpid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    return shared_cluster


class TestLocal:
    def test_runs_tasks_in_order_and_those_started_meanwhile(self) -> None:
        order = []
        with opened("local", retries=0) as engine:
            engine.start(Task("a", abs, (-1,)))
            engine.start(Task("b", abs, (-2,)))
            for done in engine.finished():
                order.append((done.task.key, done.result))
                if done.task.key == "a":
                    engine.start(Task("c", abs, (-3,)))
        assert order == [("a", 1), ("b", 2), ("c", 3)]

    def test_an_error_is_the_tasks_and_ends_nothing_else(self) -> None:
        with opened("local", retries=0) as engine:
            engine.start(Task("bad", tasks.fails, ("no",)))
            engine.start(Task("good", abs, (-2,)))
            found = results(engine)
        assert str(found["bad"]) == "no"
        assert found["good"] == 2

    def test_loads_no_dask(self) -> None:
        code = (
            "import sys\n"
            "from wastelens.engine.engine import opened\n"
            "with opened('local', retries=0) as engine: list(engine.finished())\n"
            "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestProcesses:
    def test_tasks_run_in_two_processes(self, cluster: Engine) -> None:
        assert cluster.workers() == 2
        for number in range(4):
            cluster.start(Task(f"pid {number}", tasks.process_id_after, (0.5,)))
        processes = set(results(cluster).values())
        assert len(processes) == 2
        assert os.getpid() not in processes

    def test_the_cores_are_divided(self, cluster: Engine) -> None:
        cluster.start(Task("threads", tasks.variable, ("TF_NUM_INTRAOP_THREADS",)))
        cores = len(os.sched_getaffinity(0))
        assert results(cluster) == {"threads": str(max(cores // 2, 1))}

    def test_an_error_is_the_tasks(self, cluster: Engine) -> None:
        cluster.start(Task("bad", tasks.fails, ("no",)))
        error = results(cluster)["bad"]
        assert isinstance(error, EngineError)
        assert str(error) == "no"

    def test_a_task_whose_worker_is_killed_runs_again(self, cluster: Engine, tmp_path: Path) -> None:
        cluster.start(Task("killed once", tasks.kills_its_process, (tmp_path, 1)))
        assert results(cluster) == {"killed once": 2}

    def test_a_task_that_kills_every_worker_is_given_up(self, cluster: Engine, tmp_path: Path) -> None:
        cluster.start(Task("killer", tasks.kills_its_process, (tmp_path, 9)))
        error = results(cluster)["killer"]
        assert isinstance(error, WorkerLost)
        assert str(error).startswith("2 workers died while running it")

    def test_the_same_key_is_one_task(self, cluster: Engine, tmp_path: Path) -> None:
        for _ in range(2):
            cluster.start(Task("once", tasks.count_up, (tmp_path / "count",)))
        assert results(cluster) == {"once": 1}
        assert not cluster.is_known("once")

    def test_a_function_can_be_called_on_every_worker(self, cluster: Engine) -> None:
        deadline = time.monotonic() + 30
        while len(processes := set(cluster.send(os.getpid).values())) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)  # a worker that was killed is being replaced
        assert len(processes) == 2

    def test_an_interrupted_task_ends_and_its_worker_goes_on(self, cluster: Engine, tmp_path: Path) -> None:
        assert isinstance(cluster, DaskEngine)
        cluster.start(Task("long", tasks.works_until_interrupted, (60.0, tmp_path)))
        while not (tmp_path / "started").exists():
            time.sleep(0.1)
        cluster.interrupt({"long"})
        assert isinstance(results(cluster)["long"], TaskInterrupted)
        cluster.start(Task("next", abs, (-1,)))
        assert results(cluster) == {"next": 1}


def test_processes_end_with_the_block_that_fails() -> None:
    with pytest.raises(RuntimeError), opened("processes:1", retries=0) as engine:  # noqa: PT012  both are needed
        engine.start(Task("pid", os.getpid, ()))
        [process] = results(engine).values()
        raise RuntimeError
    assert isinstance(process, int)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


OURS = {"wastelens": "a1b2", "tensorflow": "there"}


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        (OURS, ""),
        ({"tensorflow": "there"}, "has no Wastelens. Install it there"),
        ({**OURS, "wastelens": "c3d4"}, "has another version of Wastelens."),
        ({"wastelens": "a1b2"}, "has no TensorFlow. Install it there"),
        (OSError("broken pipe"), "cannot be used: broken pipe. Restart it."),
    ],
)
def test_workers_that_cannot_run_tasks_are_refused(theirs: object, problem: str) -> None:
    assert dask_cluster._unlike(theirs, OURS).startswith(problem)
    assert bool(dask_cluster._unlike(theirs, OURS)) == bool(problem)


def test_code_is_recognised_by_its_content() -> None:
    ours = dask_cluster._code_probe()()
    assert ours["tensorflow"] == "there"
    assert len(ours["wastelens"]) == 16


class TestScheduler:
    def test_no_scheduler_at_the_address(self) -> None:
        refused = pytest.raises(EngineError, match=r"No scheduler answers at tcp://127\.0\.0\.1:9 ")
        with refused, opened("tcp://127.0.0.1:9", retries=0):
            pass

    @pytest.fixture
    def address(self, tmp_path: Path) -> Iterator[str]:
        file = tmp_path / "scheduler.json"
        with running(scheduler(file)):
            yield scheduler_address(file)

    def test_a_task_outlives_its_coordinator(self, address: str, tmp_path: Path) -> None:
        with running(worker(address, tmp_path)):
            coordinator = subprocess.Popen([sys.executable, "-m", "tests.engine.tasks", address, str(tmp_path)])
            while not (tmp_path / "started").exists():
                assert coordinator.poll() is None
                time.sleep(0.1)
            coordinator.send_signal(signal.SIGKILL)
            coordinator.wait()
            with opened(address, retries=0) as engine:
                assert engine.is_known("slow")
                engine.start(Task("slow", tasks.fails, ("it is not called",)))
                assert results(engine) == {"slow": 1}

    def test_the_scheduler_is_gone(self, tmp_path: Path) -> None:
        file = tmp_path / "scheduler.json"
        with running(scheduler(file)) as process, running(worker(scheduler_address(file), tmp_path)):
            lost = pytest.raises(EngineError, match="connection to the scheduler was lost")
            with lost, opened(scheduler_address(file), retries=0) as engine:
                engine.start(Task("slow", tasks.slow, (tmp_path,)))
                while not (tmp_path / "started").exists():
                    time.sleep(0.1)
                process.kill()
                results_or_error(engine)

    def test_a_client_that_has_given_up_says_so(self, cluster: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        assert isinstance(cluster, DaskEngine)
        monkeypatch.setattr(cluster._client, "scheduler_info", lambda n_workers: {})
        with pytest.raises(EngineError, match="connection to the scheduler was lost"):
            cluster.workers()

    def test_a_failed_task_that_is_joined_is_run_again(self, address: str, tmp_path: Path) -> None:
        with running(worker(address, tmp_path)):
            with opened(address, retries=0) as engine:
                engine.start(Task("count", tasks.fails_once, (tmp_path,)))
                while not (tmp_path / "failed").exists():
                    time.sleep(0.1)
                # Its coordinator ends without having asked for the result.
            with opened(address, retries=0) as engine:
                assert engine.is_known("count")
                engine.start(Task("count", tasks.fails_once, (tmp_path,)))
                assert results(engine) == {"count": "second time"}

    def test_a_worker_with_several_threads_is_refused(self, address: str, tmp_path: Path) -> None:
        refused = pytest.raises(EngineError, match=r"has 2 threads.*Start it with --nthreads 1")
        with running([*worker(address, tmp_path)[:-2], "--nthreads", "2"]), refused, opened(address, retries=0):
            pass


def results_or_error(engine: Engine) -> None:
    for done in engine.finished():
        if done.error is not None:
            raise done.error


def scheduler(file: Path) -> list[str]:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    return [*command, "--no-dashboard", "--scheduler-file", str(file)]


def worker(address: str, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
    return [*command, "--local-directory", str(folder), "--nthreads", "1"]


class running:  # noqa: N801  used like a function
    """A process that ends with the block."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def scheduler_address(file: Path) -> str:
    import json

    for _ in range(300):
        if file.exists() and file.read_text():
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.1)
    raise TimeoutError


def test_what_is_sent_does_not_hold_up_a_workers_event_loop(cluster: Engine) -> None:
    assert set(cluster.send(tasks.has_event_loop).values()) == {False}
    assert [str(answer) for answer in cluster.send(tasks.fails, "no").values()] == ["no", "no"]


def test_processes_do_not_follow_the_users_configuration_of_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION", "true")
    with dask.config.set({"distributed.comm.require-encryption": True}):
        with opened("processes:1", retries=0) as engine:
            engine.start(Task("a", abs, (-1,)))
            assert results(engine) == {"a": 1}
        assert dask.config.get("distributed.comm.require-encryption") is True
