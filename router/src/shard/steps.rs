//! The `Run` streams of all ranks as one stream of steps.

use text_generation_proto as pb;
use text_generation_scheduler::{SequenceId, StepResult, TokenId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::scores::{self, RowScores};
use super::{ShardError, ShardGroup};

/// Plans or results on their way. Two steps are in flight at most.
const STREAM_DEPTH: usize = 4;

/// One open `Run` stream a rank.
#[derive(Debug)]
pub struct StepStream {
    epoch: u64,
    plans: Vec<mpsc::Sender<pb::StepPlan>>,
    results: Vec<Streaming<pb::StepResult>>,
    /// Results of the ranks that have answered the step under way.
    arrived: Vec<Option<pb::StepResult>>,
}

/// What a step yielded, as the scheduler and the streams want it.
#[derive(Debug)]
pub struct ShardStep {
    /// Tokens and failures, for the scheduler.
    pub result: StepResult,
    /// Log-probability of each entry of `result.sampled`.
    pub logprobs: Vec<f32>,
    /// Best tokens of each entry of `result.sampled`.
    pub top: Vec<Vec<(TokenId, f32)>>,
    /// What is said of prompts, one entry a row that scores.
    pub scores: Vec<RowScores>,
    /// Why each entry of `result.failures` failed.
    pub reasons: Vec<(SequenceId, SequenceFailure)>,
    /// Time spent encoding images, in microseconds.
    pub encode_us: u32,
    /// Time spent in the model and the sampler, in microseconds.
    pub compute_us: u32,
    /// The shard's time for the whole step, in microseconds.
    pub total_us: u32,
    /// What every rank did when, if the plan was timed.
    pub spans: Vec<ShardSpan>,
}

/// A part of a step, in nanoseconds of the machine's monotonic clock.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct ShardSpan {
    /// Who did it.
    pub rank: u32,
    /// What it was.
    pub part: &'static str,
    /// Whether it was done with messages, beside what computes.
    pub on_wire: bool,
    /// Its begin.
    pub began_ns: u64,
    /// Its end.
    pub ended_ns: u64,
}

/// Why a shard gave one sequence up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SequenceFailure {
    /// Its memory was full; trying again may work.
    OutOfMemory,
    /// Anything else, in words for the client.
    Failed(String),
}

impl StepStream {
    pub(super) async fn open(group: &ShardGroup, epoch: u64) -> Result<Self, ShardError> {
        let mut stream = Self { epoch, plans: Vec::new(), results: Vec::new(), arrived: Vec::new() };
        for rank in 0..group.world_size() {
            let (sender, receiver) = mpsc::channel(STREAM_DEPTH);
            let answer = group.client(rank).run(ReceiverStream::new(receiver)).await;
            stream.results.push(answer.map_err(super::group::refused(rank, "Run"))?.into_inner());
            stream.plans.push(sender);
            stream.arrived.push(None);
        }
        Ok(stream)
    }

    /// The epoch every plan of this stream carries.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sends a plan to every rank.
    pub async fn send(&self, plan: pb::StepPlan) -> Result<(), ShardError> {
        for (rank, sender) in self.plans.iter().enumerate() {
            let sent = sender.send(plan.clone()).await;
            sent.map_err(|_| ShardError::Lost { rank, reason: "its stream is closed".into() })?;
        }
        Ok(())
    }

    /// The next step's result, once every rank has given it. Cancel safe. While no step is in flight it
    /// pends, and yields an error as soon as a rank dies.
    pub async fn next(&mut self) -> Result<ShardStep, ShardError> {
        for (rank, stream) in self.results.iter_mut().enumerate() {
            if self.arrived[rank].is_none() {
                self.arrived[rank] = Some(message(rank, stream).await?);
            }
        }
        let ranks: Vec<pb::StepResult> = self.arrived.iter_mut().filter_map(Option::take).collect();
        combine(self.epoch, ranks)
    }
}

async fn message(rank: usize, stream: &mut Streaming<pb::StepResult>) -> Result<pb::StepResult, ShardError> {
    let lost = |reason: String| ShardError::Lost { rank, reason };
    match stream.message().await {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(lost("its stream ended".into())),
        Err(status) => Err(lost(status.message().to_owned())),
    }
}

/// Rank 0 samples; a failure on any rank is a failure.
fn combine(epoch: u64, ranks: Vec<pb::StepResult>) -> Result<ShardStep, ShardError> {
    let step = ranks[0].step;
    if let Some(odd) = ranks.iter().find(|result| (result.epoch, result.step) != (epoch, step)) {
        return Err(ShardError::Disagree(format!(
            "step {} of epoch {} instead of {step} of {epoch}",
            odd.step, odd.epoch
        )));
    }
    let mut reasons: Vec<(SequenceId, SequenceFailure)> = Vec::new();
    for failure in ranks.iter().flat_map(|result| &result.failures) {
        let sequence = SequenceId(failure.sequence);
        if !reasons.iter().any(|(failed, _)| *failed == sequence) {
            reasons.push((sequence, reason(failure)));
        }
    }
    let encode_us = ranks.iter().map(|result| result.encode_us).max().unwrap_or(0);
    let total_us = ranks.iter().map(|result| result.total_us).max().unwrap_or(0);
    let compute_us = ranks.iter().map(|result| result.compute_us).max().unwrap_or(0);
    let spans = (0..).zip(&ranks).flat_map(|(rank, result)| spans(rank, result)).collect();
    let Some(first) = ranks.into_iter().next() else {
        return Err(ShardError::Disagree("no rank answered".into()));
    };
    let (sampled, logprobs, top) = sampled(&first, &reasons)?;
    let scores = scores::of_result(&first)?;
    let failures = reasons.iter().map(|(sequence, _)| *sequence).collect();
    let result = StepResult { step, sampled, failures };
    Ok(ShardStep { result, logprobs, top, scores, reasons, encode_us, compute_us, total_us, spans })
}

/// Only for people: a part that is unknown here, or arrays of different lengths, break nothing.
fn spans(rank: u32, result: &pb::StepResult) -> Vec<ShardSpan> {
    let times = result.part_began_ns.iter().zip(&result.part_ended_ns);
    let named = result.part().zip(times).map(|(part, (&began_ns, &ended_ns))| {
        let (part, on_wire) = match part {
            pb::StepPart::Receive => ("receive", true),
            pb::StepPart::Learn => ("learn", false),
            pb::StepPart::Encode => ("encode images", false),
            pb::StepPart::Launch => ("launch", false),
            pb::StepPart::Wait => ("wait", false),
            pb::StepPart::Send => ("send", true),
        };
        ShardSpan { rank, part, on_wire, began_ns, ended_ns: ended_ns.max(began_ns) }
    });
    named.collect()
}

type Sampled = (Vec<(SequenceId, TokenId)>, Vec<f32>, Vec<Vec<(TokenId, f32)>>);

fn sampled(result: &pb::StepResult, failed: &[(SequenceId, SequenceFailure)]) -> Result<Sampled, ShardError> {
    let count = result.sampled_sequence.len();
    let tops: usize = result.row_num_top.iter().map(|&number| number as usize).sum();
    let whole = result.sampled_token.len() == count
        && result.sampled_logprob.len() == count
        && (result.row_num_top.is_empty() || result.row_num_top.len() == count)
        && (result.top_token.len(), result.top_logprob.len()) == (tops, tops);
    if !whole {
        return Err(ShardError::Disagree("a result's arrays have different lengths".into()));
    }
    let mut best = result.top_token.iter().copied().zip(result.top_logprob.iter().copied());
    let mut all: Sampled = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
    for row in 0..count {
        let number = result.row_num_top.get(row).copied().unwrap_or(0) as usize;
        let top = best.by_ref().take(number).collect();
        let sequence = SequenceId(result.sampled_sequence[row]);
        // A row that failed on another rank has a token here; it does not count.
        if failed.iter().any(|(gone, _)| *gone == sequence) {
            continue;
        }
        all.0.push((sequence, result.sampled_token[row]));
        all.1.push(result.sampled_logprob[row]);
        all.2.push(top);
    }
    Ok(all)
}

fn reason(failure: &pb::SequenceFailure) -> SequenceFailure {
    match failure.kind() {
        pb::FailureKind::OutOfMemory => SequenceFailure::OutOfMemory,
        _ => SequenceFailure::Failed(failure.message.chars().take(200).collect()),
    }
}
