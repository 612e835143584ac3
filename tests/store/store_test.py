#!/usr/bin/env python3
"""The store seen from outside, as TAP: a segment read from its document alone, and what `pugmark store` says and does.

store_test.py PUGMARK
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

import segment_reader

PUGMARK = sys.argv[1]
SECONDS_MAX = 60


@contextlib.contextmanager
def serve(data, *options):
    with tempfile.TemporaryDirectory(prefix="pugmark-store-") as scratch:
        ready = pathlib.Path(scratch) / "ready"
        with open(pathlib.Path(scratch) / "said", "w+b") as said, subprocess.Popen(
                [PUGMARK, "serve", "--data", data, "--ports", "auto", "--ready-file", ready, *options], stderr=said) as server:
            try:
                end = time.monotonic() + SECONDS_MAX
                while not ready.exists():
                    assert server.poll() is None and time.monotonic() < end, (said.seek(0), said.read())[1].decode()
                    time.sleep(0.02)
                yield json.loads(ready.read_text())["endpoints"]
                server.send_signal(signal.SIGTERM)
                assert server.wait(SECONDS_MAX) == 0
            finally:
                server.kill()


def get(url):
    with urllib.request.urlopen(url, timeout=SECONDS_MAX) as answer:
        return answer.read().decode()


def answers(url):
    try:
        get(url)
        return True
    except urllib.error.HTTPError as error:
        assert error.code == 500, error
        return False


def post(url, document):
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
        assert answer.status == 200


def store(*arguments, status=0):
    done = subprocess.run([PUGMARK, "store", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          timeout=SECONDS_MAX)
    assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}"
    return done.stdout.decode() + done.stderr.decode()


def attribute(key, **value):
    return {"key": key, "value": value}


def every_kind(now):
    """Spans with every type of value, events, links, states; parents here, elsewhere and none."""
    values = [attribute("s", stringValue="grüße"), attribute("b", boolValue=True), attribute("i", intValue="-9007199254740993"),
              attribute("d", doubleValue=-0.125), attribute("bytes", bytesValue="AAEC/w=="), attribute("nothing"),
              attribute("array", arrayValue={"values": [{"intValue": "1"}, {"stringValue": "two"}]}),
              attribute("map", kvlistValue={"values": [attribute("k", doubleValue=2.5)]}), attribute("s", intValue="7")]
    spans = []
    for i in range(40):
        span = {"traceId": f"{i // 5 + 1:032x}", "spanId": f"{i + 1:016x}", "name": f"work {i % 7}", "kind": i % 6,
                "startTimeUnixNano": str(now + i * 1000), "endTimeUnixNano": str(now + i * 1000 + i * 77), "flags": i % 2,
                "attributes": values[i % len(values):] + values[:i % 3], "status": {"code": i % 3},
                "droppedAttributesCount": i % 4}
        if i % 5:
            span["parentSpanId"] = f"{i if i % 5 != 3 else 0xabcdef:016x}"
        if i % 3 == 2:
            span["status"]["message"] = f"wrong {i}"
            span["traceState"] = "a=1,b=2"
        if i % 4 == 1:
            span["events"] = [{"timeUnixNano": str(now - 5), "name": "earlier", "attributes": values[:2]}, {"name": "later",
                              "timeUnixNano": str(now + 10**9), "droppedAttributesCount": 3}]
            span["links"] = [{"traceId": f"{99:032x}", "spanId": f"{98:016x}", "traceState": "x=y", "flags": 1,
                              "attributes": values[3:5]}]
        spans.append(span)
    return {"resourceSpans": [{"resource": {"attributes": [attribute("service.name", stringValue=f"service {k}"),
                                                           attribute("n", intValue=str(k))]}, "schemaUrl": "https://x/1",
                               "scopeSpans": [{"scope": {"name": "by hand", "version": "2", "attributes": values[:1]},
                                               "spans": spans[k::2]}]} for k in range(2)]}


def from_counters(now):
    """Spans whose ids libpugmark could have made: a key for each process, a counter for each thread (docs/formats, "Ids")."""
    spans = []
    for i in range(600):
        process, thread, trace = i % 3, i % 2, i // 6
        keys = [hash((process, k)) for k in range(3)]
        spans.append({"traceId": f"{segment_reader.mix(keys[0] + trace):016x}{segment_reader.mix(keys[1] + trace):016x}",
                      "spanId": f"{segment_reader.mix(keys[2] + (thread << 48) + i):016x}", "name": "counted", "kind": 1,
                      "startTimeUnixNano": str(now + i * 1000), "endTimeUnixNano": str(now + i * 1000 + 500)})
    return {"resourceSpans": [{"resource": {"attributes": [attribute("service.name", stringValue="counters")]},
                               "scopeSpans": [{"spans": spans}]}]}


def plain_value(value):
    """A value as segment_reader has it, from OTLP's JSON."""
    if "intValue" in value:
        return {"intValue": int(value["intValue"])}
    if "doubleValue" in value:
        return {"doubleValue": float(value["doubleValue"])}
    if "bytesValue" in value:
        import base64
        return {"bytesValue": base64.b64decode(value["bytesValue"])}
    if "arrayValue" in value:
        return {"arrayValue": [plain_value(v) for v in value["arrayValue"].get("values", [])]}
    if "kvlistValue" in value:
        return {"kvlistValue": plain(value["kvlistValue"].get("values", []))}
    return value


def plain(attributes):
    return [(a["key"], plain_value(a["value"])) for a in attributes]


KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]


def from_api(trace):
    """The spans of an answer, in segment_reader's form."""
    for span in trace["spans"]:
        resource, scope = trace["resources"][span["resource"]], trace["scopes"][span["scope"]]
        start = int(span["startUnixNano"])
        yield {
            "trace_id": trace["traceId"], "span_id": span["spanId"], "parent": span["parentSpanId"], "name": span["name"],
            "kind": KINDS.index(span["kind"]), "start": start, "end": start + int(span["durationNano"]),
            "status": ["UNSET", "OK", "ERROR"].index(span["status"]["code"]), "status_message": span["status"]["message"],
            "trace_state": span["traceState"], "flags": span["flags"], "attributes": plain(span["attributes"]),
            "dropped": [span["droppedAttributes"], span["droppedEvents"], span["droppedLinks"]],
            "resource": {"attributes": plain(resource["attributes"]), "dropped": 0, "schema": resource.get("schemaUrl", "")},
            "scope": {"name": scope["name"], "version": scope["version"], "attributes": plain(scope.get("attributes", [])),
                      "dropped": 0, "schema": ""},
            "events": [{"time": int(e["timeUnixNano"]), "name": e["name"], "attributes": plain(e["attributes"]),
                        "dropped": e.get("droppedAttributes", 0)} for e in span["events"]],
            "links": [{"trace_id": k["traceId"], "span_id": k["spanId"], "flags": k["flags"], "trace_state": k["traceState"],
                       "attributes": plain(k["attributes"]), "dropped": k.get("droppedAttributes", 0)} for k in span["links"]],
        }


def in_order(spans):
    return sorted(spans, key=lambda s: (s["trace_id"], s["start"], s["span_id"]))


def the_document_suffices(data):
    now = time.time_ns()
    with serve(data) as ends:
        post(ends["otlp_http"] + "/v1/traces", every_kind(now))
        post(ends["otlp_http"] + "/v1/traces", from_counters(now))
        subprocess.run([PUGMARK, "load", "--otlp", ends["otlp_http"], "--traces", "1200", "--spans-per-trace", "8"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SECONDS_MAX)
    found, by_column = [], set()
    for path in data.glob("*.seg"):
        segment = segment_reader.read(path)
        found += segment.spans()
        by_column |= segment.by_column
        segment.check_whole()
    assert by_column == {False, True}  # lists that ascend, and others
    assert len(found) == 40 + 600 + 1200 * 8, len(found)
    with serve(data) as ends:
        ids = sorted({s["trace_id"] for s in found})
        compared = 0
        for trace_id in ids[:8] + ids[8::40]:
            trace = json.loads(get(f"{ends['page']}/api/pugmark/traces/{trace_id}"))
            ours = in_order(s for s in found if s["trace_id"] == trace_id)
            theirs = in_order(from_api(trace))
            for mine, its in zip(ours, theirs, strict=True):
                assert mine == its, f"\n{mine}\n{its}"
            compared += len(ours)
        assert compared > 200


def ids_from_counters_take_little_room(data):
    data = data.parent / "counters"
    with serve(data) as ends:
        post(ends["otlp_http"] + "/v1/traces", from_counters(time.time_ns()))
    stats = json.loads(store("stats", data, "--json"))
    size = next(c["bytes"] for c in stats["columns"] if c["name"] == "span id")
    assert 0 < size < 600 * 3, size


def a_segment_from_before_the_feature_is_read(_):
    old = pathlib.Path(__file__).parent.parent / "golden" / "store" / "ids-as-they-are.seg"
    segment = segment_reader.read(old)
    assert not segment.derived_ids
    assert in_order(segment.spans())[6]["span_id"] == f"{7:016x}"
    segment.check_whole()


def a_flipped_byte_is_named_and_the_rest_is_served(data):
    assert "good" in store("verify", data)
    path = next(data.glob("*.seg"))
    segment = segment_reader.read(path)
    spans = segment.spans()
    whole = path.read_bytes()
    at = segment.groups[0]["offset"] + 3  # in the span ids of the first group
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    said = store("verify", data, status=1)
    assert f"damage: {path.name}: " in said and "offset" in said, said
    told = json.loads(store("verify", data, "--json", status=1))
    assert told["damaged"] == 1 and told["findings"][0]["file"] == path.name
    with serve(data) as ends:
        search = json.loads(get(f"{ends['page']}/api/pugmark/search?q=%7B%7D&limit=200"))
        assert len(search["traces"]) > 100
        ids = {s["trace_id"] for s in spans}
        served = sum(answers(f"{ends['page']}/api/pugmark/traces/{i}") for i in ids)
        assert served < len(ids), "nothing read the damage"
        assert "pugmark_store_damaged_segments 1\n" in get(ends["page"] + "/metrics")
    path.write_bytes(whole)
    assert "good" in store("verify", data)


def compacting_keeps_every_span(data):
    for _ in range(3):
        with serve(data) as ends:
            subprocess.run([PUGMARK, "load", "--otlp", ends["otlp_http"], "--traces", "50"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=SECONDS_MAX)
    before = json.loads(store("stats", data, "--json"))
    said = store("compact", data)
    after = json.loads(store("stats", data, "--json"))
    assert before["segments"] > after["segments"] == 1 == len(list(data.glob("*.seg"))), said
    assert before["spans"] == after["spans"] and before["services"] == after["services"]
    assert after["rewrittenBytes"] >= after["segmentBytes"] == sum(c["bytes"] for c in after["columns"])
    assert "good" in store("verify", data)
    assert "times what was sealed" in store("stats", data)


def retention_leaves_what_is_pinned(data):
    spans = [s for path in data.glob("*.seg") for s in segment_reader.read(path).spans()]
    pinned = spans[0]["trace_id"]
    store("pin", data, pinned)
    assert store("pins", data) == pinned + "\n"
    time.sleep(0.01)
    store("compact", data, "--retention", "1ms")
    left = json.loads(store("stats", data, "--json"))
    kept = [s for s in spans if s["trace_id"] == pinned]
    assert left["spans"] == len(kept) and left["expiredByAge"] == len(spans) - len(kept), left
    with serve(data) as ends:
        trace = json.loads(get(f"{ends['page']}/api/pugmark/traces/{pinned}"))
        assert len(trace["spans"]) == len(kept)
        assert f'pugmark_store_dropped_spans_total{{reason="age"}} {len(spans) - len(kept)}\n' in get(ends["page"] + "/metrics")
    store("unpin", data, pinned)
    assert "is not pinned" in store("unpin", data, pinned, status=1)
    store("compact", data, "--retention", "1ms")
    assert json.loads(store("stats", data, "--json"))["spans"] == 0


def what_cannot_be_done_is_said(data):
    with serve(data):
        for what in ("verify", "stats", "compact", "pins"):
            assert "a server has it open" in store(what, data, status=1)
    with tempfile.TemporaryDirectory() as empty:
        for what in ("verify", "stats", "compact"):
            assert "there is no store in it" in store(what, empty, status=1)
        assert not os.listdir(empty)
    assert "No such file" in store("stats", "/nowhere", status=1)
    assert "which directory" in store("verify", status=2)
    assert "not known" in store("vacuum", data, status=2)
    assert "which trace" in store("pin", data, status=2)
    assert "is not a trace id" in store("pin", data, "xyz", status=2)


def main():
    tests = [the_document_suffices, ids_from_counters_take_little_room, a_segment_from_before_the_feature_is_read,
             a_flipped_byte_is_named_and_the_rest_is_served, compacting_keeps_every_span,
             retention_leaves_what_is_pinned, what_cannot_be_done_is_said]
    failed = 0
    print(f"1..{len(tests)}")
    with tempfile.TemporaryDirectory(prefix="pugmark-store-") as work:
        for i, test in enumerate(tests, 1):
            try:
                test(pathlib.Path(work) / "data")
                print(f"ok {i} - {test.__name__}", flush=True)
            except Exception as wrong:  # told, and the next is tried
                failed = 1
                print(f"not ok {i} - {test.__name__}")
                print("\n".join("# " + line for line in "".join(traceback.format_exception(wrong)).splitlines()), flush=True)
    return failed


sys.exit(main())
