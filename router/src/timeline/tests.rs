use std::time::Duration;

use serde_json::Value;

use super::*;

fn span(track: Track, name: &'static str, began_ns: u64, ended_ns: u64) -> Span {
    Span { track, name, began_ns, ended_ns, facts: Vec::new() }
}

fn events(spans: &[Span]) -> Vec<Value> {
    let mut file = Vec::new();
    write::write(&mut file, spans, 0).unwrap();
    let trace: Value = serde_json::from_slice(&file).unwrap();
    trace["traceEvents"].as_array().unwrap().clone()
}

/// `b request` and so on, in the order of the file.
fn edges(spans: &[Span]) -> Vec<String> {
    let named = |event: &Value| format!("{} {}", event["ph"].as_str().unwrap(), event["name"].as_str().unwrap());
    events(spans).iter().filter(|event| event["ph"] != "M").map(named).collect()
}

#[test]
fn an_empty_trace_is_json() {
    assert_eq!(events(&[]).len(), 1);
}

#[test]
fn spans_that_touch_are_brackets() {
    let track = Track::Request(3);
    let spans = [
        span(track, "first token", 20, 50),
        span(track, "queue", 10, 20),
        span(track, "request", 10, 50),
        span(track, "nothing", 20, 20),
        span(track, "the same as the request", 10, 50),
    ];
    let wanted = [
        "b request",
        "b the same as the request",
        "b queue",
        "e queue",
        "b first token",
        "b nothing",
        "e nothing",
        "e first token",
        "e the same as the request",
        "e request",
    ];
    assert_eq!(edges(&spans), wanted);
}

#[test]
fn a_shard_has_threads_and_loses_no_nanosecond() {
    let facts = vec![("step", 7), ("rows", 2)];
    let found = events(&[Span { facts, ..span(Track::ShardCompute(1), "launch", 1_234_567, 1_300_001) }]);
    let event = found.last().unwrap();
    assert_eq!((event["ph"].as_str(), event["pid"].as_u64(), event["tid"].as_u64()), (Some("X"), Some(3), Some(2)));
    assert_eq!((event["ts"].as_f64(), event["dur"].as_f64()), (Some(1234.567), Some(65.434)));
    assert_eq!(event["args"], serde_json::json!({"step": 7, "rows": 2}));
    assert!(found.iter().any(|event| event["args"]["name"] == "shard 1"));
}

#[test]
fn the_file_is_whole_when_the_last_handle_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let timeline = Timeline::into_file(&path).unwrap();
    let (other, now) = (timeline.clone(), Instant::now());
    other.add(Track::Upload(1), "upload", (now, now + Duration::from_millis(2)), &[("bytes", 5)]);
    drop(timeline);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    drop(other);
    let trace: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let begin = &trace["traceEvents"][1];
    assert_eq!((begin["cat"].as_str(), begin["args"]["bytes"].as_u64()), (Some("upload"), Some(5)));
}

#[test]
fn moments_before_the_start_are_on_the_same_clock() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = Instant::now();
    let before_ns = monotonic_ns().unwrap();
    let timeline = Timeline::into_file(&folder.path().join("trace.json")).unwrap();
    let recorder = timeline.0.as_ref().unwrap();
    assert!(recorder.ns(earlier).abs_diff(before_ns) < 5_000_000);
    assert!(recorder.ns(Instant::now()) >= recorder.ns(earlier));
}

#[test]
fn a_path_that_cannot_be_written_is_told_at_once() {
    assert!(Timeline::into_file(Path::new("/no such folder/trace.json")).is_err());
}

#[test]
fn off_keeps_nothing() {
    let now = Instant::now();
    let timeline = Timeline::default();
    timeline.add(Track::Request(1), "request", (now, now), &[]);
    assert!(!timeline.is_on());
}

#[test]
fn what_comes_when_it_is_full_is_counted() {
    let mut kept = Kept::default();
    for began in 0..5 {
        kept.push(span(Track::Request(began), "request", began, began), 3);
    }
    assert_eq!((kept.spans.len(), kept.left_out), (3, 2));
    let mut file = Vec::new();
    write::write(&mut file, &kept.spans, kept.left_out).unwrap();
    let trace: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(trace["otherData"]["spans_left_out"], 2);
}
