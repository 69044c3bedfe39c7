//! Spans as Chrome's trace events: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
//! Requests, uploads and steps overlap and so are asynchronous events, a pair each; a shard's threads do one thing
//! after another and have complete events.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use super::{Span, Track};

const ROUTER: u32 = 1;
/// Rank 0 is this process; the others follow.
const FIRST_SHARD: u32 = 2;
const WIRE_THREAD: u32 = 1;
const COMPUTE_THREAD: u32 = 2;

/// Writes a whole file, whatever the spans are.
pub(super) fn write(file: impl Write, spans: &[Span], left_out: u64) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write!(
        out,
        "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"clock\":\"CLOCK_MONOTONIC\",\"spans_left_out\":{left_out}}},"
    )?;
    write!(
        out,
        "\"traceEvents\":[\n{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{ROUTER},\"tid\":0,\"args\":{{\"name\":\"router\"}}}}"
    )?;
    for rank in ranks(spans) {
        write_names(&mut out, rank)?;
    }
    for span in spans.iter().filter(|span| !is_asynchronous(span.track)) {
        write_complete(&mut out, span)?;
    }
    for edge in edges(spans) {
        write_edge(&mut out, &edge)?;
    }
    out.write_all(b"\n]}\n")?;
    out.flush()
}

/// One end of an asynchronous span.
struct Edge<'a> {
    span: &'a Span,
    begins: bool,
}

/// Ends in the order of time. Readers pair them like brackets, so where several fall together an inner span ends
/// before an outer one, what ends comes before what begins, and an outer span begins before an inner one.
fn edges(spans: &[Span]) -> Vec<Edge<'_>> {
    let asynchronous = spans.iter().filter(|span| is_asynchronous(span.track));
    let mut edges: Vec<_> = (0..).zip(asynchronous).flat_map(|(index, span)| both_ends(index, span)).collect();
    edges.sort_by_key(|(place, _)| *place);
    edges.into_iter().map(|(_, edge)| edge).collect()
}

/// A place in the order: time, what comes first of several, length, and what was kept first.
type Place = (u64, u8, u64, i64);

fn both_ends(index: i64, span: &Span) -> [(Place, Edge<'_>); 2] {
    let length = span.ended_ns.saturating_sub(span.began_ns);
    let begin = (span.began_ns, 1, u64::MAX - length, index);
    let end = (span.began_ns + length, if length == 0 { 2 } else { 0 }, length, -index);
    [(begin, Edge { span, begins: true }), (end, Edge { span, begins: false })]
}

fn is_asynchronous(track: Track) -> bool {
    !matches!(track, Track::ShardWire(_) | Track::ShardCompute(_))
}

fn ranks(spans: &[Span]) -> BTreeSet<u32> {
    let rank = |span: &Span| match span.track {
        Track::ShardWire(rank) | Track::ShardCompute(rank) => Some(rank),
        _ => None,
    };
    spans.iter().filter_map(rank).collect()
}

fn write_names(out: &mut impl Write, rank: u32) -> io::Result<()> {
    let pid = FIRST_SHARD + rank;
    write!(
        out,
        ",\n{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{pid},\"tid\":0,\"args\":{{\"name\":\"shard {rank}\"}}}}"
    )?;
    for (tid, name) in [(WIRE_THREAD, "wire"), (COMPUTE_THREAD, "compute")] {
        write!(
            out,
            ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":\"{name}\"}}}}"
        )?;
    }
    Ok(())
}

fn write_complete(out: &mut impl Write, span: &Span) -> io::Result<()> {
    let (rank, tid) = match span.track {
        Track::ShardWire(rank) => (rank, WIRE_THREAD),
        Track::ShardCompute(rank) => (rank, COMPUTE_THREAD),
        _ => return Ok(()),
    };
    let (pid, began, length) = (FIRST_SHARD + rank, span.began_ns, span.ended_ns.saturating_sub(span.began_ns));
    write!(out, ",\n{{\"name\":\"{}\",\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},", span.name)?;
    write!(out, "\"ts\":{},\"dur\":{}", Micros(began), Micros(length))?;
    write_facts(out, &span.facts)
}

fn write_edge(out: &mut impl Write, Edge { span, begins }: &Edge<'_>) -> io::Result<()> {
    let (phase, at) = if *begins { ('b', span.began_ns) } else { ('e', span.ended_ns) };
    write!(out, ",\n{{\"name\":\"{}\",\"ph\":\"{phase}\",\"pid\":{ROUTER},\"tid\":0,", span.name)?;
    match span.track {
        Track::Request(number) => write!(out, "\"cat\":\"request\",\"id\":\"{number}\",")?,
        Track::Image(request, index) => write!(out, "\"cat\":\"image\",\"id\":\"{request}.{index}\",")?,
        Track::Upload(number) => write!(out, "\"cat\":\"upload\",\"id\":\"{number}\",")?,
        Track::Step(epoch, step) => write!(out, "\"cat\":\"step\",\"id\":\"{epoch}.{step}\",")?,
        Track::ShardWire(_) | Track::ShardCompute(_) => {}
    }
    write!(out, "\"ts\":{}", Micros(at))?;
    write_facts(out, if *begins { &span.facts } else { &[] })
}

fn write_facts(out: &mut impl Write, facts: &[(&'static str, u64)]) -> io::Result<()> {
    for (index, (name, value)) in facts.iter().enumerate() {
        let before = if index == 0 { ",\"args\":{" } else { "," };
        write!(out, "{before}\"{name}\":{value}")?;
    }
    write!(out, "{}", if facts.is_empty() { "}" } else { "}}" })
}

/// Nanoseconds in the unit of the format, none of them lost.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
