//! Launcher flags of text-generation-inference that parse and change nothing here, each with its reason. A flag that
//! starts to matter moves out of this file.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use text_generation_router::args::lines_of;

/// Accepted, without effect.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Accepted for compatibility, without effect")]
pub(super) struct LauncherUnservedArgs {
    /// Quantised weights.
    #[arg(long, env = "QUANTIZE", value_parser = QUANTIZATIONS)]
    quantize: Option<String>,
    /// Draft tokens.
    #[arg(long, env = "SPECULATE")]
    speculate: Option<usize>,
    /// Number format of cached keys and values.
    #[arg(long, env = "KV_CACHE_DTYPE", value_parser = ["fp8_e4m3fn", "fp8_e5m2"])]
    kv_cache_dtype: Option<String>,
    /// Run code that comes with a model.
    #[arg(long, env = "TRUST_REMOTE_CODE", value_parser = BoolishValueParser::new())]
    trust_remote_code: bool,
    /// Port for metrics.
    #[arg(long, env = "PROMETHEUS_PORT")]
    prometheus_port: Option<u16>,
    /// Where the shards' sockets are.
    #[arg(long, env = "SHARD_UDS_PATH")]
    shard_uds_path: Option<PathBuf>,
    /// Where the ranks meet.
    #[arg(long, env = "MASTER_ADDR")]
    master_addr: Option<String>,
    /// Another folder of weights.
    #[arg(long, env = "WEIGHTS_CACHE_OVERRIDE")]
    weights_cache_override: Option<PathBuf>,
    /// How positions are stretched.
    #[arg(long, env = "ROPE_SCALING", value_parser = ["linear", "dynamic"])]
    rope_scaling: Option<String>,
    /// By how much positions are stretched.
    #[arg(long, env = "ROPE_FACTOR")]
    rope_factor: Option<f32>,
    /// Adapters to load.
    #[arg(long, env = "LORA_ADAPTERS")]
    lora_adapters: Option<String>,
}

const QUANTIZATIONS: [&str; 10] = [
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
];

impl LauncherUnservedArgs {
    pub(super) fn lines(&self) -> Vec<String> {
        let elsewhere =
            self.master_addr.as_deref().is_some_and(|address| !matches!(address, "localhost" | "127.0.0.1"));
        lines_of(&[
            (self.quantize.is_some(), "--quantize", "quantised weights are not served yet"),
            (self.speculate.is_some(), "--speculate", "speculation is not served yet"),
            (
                self.kv_cache_dtype.is_some(),
                "--kv-cache-dtype",
                "keys and values are kept in the model's number format",
            ),
            (self.trust_remote_code, "--trust-remote-code", "code that comes with a model is never run"),
            (self.prometheus_port.is_some(), "--prometheus-port", "metrics are at /metrics of the main port"),
            (self.shard_uds_path.is_some(), "--shard-uds-path", "sockets live in a private folder of their own"),
            (elsewhere, "--master-addr", "the ranks of one launcher meet on the loopback"),
            (self.weights_cache_override.is_some(), "--weights-cache-override", "give the folder to --model-id"),
            (self.rope_scaling.is_some(), "--rope-scaling", "the model's own positions are used"),
            (self.rope_factor.is_some(), "--rope-factor", "the model's own positions are used"),
            (self.lora_adapters.is_some(), "--lora-adapters", "adapters are not served yet"),
        ])
    }
}
