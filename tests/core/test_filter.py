"""Filter, and the matcher of registry events that `ignore` makes."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import BlockRecorder, Fails, Hostile, Recorder, Task
from support.contract import WrapperContract

import fastsinks
from fastsinks import Filter, Queue, SinkClosedError, ignore

LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def always(event):
    return True


class TestFilterContract(WrapperContract):
    kind = Filter

    def extra(self):
        return (always,)


class TestMatcher:
    def test_a_callable(self):
        dst = Recorder()
        with Filter(dst, lambda event: event % 2) as sink:
            for number in range(6):
                assert sink.write(number) is None
        assert dst.events == [1, 3, 5]

    def test_an_object_with_match(self):
        class Even:
            def match(self, event):
                return event % 2 == 0

        dst = Recorder()
        with Filter(dst, Even()) as sink:
            for number in range(6):
                sink.write(number)
        assert dst.events == [0, 2, 4]

    @pytest.mark.parametrize("matcher", [None, "text", 7, object()])
    def test_it_must_be_one_of_these(self, matcher):
        with pytest.raises(TypeError, match=re.escape(repr(matcher))):
            Filter(Recorder(), matcher)

    def test_any_truth_will_do(self):
        dst = Recorder()
        answers = {"a": "yes", "b": "", "c": [0], "d": [], "e": None, "f": 2}
        with Filter(dst, answers.get) as sink:
            for event in answers:
                sink.write(event)
        assert dst.events == ["a", "c", "f"]

    def test_it_is_asked_once_an_event(self):
        asked = []
        with Filter(Recorder(), asked.append) as sink:
            sink.write("one")
            sink.write_many(["two", "three"])
        assert asked == ["one", "two", "three"]

    def test_it_is_not_asked_once_closed(self):
        asked = []
        sink = Filter(Recorder(), asked.append)
        sink.close()
        with pytest.raises(SinkClosedError):
            sink.write("late")
        assert asked == []

    @pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
    def test_what_it_raises_reaches_the_writer_and_commits_nothing(self, error):
        dst = Recorder()
        refuse = Fails(error, times=1)
        sink = Filter(dst, lambda event: refuse([event]) is None)
        with pytest.raises(error):
            sink.write("one")
        assert dst.events == []
        assert not sink.closed
        sink.write("one")
        assert dst.events == ["one"]
        sink.close()

    def test_an_answer_without_a_truth_value_reaches_the_writer(self):
        dst = Recorder()
        sink = Filter(dst, lambda event: Hostile())
        with pytest.raises(RuntimeError):
            sink.write("one")
        assert dst.events == []
        sink.close()

    def test_it_may_use_the_filter(self):
        dst = Recorder()

        def matcher(event):
            if event == "first":
                sink.write("from the matcher")
            return True

        sink = Filter(dst, matcher)
        Task(sink.write, "first").result()
        assert dst.events == ["from the matcher", "first"]
        sink.close()

    def test_it_may_close_the_filter(self):
        def matcher(event):
            sink.close()
            return False

        dst = Recorder()
        sink = Filter(dst, matcher)
        Task(sink.write, "one").result()
        assert sink.closed
        assert dst.closes == 1
        assert dst.events == []


class TestDestination:
    def test_what_it_raises_reaches_the_writer(self):
        sink = Filter(Recorder(Fails(OSError, times=1)), always)
        with pytest.raises(OSError):
            sink.write("one")
        assert not sink.closed
        sink.write("one")
        sink.close()

    def test_a_closed_one_is_told_to_the_writer(self):
        dst = fastsinks.NullSink()
        sink = Filter(dst, always)
        dst.close()
        with pytest.raises(SinkClosedError):
            sink.write("one")
        sink.close()


class TestBlocks:
    def test_the_accepted_go_on_as_one_block(self):
        dst = BlockRecorder()
        with Filter(dst, lambda event: event % 2) as sink:
            sink.write_many(range(10))
        assert dst.blocks == [[1, 3, 5, 7, 9]]

    def test_a_block_of_which_nothing_is_left_goes_nowhere(self):
        dst = BlockRecorder()
        with Filter(dst, lambda event: False) as sink:
            sink.write_many(range(10))
        assert dst.attempts == []

    def test_one_by_one_where_the_destination_takes_no_blocks(self):
        dst = Recorder()
        with Filter(dst, lambda event: event % 2) as sink:
            sink.write_many(range(6))
        assert dst.blocks == [[1], [3], [5]]

    def test_it_stays_a_group_in_a_bounded_queue(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst, maxsize=3, when_full="raise")
        sink = Filter(queue, lambda event: event % 2)
        queue.write("in the way")
        with pytest.raises(fastsinks.QueueFullError):
            sink.write_many([1, 2, 3, 4, 5])
        assert len(queue) == 1
        sink.write_many([1, 2, 3, 4])
        assert len(queue) == 3
        gate.open()
        sink.close()
        assert dst.events == ["in the way", 1, 3]

    def test_a_matcher_that_raises_in_the_middle_rejects_the_block(self):
        dst = BlockRecorder()
        sink = Filter(dst, lambda event: 1 / event)
        with pytest.raises(ZeroDivisionError):
            sink.write_many([2, 1, 0, 3])
        assert dst.attempts == []
        sink.write_many([2, 1])
        assert dst.events == [2, 1]
        sink.close()


def registry_event(action="push", media_type=LAYER):
    return {"id": "1", "action": action, "target": {"mediaType": media_type, "size": 3}}


def passed(matcher, events):
    dst = Recorder()
    with Filter(dst, matcher) as sink:
        for event in events:
            sink.write(event)
    return dst.events


class TestIgnore:
    def test_nothing_is_ignored_unless_named(self):
        events = [registry_event(), registry_event("pull", MANIFEST)]
        assert passed(ignore(), events) == events
        assert passed(ignore((), ()), events) == events

    def test_media_types(self):
        layer, manifest = registry_event("push", LAYER), registry_event("push", MANIFEST)
        assert passed(ignore(media_types=[LAYER]), [layer, manifest]) == [manifest]
        assert passed(ignore([LAYER, MANIFEST]), [layer, manifest]) == []

    def test_actions(self):
        push, pull = registry_event("push"), registry_event("pull")
        assert passed(ignore(actions=("pull",)), [push, pull]) == [push]
        assert passed(ignore((), {"pull", "push"}), [push, pull]) == []

    def test_either_is_enough(self):
        events = [
            registry_event("push", LAYER),
            registry_event("pull", LAYER),
            registry_event("push", MANIFEST),
            registry_event("pull", MANIFEST),
        ]
        assert passed(ignore([LAYER], ["pull"]), events) == [events[2]]

    def test_iterators_are_used_up_once(self):
        matcher = ignore(iter([LAYER]), (action for action in ["pull"]))
        events = [registry_event("pull", MANIFEST), registry_event("push", LAYER)]
        assert passed(matcher, events) == []
        assert passed(matcher, events) == []

    def test_whole_names_only(self):
        events = [registry_event("pus"), registry_event("pushed"), registry_event("Push")]
        assert passed(ignore(actions=["push"]), events) == events

    def test_what_is_no_registry_event_is_not_ignored(self):
        strange = [
            None,
            "push",
            7,
            [],
            {},
            {"action": None},
            {"action": ["push"]},
            {"target": None},
            {"target": "push"},
            {"target": {}},
            {"target": {"mediaType": None}},
            {"target": {"mediaType": [LAYER]}},
            SimpleNamespace(),
            SimpleNamespace(action="pull", target=None),
        ]
        assert passed(ignore([LAYER], ["push"]), strange) == strange

    @pytest.mark.parametrize("names", ["push", b"push"])
    def test_one_string_is_not_a_list_of_names(self, names):
        with pytest.raises(TypeError, match="push"):
            ignore(actions=names)
        with pytest.raises(TypeError, match="push"):
            ignore(media_types=names)

    @pytest.mark.parametrize("names", [7, object(), [7], [None]])
    def test_names_are_strings(self, names):
        with pytest.raises(TypeError):
            ignore(actions=names)

    def test_recorded_events(self):
        file = Path(fastsinks.__file__).parent / "_cli" / "data" / "registry-events.ndjson"
        events = [json.loads(line) for line in file.read_text().splitlines()]
        media_types = {event["target"].get("mediaType") for event in events}
        ignored = sorted(filter(None, media_types))[0]
        wanted = [
            event
            for event in events
            if event["action"] != "pull" and event["target"].get("mediaType") != ignored
        ]
        assert 0 < len(wanted) < len(events)
        assert passed(ignore([ignored], ["pull"]), events) == wanted

    def test_event_structs(self):
        from fastsinks import events

        file = Path(fastsinks.__file__).parent / "_cli" / "data" / "registry-events.ndjson"
        body = b'{"events": [' + b",".join(file.read_bytes().splitlines()) + b"]}"
        structs = list(events.decode(body).events)
        dicts = json.loads(body)["events"]
        media_types = {event["target"].get("mediaType") for event in dicts}
        ignored = sorted(filter(None, media_types))[0]
        matcher = ignore([ignored], ["pull"])
        kept = [event["id"] for event in passed(matcher, dicts)]
        assert 0 < len(kept) < len(dicts)
        assert [event.id for event in passed(matcher, structs)] == kept
