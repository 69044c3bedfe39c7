//! What one request may ask for, and how much work a step holds.

use clap::builder::BoolishValueParser;

/// Ceilings for one request.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Limits for a request")]
pub struct LimitArgs {
    /// Requests that may be in the server at once, waiting ones included. One more gets a 429 at once.
    #[arg(long, env = "MAX_CONCURRENT_REQUESTS", default_value_t = 128)]
    pub max_concurrent_requests: usize,

    /// Largest `best_of` and `n`.
    #[arg(long, env = "MAX_BEST_OF", default_value_t = 2)]
    pub max_best_of: usize,

    /// Most stop strings.
    #[arg(long, env = "MAX_STOP_SEQUENCES", default_value_t = 4)]
    pub max_stop_sequences: usize,

    /// Largest `top_n_tokens`.
    #[arg(long, env = "MAX_TOP_N_TOKENS", default_value_t = 5)]
    pub max_top_n_tokens: u32,

    /// Longest prompt in tokens, images included [default: the total less one].
    #[arg(long, env = "MAX_INPUT_TOKENS", conflicts_with = "max_input_length")]
    max_input_tokens: Option<u32>,

    /// Old name of --max-input-tokens.
    #[arg(long, env = "MAX_INPUT_LENGTH", hide = true)]
    max_input_length: Option<u32>,

    /// Longest prompt plus answer in tokens [default: what the model was made for, as memory allows].
    #[arg(long, env = "MAX_TOTAL_TOKENS")]
    pub max_total_tokens: Option<u32>,

    /// Most prompts in one `/v1/completions` request.
    #[arg(long, env = "MAX_CLIENT_BATCH_SIZE", default_value_t = 4)]
    pub max_client_batch_size: usize,

    /// Largest request body in bytes.
    #[arg(long, env = "PAYLOAD_LIMIT", default_value_t = 33_554_432)]
    pub payload_limit: usize,

    /// List the tokens of the prompt with their log-probabilities for `decoder_input_details`; without this flag the list
    /// is empty. `/v1/completions` lists them for `echo` with `logprobs` either way.
    #[arg(long, env = "ENABLE_PREFILL_LOGPROBS", value_parser = BoolishValueParser::new())]
    pub enable_prefill_logprobs: bool,

    /// Refuse every request that carries a grammar, a schema or a tool to be enforced.
    #[arg(long, env = "DISABLE_GRAMMAR_SUPPORT", value_parser = BoolishValueParser::new())]
    pub disable_grammar_support: bool,

    /// Largest grammar or schema in bytes.
    #[arg(long, env = "MAX_GRAMMAR_BYTES", default_value_t = 128 << 10)]
    pub max_grammar_bytes: usize,

    /// Milliseconds that compiling a grammar may take. One that takes longer is refused.
    #[arg(long, env = "GRAMMAR_TIMEOUT_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub grammar_timeout_ms: u64,
}

impl LimitArgs {
    /// Longest prompt in tokens, by either name of the flag.
    pub fn max_input_tokens(&self) -> Option<u32> {
        self.max_input_tokens.or(self.max_input_length)
    }
}

/// Budgets of a step and of the caches in the shard.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Scheduling")]
pub struct SchedulingArgs {
    /// Tokens that one step computes at most: prompts are cut into chunks that fit.
    #[arg(long, env = "MAX_BATCH_PREFILL_TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_prefill_tokens: Option<u32>,

    /// Tokens whose keys and values may be kept at once [default: as many as memory holds].
    #[arg(long, env = "MAX_BATCH_TOTAL_TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_total_tokens: Option<u32>,

    /// Sequences in one step at most.
    #[arg(long, env = "MAX_BATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_size: Option<u32>,

    /// Image tokens that one step encodes at most; an image larger than this still gets a step of its own.
    #[arg(long, env = "MAX_STEP_IMAGE_TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_step_image_tokens: Option<u32>,

    /// Image tokens whose embeddings stay in the shard, so that an image seen before is not encoded again.
    #[arg(long, env = "EMBEDDING_CACHE_TOKENS")]
    pub embedding_cache_tokens: Option<u32>,

    /// Tokens in a block of the key-value cache [default: what the attention backend likes best].
    #[arg(long, env = "BLOCK_SIZE", value_parser = clap::value_parser!(u32).range(1..))]
    pub block_size: Option<u32>,

    /// Keep computed prompts and reuse what a new prompt shares with them: true or false.
    #[arg(long, env = "PREFIX_CACHING", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set, default_value_t = true, value_name = "BOOL")]
    pub prefix_caching: bool,
}
