//! How the next token of a sequence is chosen. Values only; ranges are checked where requests are parsed.

use text_generation_scheduler::TokenId;

/// How the next token is chosen. The default is greedy with every filter neutral.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Take the best token; filters and temperature still shape warped log-probabilities.
    pub greedy: bool,
    /// Divides the logits; 1 is neutral.
    pub temperature: f32,
    /// Keep the k best tokens; 0 is neutral.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches p; 1 is neutral.
    pub top_p: f32,
    /// Keep the tokens closest to the expected information; 1 is neutral.
    pub typical_p: f32,
    /// Multiplicative penalty on every id of prompt and output; 1 is neutral.
    pub repetition_penalty: f32,
    /// Subtracted in proportion to a count, see [`PenaltyScope`]; 0 is neutral.
    pub frequency_penalty: f32,
    /// Subtracted once from every id in the output; 0 is neutral.
    pub presence_penalty: f32,
    /// With the position it decides every random number of the sequence.
    pub seed: u64,
    /// Best tokens reported beside the chosen one.
    pub num_top_tokens: u32,
    /// Which distribution log-probabilities come from.
    pub logprobs: LogprobSource,
    /// What the frequency penalty counts.
    pub penalty_scope: PenaltyScope,
    /// Added to the scores of these tokens, after the penalties; no token twice.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Whether the token before favours some of the vocabulary, as the shards were told.
    pub watermark: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            greedy: true,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
            num_top_tokens: 0,
            logprobs: LogprobSource::Warped,
            penalty_scope: PenaltyScope::Output,
            logit_bias: Vec::new(),
            watermark: false,
        }
    }
}

impl Sampling {
    /// Whether a penalty looks at the prompt, so that the shard has to be told its ids.
    pub fn needs_prompt(&self) -> bool {
        let frequency = self.frequency_penalty != 0.0 && self.penalty_scope == PenaltyScope::AllRelative;
        frequency || (self.repetition_penalty - 1.0).abs() > f32::EPSILON
    }
}

/// Which distribution log-probabilities come from.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum LogprobSource {
    /// After penalties, temperature and filters, as TGI reports them.
    Warped,
    /// Straight from the model's logits, as OpenAI reports them.
    Raw,
}

/// What the frequency penalty counts.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum PenaltyScope {
    /// Occurrences in the output (OpenAI).
    Output,
    /// Occurrences in prompt and output, divided by their length (TGI).
    AllRelative,
}
