//! One continuation of one prompt as it is read: what each token adds to the answer, whichever way that is sent.

use super::decode::{Decoder, ShownToken, Step, of_prompt};
use super::types::Scores;
use super::validate::Reply;
use crate::api::Api;
use crate::api::feed::{Broken, Feed, Usage};
use crate::api::start::Running;
use crate::api::tgi::FinishReason;
use crate::detokenize::TokenTable;
use crate::engine::GeneratedToken;

/// A continuation that is being read.
pub(super) struct Sequence {
    /// Counts the continuations of all prompts, prompt after prompt.
    pub(super) index: u32,
    /// `None` once the answer is complete: a sequence that met a stop string would run on otherwise.
    pub(super) feed: Option<Feed>,
    /// As of the latest token.
    pub(super) usage: Usage,
    /// `None` when nothing was drawn.
    pub(super) seed: Option<u64>,
    decoder: Decoder,
    /// The prompt, until it has been repeated.
    echo: String,
    prompt_only: bool,
}

/// The continuations of one prompt. `number` counts the prompts.
pub(super) fn continuations(api: &Api, feeds: Vec<Feed>, number: usize, reply: &Reply) -> Vec<Sequence> {
    let echo = reply.echoes.get(number).cloned().unwrap_or_default();
    let first = number * reply.seeds.len();
    let sequence = |((at, feed), &seed): ((usize, Feed), &u64)| Sequence {
        index: (first + at) as u32,
        usage: feed.usage(),
        feed: Some(feed),
        seed: reply.sampled.then_some(seed),
        decoder: Decoder::new(api.prompts.table(), reply.stops.clone(), echo.chars().count()),
        echo: echo.clone(),
        prompt_only: reply.prompt_only,
    };
    feeds.into_iter().enumerate().zip(&reply.seeds).map(sequence).collect()
}

/// The continuations of all prompts.
pub(super) fn of_prompts(api: &Api, running: Vec<Running>, reply: &Reply) -> Vec<Sequence> {
    let prompts = running.into_iter().enumerate();
    prompts.flat_map(|(number, running)| continuations(api, running.feeds, number, reply)).collect()
}

impl Sequence {
    /// The next token. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<GeneratedToken, Broken> {
        match &mut self.feed {
            Some(feed) => feed.next().await,
            None => Err(Broken::Ended),
        }
    }

    /// What this token adds.
    pub(super) fn push(&mut self, token: GeneratedToken) -> Step {
        self.usage = self.feed.as_ref().map_or(self.usage, Feed::usage);
        let echo = std::mem::take(&mut self.echo);
        let prompt = self.feed.as_mut().map(Feed::take_prompt).unwrap_or_default();
        let prompt = of_prompt(prompt, &echo, self.decoder.table());
        let mut step = if self.prompt_only {
            self.usage.generated_tokens = 0;
            Step { prompt, text: String::new(), tokens: Vec::new(), finish: Some(FinishReason::Length) }
        } else {
            Step { prompt, ..self.decoder.push(token) }
        };
        step.text.insert_str(0, &echo);
        if step.finish.is_some() {
            self.feed = None;
        }
        step
    }

    pub(super) fn table(&self) -> &TokenTable {
        self.decoder.table()
    }

    /// The log-probabilities of tokens that are shown, if anybody asked: those of a prompt that is repeated, too.
    pub(super) fn logprobs(&self, prompt: &[ShownToken], tokens: &[ShownToken], reply: &Reply) -> Option<Scores> {
        let repeated = if reply.scored.in_logprobs { prompt } else { &[] };
        reply.logprobs.map(|most| Scores::of(repeated.iter().chain(tokens), most as usize, self.table()))
    }
}
