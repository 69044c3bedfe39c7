//! From a request that is valid to tokens that flow: permit, images, prompt, sequences. The same path for every route;
//! what the JSON looked like is forgotten here. Dropping the future at any point gives everything back.

use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, histogram};
use text_generation_scheduler::TokenId;

use super::error::ApiError;
use super::feed::Feed;
use super::generator::{Admission, Tokens};
use super::media::ImageLink;
use super::timing::Stopwatch;
use super::{Api, guided, media};
use crate::engine::{Arrival, GenerateRequest};
use crate::grammar::{Grammar, GrammarSource};
use crate::images::LoadedImage;
use crate::prompt::{Conversation, Prompt, Segment};
use crate::sampling::Sampling;

/// Answers this long are cut to what the context holds; shorter ones are refused when they do not fit. As TGI counts.
const CUTTABLE_TOKENS: u32 = 1024;

/// A request that passed every check that costs nothing.
#[derive(Debug)]
pub(super) struct ValidRequest {
    pub(super) input: Input,
    pub(super) image_urls: Vec<ImageLink>,
    pub(super) sampling: Sampling,
    /// One a sequence.
    pub(super) seeds: Vec<u64>,
    pub(super) max_new_tokens: Option<u32>,
    pub(super) ignore_eos: bool,
    /// What the answer may be; anything, if nobody says.
    pub(super) grammar: Option<GrammarSource>,
    /// Best tokens listed in the place of each token of the prompt, if these are to be scored.
    pub(super) score_prompt: Option<u32>,
    /// Characters of the input as the client wrote it.
    pub(super) characters: usize,
}

/// What becomes the prompt.
#[derive(Debug)]
pub(super) enum Input {
    /// TGI's `inputs`.
    Segments { segments: Vec<Segment>, truncate: Option<u32> },
    /// A prompt that was tokenised by the client.
    TokenIds { ids: Vec<TokenId>, truncate: Option<u32> },
    /// Messages for the chat template.
    Conversation(Conversation),
}

/// Sequences that have been submitted. Dropping it cancels them.
pub(super) struct Running {
    pub(super) feeds: Vec<Feed>,
    pub(super) stopwatch: Stopwatch,
    pub(super) characters: usize,
}

impl Api {
    /// Does the expensive half of a request, cheapest part first.
    pub(super) async fn start(&self, request: ValidRequest, mut stopwatch: Stopwatch) -> Result<Running, ApiError> {
        let admissions = self.admit(request.seeds.len())?;
        let grammar = self.grammar(request.grammar, request.ignore_eos).await?;
        let arrival = Arrival { request: stopwatch.started(), images: Instant::now() };
        let images = media::load(self, request.image_urls).await?;
        stopwatch.loaded(&images);
        let prompt = self.prompt(request.input, images).await?;
        let asked = self.fit(request.max_new_tokens, &prompt);
        let sequence = GenerateRequest {
            prompt,
            sampling: request.sampling,
            max_new_tokens: asked,
            ignore_eos: request.ignore_eos,
            grammar,
            score_prompt: request.score_prompt,
            arrival,
        };
        let tokens = submit(admissions, sequence, &request.seeds)?;
        stopwatch.submitted();
        let feeds = tokens.into_iter().map(|tokens| Feed::new(tokens, stopwatch.started())).collect();
        Ok(Running { feeds, stopwatch, characters: request.characters })
    }

    /// A permit for every sequence, or none.
    fn admit(&self, sequences: usize) -> Result<Vec<Box<dyn Admission>>, ApiError> {
        (0..sequences).map(|_| Ok(self.generator.admit()?)).collect()
    }

    /// What the answer is held to, compiled before anything expensive is done for it.
    async fn grammar(&self, asked: Option<GrammarSource>, ignore_eos: bool) -> Result<Option<Arc<Grammar>>, ApiError> {
        let Some(source) = asked else { return Ok(None) };
        if ignore_eos {
            return Err(ApiError::field("ignore_eos", "must not be set with a grammar: its end is the answer's end"));
        }
        let Some(compiler) = &self.grammars else {
            return Err(ApiError::field(guided::FIELD, "is refused: this server runs with --disable-grammar-support"));
        };
        Ok(Some(Arc::new(compiler.compile(source).await?)))
    }

    pub(super) async fn prompt(&self, input: Input, images: Vec<LoadedImage>) -> Result<Prompt, ApiError> {
        let prompt = match input {
            Input::Segments { segments, truncate } => self.prompts.raw(segments, images, truncate).await?,
            Input::TokenIds { ids, truncate } => self.prompts.of_ids(ids, truncate)?,
            Input::Conversation(conversation) => self.prompts.chat(conversation, images).await?,
        };
        counter!("tgi_image_tokens").increment(u64::from(prompt.image_tokens()));
        counter!("tgi_prompt_tokens").increment(prompt.token_ids.len() as u64);
        histogram!("tgi_request_input_length").record(prompt.token_ids.len() as f64);
        Ok(prompt)
    }

    /// What a sequence may generate. More than the context holds is cut to it where TGI would not have refused.
    fn fit(&self, asked: Option<u32>, prompt: &Prompt) -> Option<u32> {
        let room = self.generator.limits().max_total_tokens.saturating_sub(prompt.token_ids.len() as u32);
        histogram!("tgi_request_max_new_tokens").record(asked.unwrap_or(room).min(room));
        asked.map(|asked| if room >= CUTTABLE_TOKENS { asked.min(room) } else { asked })
    }
}

/// Submits one sequence a seed. When one is refused those before it are cancelled by being dropped.
fn submit(
    admissions: Vec<Box<dyn Admission>>,
    sequence: GenerateRequest,
    seeds: &[u64],
) -> Result<Vec<Box<dyn Tokens>>, ApiError> {
    // The last repetition is the original, so that a single sequence costs no copy of its prompt.
    let sequences = std::iter::repeat_n(sequence, seeds.len()).zip(seeds);
    let submitted = admissions.into_iter().zip(sequences).map(|(admission, (mut sequence, &seed))| {
        sequence.sampling.seed = seed;
        Ok(admission.submit(sequence)?)
    });
    submitted.collect()
}
