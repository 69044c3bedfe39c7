//! The command lines of the Python program. Everything a shard is told is in its arguments; of the environment it
//! gets no secret that it does not need.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::os::unix::process::CommandExt;

use crate::args::LauncherArgs;
use crate::error::LaunchError;
use crate::logs::shard_level;

/// Variables that mean something to us and nothing to a shard: secrets, and settings that arrive as arguments.
const NOT_FOR_CHILDREN: [&str; 9] = [
    "API_KEY",
    "API_KEY_FILE",
    "NGROK_AUTHTOKEN",
    "HF_TOKEN",
    "HF_API_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "LOG_LEVEL",
    "JSON_OUTPUT",
    "MASTER_PORT",
];

/// How the Python program is called.
#[derive(Clone, Debug)]
pub(crate) struct ServerProgram {
    pub(crate) path: PathBuf,
    model_id: Option<String>,
    revision: Option<String>,
    hub_token: Option<String>,
    hub_cache: Option<PathBuf>,
    shard_options: Vec<String>,
    num_threads: Option<u32>,
    log_level: &'static str,
}

/// What differs from rank to rank and from start to start.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) rank: u32,
    pub(crate) world_size: u32,
    pub(crate) prepared: &'a Path,
    pub(crate) socket: &'a Path,
    pub(crate) master_port: u16,
}

impl ServerProgram {
    pub(crate) fn new(path: PathBuf, args: &LauncherArgs) -> Self {
        Self {
            path,
            model_id: args.model.model_id.clone(),
            revision: args.model.revision.clone(),
            hub_token: args.model.hub_token().map(str::to_owned),
            hub_cache: args.model.huggingface_hub_cache.clone(),
            shard_options: shard_options(args),
            num_threads: args.shards.num_threads,
            log_level: shard_level(&args.router.process.log_level),
        }
    }

    /// Resolves and downloads the model; prints the path of the prepared file.
    pub(crate) fn prepare(&self) -> Command {
        let mut command = self.command("prepare");
        command.args(option("--model-id", self.model_id.as_deref()));
        command.args(option("--revision", self.revision.as_deref()));
        command.envs(self.hub_token.iter().map(|token| ("HF_TOKEN", token)));
        command
    }

    /// Serves one rank. It has all files by now, so the Hub is out of bounds for it.
    pub(crate) fn serve(&self, seat: Seat<'_>) -> Command {
        let mut command = self.command("serve");
        command.arg("--prepared").arg(seat.prepared).arg("--socket").arg(seat.socket);
        command.args(["--rank", &seat.rank.to_string(), "--world-size", &seat.world_size.to_string()]);
        command.args(["--master-port", &seat.master_port.to_string()]);
        command.args(["--log-level", self.log_level]).args(&self.shard_options);
        if let Some(threads) = self.num_threads.or_else(|| fair_share(seat.world_size)) {
            command.args(["--num-threads", &threads.to_string()]);
        }
        command.env("HF_HUB_OFFLINE", "1");
        command
    }

    pub(crate) fn cannot_start(&self) -> impl FnOnce(std::io::Error) -> LaunchError {
        let program = self.path.clone();
        move |reason| LaunchError::Spawn { program, reason }
    }

    /// In a process group of its own, so that a terminal's Ctrl-C reaches only the launcher. The pipe to its stdin
    /// stays open as long as the launcher lives: its end is the child's second sign to end.
    fn command(&self, task: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args([task, "--json-output", "--parent-pid", &std::process::id().to_string()]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in NOT_FOR_CHILDREN {
            command.env_remove(name);
        }
        command.envs(self.hub_cache.iter().map(|folder| ("HF_HUB_CACHE", folder)));
        command.env("PYTHONUNBUFFERED", "1");
        command
    }
}

/// Threads of one of several shards: each would otherwise take every core, and they would wait for each other.
fn fair_share(world_size: u32) -> Option<u32> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    (world_size > 1).then(|| (cores / world_size).max(1))
}

fn shard_options(args: &LauncherArgs) -> Vec<String> {
    let fraction = args.shards.cuda_memory_fraction.map(|share| share.to_string());
    let sizes = args.shards.cuda_graphs.as_ref().map(|sizes| sizes.iter().map(u32::to_string).collect::<Vec<_>>());
    let sizes = sizes.map(|sizes| sizes.join(","));
    let cache = args.shards.cpu_kv_cache_mb.map(|megabytes| megabytes.to_string());
    let [gamma, delta] =
        [args.shards.watermark_gamma, args.shards.watermark_delta].map(|value| value.map(|value| value.to_string()));
    let rows = [
        ("--dtype", args.model.dtype.as_deref()),
        ("--device", args.shards.device.as_deref()),
        ("--attention", args.shards.attention()),
        ("--cuda-memory-fraction", fraction.as_deref()),
        ("--cuda-graphs", sizes.as_deref()),
        ("--cpu-kv-cache-mb", cache.as_deref()),
        ("--watermark-gamma", gamma.as_deref()),
        ("--watermark-delta", delta.as_deref()),
    ];
    rows.into_iter().flat_map(|(flag, value)| option(flag, value)).map(str::to_owned).collect()
}

fn option<'a>(flag: &'a str, value: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    value.into_iter().flat_map(move |value| [flag, value])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use text_generation_router::args::parse;

    fn program(flags: &[&str]) -> ServerProgram {
        let arguments = ["text-generation-launcher"].iter().chain(flags).map(OsString::from);
        ServerProgram::new("/opt/server".into(), &parse::<LauncherArgs>(arguments).unwrap())
    }

    fn arguments(command: &Command) -> String {
        command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn seat() -> Seat<'static> {
        let (prepared, socket) = (Path::new("/cache/prepared.json"), Path::new("/run/shards/1"));
        Seat { rank: 1, world_size: 2, prepared, socket, master_port: 29511 }
    }

    #[test]
    fn prepare_names_the_model_only_when_one_was_asked_for() {
        let parent = std::process::id();
        assert_eq!(arguments(&program(&[]).prepare()), format!("prepare --json-output --parent-pid {parent}"));
        let asked = program(&["--model-id", "org/model", "--revision", "v2"]).prepare();
        let expected = format!("prepare --json-output --parent-pid {parent} --model-id org/model --revision v2");
        assert_eq!(arguments(&asked), expected);
    }

    #[test]
    fn a_shard_is_told_everything_in_its_arguments() {
        let flags = [
            "--dtype",
            "bfloat16",
            "--device",
            "cpu",
            "--disable-custom-kernels",
            "--log-level",
            "warn",
            "--num-threads",
            "3",
            "--watermark-gamma",
            "0.25",
            "--cuda-graphs",
            "1,2",
        ];
        let told = arguments(&program(&flags).serve(seat()));
        let parent = std::process::id();
        assert_eq!(
            told,
            format!(
                "serve --json-output --parent-pid {parent} --prepared /cache/prepared.json --socket /run/shards/1 --rank 1 \
                 --world-size 2 --master-port 29511 --log-level warning --dtype bfloat16 --device cpu --attention torch --cuda-graphs 1,2 --watermark-gamma 0.25 --num-threads 3"
            )
        );
    }

    #[test]
    fn several_shards_share_the_cores_and_a_single_one_is_left_alone() {
        let alone = program(&[]).serve(Seat { rank: 0, world_size: 1, ..seat() });
        assert!(!arguments(&alone).contains("--num-threads"));
        let crowded = arguments(&program(&[]).serve(Seat { world_size: u32::MAX, ..seat() }));
        assert!(crowded.ends_with("--num-threads 1"), "{crowded}");
    }

    #[test]
    fn only_prepare_gets_the_hub_token_and_nobody_the_api_key() {
        let program = program(&["--hf-api-token", "hf_secret", "--api-key", "key"]);
        let value = |command: &Command, name: &str| {
            let set = command.get_envs().find(|(key, _)| *key == name);
            set.map(|(_, value)| value.map(|text| text.to_string_lossy().into_owned()))
        };
        assert_eq!(value(&program.prepare(), "HF_TOKEN"), Some(Some("hf_secret".to_owned())));
        assert_eq!(value(&program.serve(seat()), "HF_TOKEN"), Some(None));
        assert_eq!(value(&program.serve(seat()), "API_KEY"), Some(None));
        assert_eq!(value(&program.prepare(), "API_KEY"), Some(None));
    }
}
