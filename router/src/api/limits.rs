//! How much a request may ask for. Names and defaults of TGI's flags where it has one. Limits on images live with
//! the image loader, limits on text with the prompt builder, limits on tokens with the engine.

use std::time::Duration;

/// Limits on what a request may contain, each with a default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestLimits {
    /// `best_of`, and `n` on `/v1` (`--max-best-of`).
    pub max_best_of: u32,
    /// Stop strings of a request (`--max-stop-sequences`).
    pub max_stop_sequences: usize,
    /// Bytes of one stop string.
    pub max_stop_bytes: usize,
    /// `top_n_tokens`, and `top_logprobs` on `/v1` (`--max-top-n-tokens`).
    pub max_top_n_tokens: u32,
    /// Whether `decoder_input_details` lists the tokens of the prompt (`--enable-prefill-logprobs`).
    pub prefill_logprobs: bool,
    /// Prompts of one `/v1/completions` request (`--max-client-batch-size`).
    pub max_client_batch_size: usize,
    /// Messages of a conversation.
    pub max_messages: usize,
    /// Content parts of a conversation.
    pub max_parts: usize,
    /// Tools of a request.
    pub max_tools: usize,
    /// Bytes of a body (`--payload-limit`).
    pub payload_limit: usize,
    /// Time for a whole body to arrive.
    pub body_timeout: Duration,
    /// Longest pause within a body.
    pub body_pause: Duration,
    /// Bytes of a URI.
    pub max_uri_bytes: usize,
    /// Fields of a head.
    pub max_headers: usize,
    /// Bytes of all fields of a head.
    pub max_head_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_best_of: 2,
            max_stop_sequences: 4,
            max_stop_bytes: 1024,
            max_top_n_tokens: 5,
            prefill_logprobs: false,
            max_client_batch_size: 4,
            max_messages: 1024,
            max_parts: 4096,
            max_tools: 128,
            payload_limit: 32 << 20,
            body_timeout: Duration::from_mins(1),
            body_pause: Duration::from_secs(15),
            max_uri_bytes: 8 << 10,
            max_headers: 100,
            max_head_bytes: 64 << 10,
        }
    }
}
