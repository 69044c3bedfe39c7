//! What `--env` prints: the facts a bug report needs.

use std::fmt::Write;
use std::process::{Command, Stdio};

use crate::args::LauncherArgs;
use crate::launch::server_program;

/// The report, some lines of `name: value`.
pub fn report(args: &LauncherArgs) -> String {
    let server = server_program(args).map_or_else(|error| error.to_string(), |path| path.display().to_string());
    let shards = args.shards.world_size().map_or_else(|error| error.to_string(), |ranks| ranks.to_string());
    let cores = std::thread::available_parallelism().map_or_else(|error| error.to_string(), |cores| cores.to_string());
    let rows = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("cores", cores),
        ("gpus", gpus()),
        ("model", args.model.name().to_owned()),
        ("shards", shards),
        ("shard program", server),
        ("address", args.router.listen.socket_address().to_string()),
    ];
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

fn gpus() -> String {
    let listing = Command::new("nvidia-smi").arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let listing = listing.map(|output| String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; "));
    listing.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "none".to_owned())
}
