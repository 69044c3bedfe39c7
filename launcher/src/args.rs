//! Flags of the launcher: its own, and those it shares with the router. Nothing else in this crate reads flags or the
//! environment.

mod unserved;

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use text_generation_router::args::RouterArgs;

use crate::devices::VisibleDevices;
use crate::error::LaunchError;
use unserved::LauncherUnservedArgs;

/// More would leave nothing of the model's own choice.
const MAX_WATERMARK_DELTA: f32 = 100.0;

/// Serves a vision-language model: starts its shards and the router, watches them, stops them.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "text-generation-launcher", version, about, args_override_self = true)]
pub struct LauncherArgs {
    /// Which model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// How its shards run.
    #[command(flatten)]
    pub shards: ShardArgs,
    /// What the router does.
    #[command(flatten)]
    pub router: RouterArgs,
    #[command(flatten)]
    unserved: LauncherUnservedArgs,

    /// Print what this machine offers and what would be used, then end.
    #[arg(short, long)]
    pub env: bool,
}

/// Which model, and where its files are kept.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Folder of a model, or its name on the Hugging Face Hub [default: the small model in this package].
    #[arg(long, env = "MODEL_ID", value_name = "DIR|NAME")]
    pub model_id: Option<String>,

    /// Branch, tag or commit on the Hub; it applies to every file.
    #[arg(long, env = "REVISION")]
    pub revision: Option<String>,

    /// Number format of the weights: float32, float16 or bfloat16 [default: the model's own].
    #[arg(long, env = "DTYPE", value_parser = ["float32", "float16", "bfloat16"])]
    pub dtype: Option<String>,

    /// Folder for files from the Hub; the same as `HF_HUB_CACHE`.
    #[arg(long, env = "HUGGINGFACE_HUB_CACHE", value_name = "DIR")]
    pub huggingface_hub_cache: Option<PathBuf>,

    /// Token for the Hub, from the variables that are in use besides `HF_TOKEN`.
    #[arg(long, env = "HF_API_TOKEN", hide = true, hide_env_values = true)]
    hf_api_token: Option<String>,
    #[arg(long, env = "HUGGING_FACE_HUB_TOKEN", hide = true, hide_env_values = true)]
    hugging_face_hub_token: Option<String>,
    #[arg(long, env = "HF_TOKEN", hide = true, hide_env_values = true)]
    hf_token: Option<String>,
}

impl ModelArgs {
    /// The Hub token by whichever name it came, the current name first.
    pub fn hub_token(&self) -> Option<&str> {
        [&self.hf_token, &self.hf_api_token, &self.hugging_face_hub_token]
            .into_iter()
            .flatten()
            .next()
            .map(String::as_str)
    }

    /// What people are told is being served.
    pub fn name(&self) -> &str {
        self.model_id.as_deref().unwrap_or("the embedded model")
    }
}

/// How many shards, on what, with which kernels.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Shards")]
pub struct ShardArgs {
    /// true: one shard for each visible GPU; false: one shard.
    #[arg(long, env = "SHARDED", value_parser = BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub sharded: Option<bool>,

    /// Ranks that share the model [default: one for each visible GPU]. On a CPU two are two processes.
    #[arg(long, env = "NUM_SHARD", value_parser = clap::value_parser!(u32).range(1..))]
    pub num_shard: Option<u32>,

    /// Device of the shards: cpu or cuda [default: a GPU if there is one].
    #[arg(long, env = "DEVICE", value_parser = ["auto", "cpu", "cuda"])]
    pub device: Option<String>,

    /// Attention backend: torch, triton, `flash_attn` [default: triton on a GPU, else torch].
    #[arg(long, env = "ATTENTION")]
    pub attention: Option<String>,

    /// Use no kernels of our own; the same as `--attention torch`.
    #[arg(long, env = "DISABLE_CUSTOM_KERNELS", value_parser = BoolishValueParser::new())]
    pub disable_custom_kernels: bool,

    /// Share of a GPU's memory that a shard may take.
    #[arg(long, env = "CUDA_MEMORY_FRACTION", value_parser = fraction)]
    pub cuda_memory_fraction: Option<f32>,

    /// Batch sizes of decode steps that are captured as CUDA graphs, with commas between; 0 captures none
    /// [default: 1, 2, 4, 8 and so on in steps of 8].
    #[arg(long, env = "CUDA_GRAPHS", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=65536))]
    pub cuda_graphs: Option<Vec<u32>>,

    /// Megabytes for keys and values where the model runs on a CPU.
    #[arg(long, env = "CPU_KV_CACHE_MB", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpu_kv_cache_mb: Option<u32>,

    /// Threads that compute in each shard [default: all cores, shared out among the shards].
    #[arg(long, env = "NUM_THREADS", value_parser = clap::value_parser!(u32).range(1..))]
    pub num_threads: Option<u32>,

    /// Share of the vocabulary that a watermark favours [default: 0.5].
    #[arg(long, env = "WATERMARK_GAMMA", value_parser = share)]
    pub watermark_gamma: Option<f32>,

    /// What a watermark adds to the scores of those tokens [default: 2].
    #[arg(long, env = "WATERMARK_DELTA", value_parser = strength)]
    pub watermark_delta: Option<f32>,

    /// Port on the loopback where the ranks meet [default: a free one].
    #[arg(long, env = "MASTER_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub master_port: Option<u16>,

    /// Restarts of failed shards in ten minutes before the launcher gives up; 0 gives up at once.
    #[arg(long, env = "MAX_SHARD_RESTARTS", default_value_t = 3)]
    pub max_shard_restarts: u32,

    /// The shard program [default: text-generation-server beside this program, else on PATH].
    #[arg(long, env = "TEXT_GENERATION_SERVER", value_name = "FILE")]
    pub text_generation_server: Option<PathBuf>,

    /// What of this machine's environment decides the number of shards and where programs are.
    #[command(flatten)]
    pub visible: VisibleArgs,
}

/// Variables of the machine, read like flags so that everything below receives values.
#[derive(Clone, Debug, clap::Args)]
pub struct VisibleArgs {
    #[arg(long, env = "CUDA_VISIBLE_DEVICES", hide = true)]
    cuda_visible_devices: Option<String>,
    #[arg(long, env = "NVIDIA_VISIBLE_DEVICES", hide = true)]
    nvidia_visible_devices: Option<String>,
    #[arg(long, env = "ZE_AFFINITY_MASK", hide = true)]
    ze_affinity_mask: Option<String>,
    /// Folders that programs are looked for in.
    #[arg(long, env = "PATH", hide = true, hide_env_values = true)]
    pub path: Option<String>,
}

impl ShardArgs {
    /// Backend to ask the shards for.
    pub fn attention(&self) -> Option<&str> {
        if self.disable_custom_kernels { Some("torch") } else { self.attention.as_deref() }
    }

    /// Number of ranks.
    ///
    /// # Errors
    /// More ranks than GPUs, or `--sharded true` where there is nothing to share.
    pub fn world_size(&self) -> Result<u32, LaunchError> {
        let devices = if self.device.as_deref() == Some("cpu") { None } else { self.visible_devices().count() };
        crate::devices::world_size(self.sharded, self.num_shard, devices)
    }

    fn visible_devices(&self) -> VisibleDevices<'_> {
        VisibleDevices {
            cuda: self.visible.cuda_visible_devices.as_deref(),
            nvidia: self.visible.nvidia_visible_devices.as_deref(),
            level_zero: self.visible.ze_affinity_mask.as_deref(),
        }
    }
}

impl LauncherArgs {
    /// One line, with the reason, for each flag that was set and changes nothing.
    pub fn not_served(&self) -> Vec<String> {
        [self.router.not_served(), self.unserved.lines()].concat()
    }
}

impl AsMut<RouterArgs> for LauncherArgs {
    fn as_mut(&mut self) -> &mut RouterArgs {
        &mut self.router
    }
}

fn fraction(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("must be above 0 and at most 1".to_owned()) }
}

fn share(text: &str) -> Result<f32, String> {
    let share: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err("must be above 0 and below 1".to_owned()) }
}

fn strength(text: &str) -> Result<f32, String> {
    let added: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=MAX_WATERMARK_DELTA).contains(&added) {
        Ok(added)
    } else {
        Err(format!("must be 0 to {MAX_WATERMARK_DELTA}"))
    }
}

#[cfg(test)]
mod tests;
