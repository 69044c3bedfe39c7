//! Flags of text-generation-inference that parse and change nothing here. Each that is set gets one log line with
//! the reason: none is silently ignored. A flag that starts to matter moves out of this file.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

/// Whether usage statistics would be sent, if any were.
#[derive(Copy, Clone, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum UsageStats {
    /// Send them.
    On,
    /// Send none.
    Off,
    /// Send them without stack traces.
    NoStack,
}

/// Accepted, without effect.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Accepted for compatibility, without effect")]
pub struct UnservedArgs {
    /// Threads that tokenise.
    #[arg(long, env = "VALIDATION_WORKERS")]
    validation_workers: Option<usize>,

    /// When waiting requests interrupt running ones.
    #[arg(long, env = "WAITING_SERVED_RATIO")]
    waiting_served_ratio: Option<f32>,

    /// How long waiting requests wait for running ones.
    #[arg(long, env = "MAX_WAITING_TOKENS")]
    max_waiting_tokens: Option<usize>,

    /// Another tokenizer configuration.
    #[arg(long, env = "TOKENIZER_CONFIG_PATH")]
    tokenizer_config_path: Option<PathBuf>,

    /// Where traces go.
    #[arg(long, env = "OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,

    /// Under which name traces go.
    #[arg(long, env = "OTLP_SERVICE_NAME")]
    otlp_service_name: Option<String>,

    /// Usage statistics; none are ever sent.
    #[arg(long, env = "USAGE_STATS", value_enum)]
    usage_stats: Option<UsageStats>,

    /// A tunnel to the outside.
    #[arg(long, env = "NGROK", value_parser = BoolishValueParser::new())]
    ngrok: bool,

    /// The tunnel's token.
    #[arg(long, env = "NGROK_AUTHTOKEN", hide_env_values = true)]
    ngrok_authtoken: Option<String>,

    /// The tunnel's edge.
    #[arg(long, env = "NGROK_EDGE")]
    ngrok_edge: Option<String>,
}

impl UnservedArgs {
    pub(super) fn lines(&self) -> Vec<String> {
        let statistics_wanted = self.usage_stats.is_some_and(|wanted| wanted != UsageStats::Off);
        lines_of(&[
            (self.validation_workers.is_some(), "--validation-workers", "tokenising takes as many threads as it needs"),
            (
                self.waiting_served_ratio.is_some(),
                "--waiting-served-ratio",
                "prompts join running requests at every step",
            ),
            (self.max_waiting_tokens.is_some(), "--max-waiting-tokens", "prompts join running requests at every step"),
            (self.tokenizer_config_path.is_some(), "--tokenizer-config-path", "the model's own configuration is used"),
            (self.otlp_endpoint.is_some(), "--otlp-endpoint", "traces are not exported yet"),
            (self.otlp_service_name.is_some(), "--otlp-service-name", "traces are not exported yet"),
            (statistics_wanted, "--usage-stats", "nothing is ever sent"),
            (self.ngrok, "--ngrok", "tunnels are left to other programs"),
            (self.ngrok_authtoken.is_some(), "--ngrok-authtoken", "tunnels are left to other programs"),
            (self.ngrok_edge.is_some(), "--ngrok-edge", "tunnels are left to other programs"),
        ])
    }
}

/// Turns rows of (was it set, flag, reason) into the lines to log.
pub fn lines_of(rows: &[(bool, &str, &str)]) -> Vec<String> {
    rows.iter().filter(|(set, ..)| *set).map(|(_, flag, reason)| format!("{flag} has no effect: {reason}")).collect()
}
