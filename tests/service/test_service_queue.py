"""The service's queue and its worker: order, cancelling, crashes, the end. The worker is a fake one."""

import asyncio
import contextlib
import io
import os
import re
import signal
import threading
import time
from collections import Counter
from functools import partial

import httpx
import psutil
import pytest

from helpers.serving import Later, Service, children, form, head, until, wish
from maximir.service.jobs import Job
from maximir.service.keeper import pause_after
from maximir.service.metrics import Metrics
from maximir.service.pace import Pace
from maximir.service.queue import Queue
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings

QUEUE = 3


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("queue"), queue=QUEUE) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """One that gives images two seconds."""
    with Service(tmp_path_factory.mktemp("hasty"), queue=QUEUE, timeout=2.0, grace=1.0) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    for name in {"service", "hasty"} & set(request.fixturenames):
        running = request.getfixturevalue(name)
        running.release(*running.held)
        until(running.idle)
        until(lambda running=running: not running.metric("maximir_clients_awaited"))  # else places are kept


def computing(service, name):
    """Wait until the worker has begun it."""
    until(lambda: f"computing {name}" in service.worker_log())


def test_a_full_queue_is_said_before_the_upload(service):
    jobs = [service.later(wish(hold=service.hold("full"), name=f"full-{n}")) for n in range(QUEUE)]
    until(lambda: service.metric("maximir_places_taken") == QUEUE)
    with service.raw() as connection:  # it would be a megabyte, of which nothing is sent
        start = time.monotonic()
        connection.sendall(head(1_000_000))
        answer = connection.recv(65536)
        assert time.monotonic() - start < 1
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert 1 <= int(re.search(rb"retry-after: (\d+)", answer)[1]) <= 10
    start = time.monotonic()
    assert service.health().status_code == 200
    assert time.monotonic() - start < 1
    service.release("full")
    assert [job.result().status_code for job in jobs] == [200] * QUEUE


def test_what_a_client_is_told_to_wait_follows_from_the_work(service):
    """Half of the queue is done by then."""
    service.restore(wish(sleep=0.6, name="measure"))
    jobs = [service.later(wish(sleep=1.8, hold=service.hold("measured"), name="long"))]
    computing(service, "long")  # a short one that came first would keep it waiting
    jobs += [service.later(wish(hold=service.hold("measured"), name="short")) for _ in range(QUEUE - 1)]
    until(lambda: service.metric("maximir_places_taken") == QUEUE)
    time.sleep(0.5)
    assert 2 <= int(service.restore(wish()).headers["retry-after"]) <= 6
    service.release("measured")
    for job in jobs:
        job.result()


def test_progress(service):
    ids = [f"progress-{n}" for n in range(QUEUE)]
    jobs = []
    for id in ids:
        slow = 0 if jobs else 1.5
        jobs.append(service.later(wish(sleep=slow, steps=60, hold=service.hold("progress"), name=id), id=id))
        until(lambda id=id: service.progress(id).status_code == 200)
    first, _, last = (service.progress(id).json() for id in ids)
    assert first["state"] == "working" and first["ahead"] == 0
    assert last["state"] == "waiting" and last["ahead"] == 2 and last["fraction"] == 0
    clashing = service.restore(wish(), id=ids[2])
    assert clashing.status_code in (422, 429)
    seen = []
    while not seen or seen[-1]["fraction"] < 0.95:
        seen.append(service.progress(ids[0]).json())
        time.sleep(0.05)
    service.release("progress")
    assert {now["state"] for now in seen} == {"working"}
    assert [now["fraction"] for now in seen] == sorted(now["fraction"] for now in seen)
    assert any(0.2 < now["fraction"] < 0.9 and 0 < now["seconds_left"] < 20 for now in seen)
    assert all(job.result().status_code == 200 for job in jobs)
    for id in ids:
        assert service.progress(id).json() == {"state": "done", "ahead": 0, "fraction": 1, "seconds_left": 0}
    assert service.restore(wish(do="fail"), id=ids[0]).status_code == 422  # the id is free again
    assert service.progress(ids[0]).json()["state"] == "failed"
    assert service.progress("somebody-else").status_code == 404


def test_an_id_in_use_is_refused(service):
    job = service.later(wish(hold=service.hold("twice")), id="twice-the-same")
    until(lambda: service.progress("twice-the-same").status_code == 200)
    assert service.restore(wish(), id="twice-the-same").status_code == 422
    service.release("twice")
    assert job.result().status_code == 200


def test_every_client_gets_its_own_image(tmp_path):
    """More clients than places: each tries until it is served, and none gets what is another's."""
    with Service(tmp_path, queue=4) as service:
        wrong, refused, lock = [], [], threading.Lock()

        def client(number):
            for turn in range(4):
                image = wish(name=f"{number}-{turn}", sleep=0.005) + os.urandom(50_000)
                while (answer := service.restore(image)).status_code == 429:
                    with lock:
                        refused.append(answer)
                    time.sleep(0.05)
                if answer.content != image[::-1]:
                    wrong.append(answer)

        clients = [Later(lambda number=number: client(number)) for number in range(12)]
        for one in clients:
            one.result()
        assert not wrong
        assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        until(service.idle)
        assert service.metric("maximir_jobs_total") == 48


# Clients that go away.


def test_a_client_that_leaves_while_computing_stops_it(service):
    stopped = len([line for line in service.worker_log() if line.startswith("cancel")])
    connection = service.begin(wish(sleep=60, steps=2000, name="left-computing") + bytes(2_000_000))
    computing(service, "left-computing")
    connection.close()
    until(lambda: len([line for line in service.worker_log() if line.startswith("cancel")]) > stopped)
    start = time.monotonic()
    assert service.restore(wish()).status_code == 200
    assert time.monotonic() - start < 30  # it obeyed


def test_a_client_that_leaves_while_waiting_is_dropped(service):
    jobs = [service.later(wish(hold=service.hold("leaving"), name=f"before-{n}")) for n in range(2)]
    until(lambda: service.metric("maximir_places_taken") == 2)
    with service.begin(wish(name="left-waiting") + bytes(2_000_000)):
        until(lambda: service.metric("maximir_places_taken") == 3)
    until(lambda: service.metric("maximir_places_taken") == 2)
    service.release("leaving")
    assert all(job.result().status_code == 200 for job in jobs)
    assert service.restore(wish()).status_code == 200
    assert "computing left-waiting" not in service.worker_log()


def test_a_client_that_leaves_while_uploading_leaves_nothing(service):
    for size in (0, 100, 3_000_000):  # the last one is in a file already
        with service.raw() as connection:
            connection.sendall(head(5_000_000))
            body, _ = form(("image", "a", bytes(size)))
            connection.sendall(body[:-8])
            until(lambda: service.metric("maximir_places_taken") == 1)
            if size > 1_000_000:
                until(service.files)
        until(service.idle)


def test_a_client_that_leaves_while_downloading_leaves_nothing(service):
    with service.begin(wish(large=20_000_000)) as connection:
        connection.recv(1000)
        until(lambda: service.metric("maximir_results_leaving") == 1)
        assert service.files()
    until(service.idle)


def test_a_full_disk_is_said(tmp_path):
    with Service(tmp_path, largest_file=2_000_000) as service:
        answer = service.restore(wish() + bytes(3_000_000))
        assert answer.status_code == 503 and "upload could not be stored" in answer.json()["error"]
        answer = service.restore(wish(large=3_000_000))
        assert answer.status_code == 503 and "result could not be stored" in answer.json()["error"]
        for more in range(0, 8000, 1000):  # a last piece that is only written when the file is complete
            answer = service.restore(wish(large=2_000_000 + more))
            assert answer.status_code == 503 and "result could not be stored" in answer.json()["error"]
        assert service.restore(wish()).status_code == 200
        assert service.metric("maximir_worker_starts_total") == 1
        until(service.idle)


# A worker that dies, hangs, or talks nonsense.


@contextlib.contextmanager
def restarts(service, expected):
    """The worker is started so many times more meanwhile."""
    before = service.metric("maximir_worker_starts_total")
    yield
    until(lambda: service.metric("maximir_worker_up") == 1)
    assert service.metric("maximir_worker_starts_total") - before == expected


def test_a_killed_worker_fails_its_request_only(service):
    with restarts(service, 1):
        job = service.later(wish(sleep=10, name="killed"))
        computing(service, "killed")
        service.worker.kill()
        answer = job.result()
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert service.restore(wish()).status_code == 200


def test_those_that_wait_behind_an_image_at_which_the_worker_crashes_stay_in_line(service):
    with restarts(service, 1):
        first = service.later(wish(hold=service.hold("in line"), name="first"))
        computing(service, "first")
        poison = service.later(wish(do="crash", name="poison"))
        until(lambda: service.metric("maximir_places_taken") == 2)
        last = service.later(wish(name="last"))
        until(lambda: service.metric("maximir_places_taken") == 3)
        service.release("in line")
        answers = [job.result().status_code for job in (first, poison, last)]
    assert answers == [200, 503, 200]
    assert service.worker_log().count("computing poison") == 1


def test_an_image_at_which_the_worker_crashes_takes_no_other_down(service):
    """Nobody knows which of the two it was: each is tried again, alone."""
    starts = service.metric("maximir_worker_starts_total")
    with restarts(service, 2):
        good = service.later(wish(hold=service.hold("beside"), name="beside"))
        computing(service, "beside")
        poison = service.later(wish(do="crash early"))
        until(lambda: service.metric("maximir_worker_starts_total") == starts + 1)
        service.release("beside")
        assert good.result().status_code == 200
        assert poison.result().status_code == 503
    assert service.worker_log().count("computing beside") == 2


@pytest.mark.slow
def test_a_silent_worker_is_replaced(hasty):
    """It has not even begun: nobody is to blame."""
    with restarts(hasty, 1):
        hasty.worker.send_signal(signal.SIGSTOP)
        assert hasty.restore(wish()).status_code == 200


def test_a_worker_that_stops_in_mid_work_is_replaced(hasty):
    with restarts(hasty, 1):
        worker = hasty.worker
        job = hasty.later(wish(sleep=0.2, name="stopped"))
        computing(hasty, "stopped")
        worker.send_signal(signal.SIGSTOP)
        assert job.result().status_code == 504
        until(lambda: not worker.is_running())
    assert hasty.restore(wish()).status_code == 200


def test_what_takes_too_long_is_given_up(hasty):
    start = time.monotonic()
    with restarts(hasty, 0):
        answer = hasty.restore(wish(sleep=60, steps=2000, name="long"))
        assert answer.status_code == 504 and "more than 2 s" in answer.json()["error"]
        assert 2 <= time.monotonic() - start < 30
        assert hasty.restore(wish()).status_code == 200


def test_a_worker_that_hangs_is_killed_and_the_others_are_done(hasty):
    with restarts(hasty, 1):
        hanging = hasty.later(wish(do="hang", name="hanging"))
        computing(hasty, "hanging")
        waiting = [hasty.later(wish(name=f"waiting-{n}")) for n in range(2)]
        assert hanging.result().status_code == 504
        assert [job.result().status_code for job in waiting] == [200, 200]


def test_a_worker_that_talks_nonsense_is_replaced(service):
    with restarts(service, 1):
        assert service.restore(wish(do="garbage")).status_code == 503
        assert service.restore(wish()).status_code == 200


@pytest.mark.slow
def test_a_worker_that_cannot_start_again(tmp_path):
    with Service(tmp_path, devices=["dies later"]) as service:
        assert service.health().status_code == 200
        waiting = service.later(wish(sleep=5))
        until(lambda: service.worker_log()[-1].startswith("computing"))
        other = service.later(wish())
        until(lambda: service.metric("maximir_places_taken") == 2)
        service.worker.kill()
        assert waiting.result().status_code == 503
        assert other.result().status_code == 503  # nobody waits for ever
        start = time.monotonic()
        answer = service.restore(wish())
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert time.monotonic() - start < 2
        time.sleep(1)
        health = service.health()
        assert health.status_code == 503 and health.json() == {"status": "no worker"}
        assert service.metric("maximir_worker_starts_total") <= 5  # not in a tight loop
        service.signal()
        assert service.process.wait(20) == 0


# Several devices.


def test_each_device_has_a_worker(tmp_path):
    """Four images, two at a time; one worker is killed, the other goes on meanwhile."""
    with Service(tmp_path, devices=["one", "two"], queue=4) as service:
        assert service.first.strip().endswith("on fake one, fake two")
        assert service.metric("maximir_worker_up") == 2
        jobs = [
            service.later(wish(hold=service.hold("pairs"), name=f"pair-{n}"), id=f"pair-{n}-id")
            for n in range(4)
        ]
        until(lambda: service.metric("maximir_places_taken") == 4)
        until(lambda: len([line for line in service.worker_log() if line.startswith("computing")]) == 2)
        progress = [service.progress(f"pair-{n}-id").json() for n in range(4)]
        assert sorted(one["state"] for one in progress) == ["waiting"] * 2 + ["working"] * 2
        assert sorted(one["ahead"] for one in progress) == [0, 0, 1, 1]  # one behind each
        service.release("pairs")
        assert [job.result().status_code for job in jobs] == [200] * 4
        until(service.idle)

        jobs = [service.later(wish(hold=service.hold("killed"), name=f"killed-{n}")) for n in range(2)]
        until(lambda: sum(line.startswith("computing killed") for line in service.worker_log()) == 2)
        service.worker.kill()
        until(lambda: service.metric("maximir_worker_up") == 1)
        assert service.health().status_code == 200
        service.release("killed")
        assert sorted(job.result().status_code for job in jobs) == [200, 503]
        until(lambda: service.metric("maximir_worker_up") == 2)


@pytest.mark.slow
def test_a_device_that_is_lost_leaves_the_work_to_the_other(tmp_path):
    with Service(tmp_path, devices=["one", "dies later"]) as service:
        until(lambda: service.metric("maximir_worker_up") == 2)
        lost = next(int(line.split()[1]) for line in service.worker_log() if line.endswith("dies later"))
        os.kill(lost, signal.SIGKILL)
        until(lambda: service.metric("maximir_worker_up") == 1)
        jobs = [service.later(wish(sleep=0.2)) for _ in range(4)]
        assert [job.result().status_code for job in jobs] == [200] * 4
        until(lambda: service.metric("maximir_worker_starts_total") >= 5)  # it cannot be started any more
        assert service.health().status_code == 200
        assert service.restore(wish()).status_code == 200


def test_a_device_has_one_worker(tmp_path):
    service = Service(tmp_path, devices=["one", "one"])
    assert service.process.wait(20) != 0
    assert "--device one is given twice" in service.stderr.read_text()
    service.process.stdout.close()


# Beginning and end.


@pytest.mark.parametrize(
    ("device", "words"),
    [("none", "device 'none' cannot be used"), ("dead", "status 3"), ("asleep", "does not respond")],
)
def test_a_worker_that_cannot_start_at_all(device, words, tmp_path):
    service = Service(tmp_path, devices=[device], timeout=1.0, start=1.0, grace=0.5)
    assert service.process.wait(20) != 0
    assert service.first == ""
    assert words in service.stderr.read_text()
    service.process.stdout.close()


def test_the_time_for_an_image_does_not_limit_the_start(tmp_path):
    with Service(tmp_path, devices=["slow"], timeout=0.5, grace=0.5) as service:
        assert service.restore(wish()).status_code == 200
        assert service.metric("maximir_worker_starts_total") == 1


def test_stopping_finishes_what_there_is(tmp_path):
    with Service(tmp_path) as service:
        worker = service.worker
        jobs = [
            service.later(wish(hold=service.hold("stopping"), name=f"job-{n}"), id=f"stopping-{n}")
            for n in range(3)
        ]
        until(lambda: service.metric("maximir_places_taken") == 3)
        service.signal()
        until(lambda: service.health().status_code == 503)
        assert service.health().json() == {"status": "draining"}
        assert service.client.get("/livez").json() == {"status": "alive"}
        answer = service.restore(wish())
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert service.progress("stopping-2").json()["state"] in ("waiting", "working")
        service.release("stopping")
        assert [job.result().status_code for job in jobs] == [200] * 3
        assert service.process.wait(20) == 0
        assert not worker.is_running()


def test_stopping_does_not_take_for_ever(tmp_path):
    with Service(tmp_path, drain=1.0) as service:
        worker = service.worker
        job = service.later(wish(do="hang"))
        until(lambda: service.metric("maximir_places_taken") == 1)
        service.signal(signal.SIGINT)
        answer = job.result()
        assert answer.status_code == 503 and "is stopping" in answer.json()["error"]
        assert service.process.wait(20) == 0
        assert not worker.is_running()


@pytest.mark.slow
def test_stopping_cuts_off_who_takes_too_long_to_read(tmp_path):
    with Service(tmp_path, drain=0.5, patience=100.0) as service, service.begin(wish(large=30_000_000)):
        until(lambda: service.metric("maximir_results_leaving") == 1)
        service.signal()
        assert service.process.wait(30) == 0


def test_a_second_signal_ends_at_once(tmp_path):
    with Service(tmp_path) as service:
        worker = service.worker
        job = service.later(wish(sleep=100))
        until(lambda: service.metric("maximir_places_taken") == 1)
        service.signal()
        until(lambda: service.health().status_code == 503)
        service.signal()
        assert service.process.wait(5) == 128 + signal.SIGTERM
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(httpx.HTTPError):
            job.result()


def test_no_worker_outlives_its_service(tmp_path):
    with Service(tmp_path) as service:
        worker = service.worker
        job = service.later(wish(sleep=100, name="orphan"))
        computing(service, "orphan")
        service.process.kill()
        service.process.wait()
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        with pytest.raises(httpx.HTTPError):
            job.result()
    assert not children(service.process.pid)


def test_the_pause_before_the_next_start():
    assert [pause_after(failures) for failures in (1, 2, 3, 4, 100, 5000)] == [0, 1, 2, 4, 10, 10]


def test_clients_that_found_no_place_do_not_all_come_at_once():
    async def check():
        queue = Queue(Settings(queue=4), Metrics())
        assert queue.promise() == 1  # all places are taken by uploads
        queue.promised.clear()
        queue.pace.learn(10.0, 1000, 100)
        queue.line.extend(Job("denoise", "denoise-box", None, io.BytesIO(), 100) for _ in range(4))
        waits = [queue.promise() for _ in range(20)]
        assert waits[:8] == pytest.approx([20, 30, 40, 50, 60, 70, 80, 90])  # half of the line, then one each
        assert waits[8:] == pytest.approx([100] * 12)  # who never stops asking drives nobody away
        queue.promised = [time.monotonic() - 1] * 8  # they are back
        assert queue.promise() == pytest.approx(20)

    asyncio.run(check())


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("maximir.service.queue.time", clock)
    return clock


def full_queue(places=4):
    """All places are taken by jobs of ten seconds."""
    queue = Queue(Settings(queue=places), Metrics())
    queue.pace.learn(10.0, 1000, 100)
    queue.line.extend(Job("denoise", "denoise-box", None, io.BytesIO(), 100) for _ in range(places))
    queue.taken = places
    return queue


def comes(queue) -> int | None:
    """A client: None if it gets a place, or for how long it is told to wait."""
    try:
        queue.take_place()
    except Refusal as refusal:
        return int(refusal.headers["Retry-After"])
    return None


def is_done(queue):
    queue.line.popleft()
    queue.taken -= 1


def test_who_comes_back_as_told_is_before_who_resends_at_once(clock):
    async def check():
        queue = full_queue()
        assert comes(queue) == 20  # half of the line
        clock.now += 10
        is_done(queue)
        assert comes(queue) is not None  # whose image it was, at once: the place is kept
        clock.now += 10.1
        assert comes(queue) is None and queue.taken == 4  # as promised
        assert comes(queue) is not None

    asyncio.run(check())


def test_at_most_half_of_the_places_wait_for_somebody(clock):
    async def check():
        queue = full_queue()
        queue.promised = [clock.now + 1] * 4
        for gets_in in (False, False, True):
            is_done(queue)
            assert (comes(queue) is None) == gets_in
        assert queue.taken == 2

    asyncio.run(check())


def test_nobody_is_waited_for_for_ever(clock):
    async def check():
        queue = full_queue()
        assert comes(queue) == 20
        is_done(queue)
        clock.now += 23  # it has not come
        assert comes(queue) is None

    asyncio.run(check())


def test_who_came_as_told_to_no_avail_is_next(clock):
    async def check():
        queue = full_queue()
        assert comes(queue) == 20
        clock.now += 20.5
        assert comes(queue) == 10  # until the next one is done, not behind others
        is_done(queue)
        clock.now += 5
        assert comes(queue) is not None  # somebody else
        clock.now += 5.5
        assert comes(queue) is None

    asyncio.run(check())


@pytest.mark.slow
def test_each_of_many_clients_gets_its_turn(tmp_path):
    """All obey Retry-After; without turns, those that are in once are in for ever."""
    with Service(tmp_path, queue=2) as service:
        got, over = Counter(), threading.Event()

        def client(number):
            while not over.is_set():
                answer = service.restore(wish(sleep=0.1))
                got[number] += answer.status_code == 200
                over.wait(float(answer.headers.get("retry-after", 0)))

        clients = [Later(partial(client, number)) for number in range(8)]
        until(lambda: len(+got) == 8, 30)
        over.set()
        for each in clients:
            each.result()


def test_two_devices_share_a_line():
    """The one with less work takes the next image, and none is taken long before its turn."""

    async def check():
        queue = Queue(Settings(devices=("one", "two")), Metrics())
        one, two = queue.keepers
        queue.pace.learn(10.0, 1000, 100)
        jobs = [Job("denoise", "denoise-box", None, io.BytesIO(), 100) for _ in range(4)]
        queue.line.extend(jobs)
        assert queue.next(one) is None  # nobody is ready
        one.ready = True
        assert queue.seconds(jobs) == pytest.approx(40)  # one is there to share them
        two.ready = True
        assert queue.seconds(jobs) == pytest.approx(20)
        assert queue.next(one) is jobs[0]
        one.working[jobs[0].number] = jobs[0]
        assert queue.next(one) is None  # the other one has nothing
        assert queue.next(two) is jobs[1]
        two.working[jobs[1].number] = jobs[1]
        assert queue.next(one) is None and queue.next(two) is None  # ten seconds are left of both
        jobs[1].began, jobs[1].fraction = time.monotonic() - 9.0, 0.9
        assert queue.next(one) is None
        assert queue.next(two) is jobs[2]
        two.ready = False
        assert queue.next(one) is jobs[3]  # there is nobody else

    asyncio.run(check())


def test_pace():
    pace = Pace()
    assert pace.whole(100, 10) is None and pace.left(None, 10, 1.0, 0.0) is None
    assert pace.left(None, 10, 1.0, 0.25) == pytest.approx(3.0)
    pace.learn(2.0, 100, 10)
    assert pace.whole(200, 1) == pytest.approx(4.0)
    assert pace.whole(None, 30) == pytest.approx(6.0)
    assert pace.left(100, 10, 0.5, 0.0) == pytest.approx(1.5)
    assert pace.left(100, 10, 5.0, 0.0) == 0
    pace.learn(1.0, 100, 10)
    assert 1 < pace.whole(100, 10) < 2
